//! The parts of the kernel that deal with devices and need no Xen.

extern crate alloc;

#[path = "../kernel/src/pci/frontend/backend_id.rs"]
mod backend_id;

#[path = "../kernel/src/pci/bar.rs"]
mod bar;

#[path = "../kernel/src/pci/capability.rs"]
mod capability;

#[path = "../kernel/src/drivers/block_size.rs"]
mod block_size;

#[path = "../kernel/src/drivers/doorbells.rs"]
mod doorbells;

#[path = "../kernel/src/pci/function.rs"]
mod function;

#[cfg(feature = "virtio-drivers")]
#[path = "../kernel/src/virtio/access.rs"]
mod access;

/// The items of the kernel's module of this name that `access` uses.
#[cfg(feature = "virtio-drivers")]
mod pci {
    pub use super::config::ConfigSpace;
}

/// The items of the kernel's module of this name that functions use.
mod config {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use pci_types::{ConfigRegionAccess, PciAddress};

    use super::COMMAND;

    /// The configuration space of one function, in which a write changes the bits of a mask.
    #[derive(Clone, Default)]
    pub struct ConfigSpace(Rc<RefCell<Registers>>);

    /// The contents and the mask of each register, the last address, and the writes.
    #[derive(Default)]
    struct Registers {
        all: BTreeMap<u16, (u32, u32)>,
        address: Option<PciAddress>,
        /// For each write, its offset and the contents of the command register before.
        writes: Vec<(u16, u32)>,
    }

    impl ConfigSpace {
        /// Adds a register.
        pub fn with(self, offset: u16, value: u32, mask: u32) -> Self {
            self.0.borrow_mut().all.insert(offset, (value, mask));
            self
        }

        /// Returns the contents of a register.
        pub fn get(&self, offset: u16) -> u32 {
            self.0.borrow().all.get(&offset).map_or(0, |(value, _)| *value)
        }

        /// Returns the address of the last access.
        #[cfg(feature = "virtio-drivers")]
        pub fn last_address(&self) -> Option<PciAddress> {
            self.0.borrow().address
        }

        /// Returns the contents of the command register at each write to a register.
        pub fn commands_at_writes(&self, offset: u16) -> Vec<u32> {
            let registers = self.0.borrow();
            let writes = registers.writes.iter().filter(|(written, _)| *written == offset);
            writes.map(|(_, command)| *command).collect()
        }

        /// Returns the number of writes.
        pub fn writes(&self) -> usize {
            self.0.borrow().writes.len()
        }
    }

    impl ConfigRegionAccess for ConfigSpace {
        unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
            self.0.borrow_mut().address = Some(address);
            self.get(offset)
        }

        unsafe fn write(&self, address: PciAddress, offset: u16, new: u32) {
            let mut registers = self.0.borrow_mut();
            registers.address = Some(address);
            let command = registers.all.get(&COMMAND).map_or(0, |(value, _)| *value);
            registers.writes.push((offset, command));
            if let Some((value, mask)) = registers.all.get_mut(&offset) {
                *value = *value & !*mask | new & *mask;
            }
        }
    }
}

use backend_id::BackendIdError;
use bar::{BarError, BarFault, MemoryBar};
use block_size::UnsupportedBlockSize;
use capability::{Capability, EndlessCapabilities};
use config::ConfigSpace;
use function::{Function, FunctionError};
use hypercall::DomId;
use pci_types::{ConfigRegionAccess, PciAddress};
use std::cell::Cell;

/// The offset of the command register, and its bits.
const COMMAND: u16 = 0x04;
const DECODES_MEMORY: u32 = 1 << 1;
const DOES_DMA: u32 = 1 << 2;
const NO_INTERRUPTS: u32 = 1 << 10;

/// Returns a function whose register at `offset` is the only one in use.
fn one_register(slot: u8, value: u32, mask: u32) -> ConfigSpace {
    ConfigSpace::default().with(0x10 + 4 * u16::from(slot), value, mask)
}

/// Returns the address of a function that no other test uses.
fn function_of_test(device: u8) -> PciAddress {
    PciAddress::new(0, 0, device, 0)
}

fn read(space: &ConfigSpace, slot: u8) -> Result<Option<(MemoryBar, u8)>, BarFault> {
    bar::read(space, function_of_test(31), slot).map_err(|error| error.fault)
}

#[test]
fn a_register_of_32_bits_has_an_address_and_a_size() {
    // 64 KiB, prefetchable.
    let space = one_register(1, 0xfeb4_0008, 0xffff_0000);
    let bar = MemoryBar { start: 0xfeb4_0000, bytes: 0x1_0000 };
    assert_eq!(read(&space, 1), Ok(Some((bar, 1))));
    assert_eq!(space.get(0x14), 0xfeb4_0008, "the contents are restored");
    let largest = one_register(0, 0x8000_0000, 0x8000_0000);
    let bar = MemoryBar { start: 0x8000_0000, bytes: 0x8000_0000 };
    assert_eq!(read(&largest, 0), Ok(Some((bar, 1))));
}

#[test]
fn a_register_of_64_bits_takes_two() {
    let small = one_register(4, 0xfe00_0004, 0xffff_c000).with(0x24, 0x38, u32::MAX);
    let bar = MemoryBar { start: 0x38_fe00_0000, bytes: 0x4000 };
    assert_eq!(read(&small, 4), Ok(Some((bar, 2))));
    assert_eq!((small.get(0x20), small.get(0x24)), (0xfe00_0004, 0x38));
    let large = one_register(0, 0x4, 0).with(0x14, 0x40, 0xffff_ffc0);
    let bar = MemoryBar { start: 0x40 << 32, bytes: 0x40 << 32 };
    assert_eq!(read(&large, 0), Ok(Some((bar, 2))));
}

#[test]
fn ports_and_unused_registers_are_no_memory() {
    assert_eq!(read(&one_register(0, 0xc001, 0xffff_fff0), 0), Ok(None));
    assert_eq!(read(&one_register(0, u32::MAX, u32::MAX), 0), Ok(None));
    assert_eq!(read(&ConfigSpace::default(), 0), Ok(None));
    assert_eq!(read(&one_register(0, 0, 0xffff_0000), 0), Ok(None), "without an address");
    assert_eq!(read(&ConfigSpace::default(), 6), Ok(None));
    assert_eq!(read(&ConfigSpace::default(), 255), Ok(None));
}

#[test]
fn a_reserved_memory_type_is_refused() {
    for value in [0xfeb0_0002, 0xfeb0_0006, 0xfeb0_000e] {
        let space = one_register(0, value, 0xffff_0000);
        assert_eq!(read(&space, 0), Err(BarFault::ReservedType));
        assert_eq!(space.writes(), 0);
    }
    let last = one_register(5, 0xfeb0_0004, 0xffff_0000);
    assert_eq!(read(&last, 5), Err(BarFault::NoSecondHalf));
}

#[test]
fn a_register_without_a_size_is_refused() {
    // No bit can be set, or only bits that are not part of an address.
    for mask in [0, 0b1000, 0b1111] {
        for kind in [0b000, 0b100] {
            let space = Sizeless { value: 0xfeb0_0000 | kind, mask, is_sized: Cell::new(false) };
            let error = bar::read(&space, function_of_test(31), 0).unwrap_err();
            assert_eq!(error.fault, BarFault::NoSize(mask.into()));
        }
    }
}

#[test]
fn memory_beyond_the_last_address_is_refused() {
    let space = one_register(0, 0xffff_f004, 0xffff_f000).with(0x14, u32::MAX, u32::MAX);
    assert_eq!(read(&space, 0), Err(BarFault::BeyondEnd(0x1000)));
}

/// A function whose register 0 returns `mask` after the first write, and whose other registers are 0.
struct Sizeless {
    value: u32,
    mask: u32,
    is_sized: Cell<bool>,
}

impl ConfigRegionAccess for Sizeless {
    unsafe fn read(&self, _: PciAddress, offset: u16) -> u32 {
        match offset {
            0x10 if self.is_sized.get() => self.mask,
            0x10 => self.value,
            _ => 0,
        }
    }

    unsafe fn write(&self, _: PciAddress, _: u16, _: u32) {
        self.is_sized.set(true);
    }
}

#[test]
fn errors_of_a_register_name_the_function_and_the_value() {
    let space = one_register(2, 0xfeb0_0006, 0xffff_0000);
    let error: BarError = bar::read(&space, function_of_test(30), 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "BAR 2 of 0000:00:1e.0 has the value 0xfeb00006, whose memory type is reserved; compare it with lspci \
         -xxx in Linux. If it is the same there, the device is broken: do not use it"
    );
}

#[test]
fn memory_contains_the_bytes_between_its_ends() {
    let bar = MemoryBar { start: 0x1000, bytes: 0x100 };
    assert!(bar.contains(0x1000, 0x100) && bar.contains(0x10ff, 1) && bar.contains(0x1100, 0));
    assert!(!bar.contains(0xfff, 1) && !bar.contains(0x10ff, 2) && !bar.contains(0x1101, 0));
    assert!(!bar.contains(u64::MAX, 2) && !bar.contains(0x1004, u64::MAX));
    let last = MemoryBar { start: u64::MAX - 0xff, bytes: 0x100 };
    assert!(last.contains(u64::MAX, 1) && !last.contains(u64::MAX, 2));
}

/// Returns a function with 16 KiB of memory at its first base address register.
fn usable() -> ConfigSpace {
    one_register(0, 0xfeb0_0000, 0xffff_c000).with(COMMAND, 0, 0xffff)
}

#[test]
fn memory_that_is_shorter_than_the_registers_is_refused() {
    let address = function_of_test(1);
    let function = Function::take(usable(), address).ok().unwrap();
    let bar = MemoryBar { start: 0xfeb0_0000, bytes: 0x4000 };
    assert_eq!(function.registers(0, 0x4000), Ok(bar));
    let error = function.registers(0, 0x4001).unwrap_err();
    let short = FunctionError::ShortMemory { address, slot: 0, bytes: 0x4000, used: 0x4001 };
    assert_eq!(error, short);
    assert_eq!(
        error.to_string(),
        "BAR 0 of 0000:00:01.0 has 16384 bytes, but the driver uses 16385: the device is of a kind that the \
         driver does not support"
    );
    assert_eq!(function.registers(1, 1), Err(FunctionError::NoMemory { address, slot: 1 }));
    assert_eq!(function.memories(), Ok(vec![bar]));
}

#[test]
fn a_broken_register_makes_a_function_unusable() {
    let address = function_of_test(2);
    let function = Function::take(one_register(0, 0xfeb0_0002, 0), address).ok().unwrap();
    let error = BarError { address, slot: 0, value: 0xfeb0_0002, fault: BarFault::ReservedType };
    assert_eq!(function.registers(0, 1), Err(FunctionError::Bar(error)));
    assert_eq!(function.memories(), Err(FunctionError::Bar(error)));
}

#[test]
fn a_second_driver_is_refused_and_does_not_touch_the_function() {
    let (space, address) = (usable(), function_of_test(3));
    let first = Function::take(space.clone(), address).ok().unwrap();
    first.enable_memory();
    first.start_dma();
    let writes = space.writes();
    let second = Function::take(space.clone(), address);
    assert_eq!(second.err(), Some(FunctionError::InUse(address)));
    assert_eq!((space.writes(), space.get(COMMAND)), (writes, DECODES_MEMORY | DOES_DMA));
    assert!(Function::take(usable(), function_of_test(4)).is_ok(), "another function is free");
    drop(first);
    assert_eq!(space.get(COMMAND), DECODES_MEMORY);
    assert!(Function::take(space, address).is_ok());
}

#[test]
fn a_bridge_is_refused_and_stays_free() {
    let (space, address) = (usable().with(0x0c, 0x0001_0000, 0), function_of_test(5));
    for _ in 0..2 {
        let taken = Function::take(space.clone(), address);
        assert_eq!(taken.err(), Some(FunctionError::NoEndpoint(address)));
    }
    assert_eq!(space.writes(), 0);
}

#[test]
fn a_function_that_no_driver_uses_stays_as_it_was() {
    for command in [0, DECODES_MEMORY, DECODES_MEMORY | DOES_DMA | 1, DOES_DMA | NO_INTERRUPTS] {
        let space = usable().with(COMMAND, command, 0xffff);
        let function = Function::take(space.clone(), function_of_test(9)).ok().unwrap();
        assert!(function.memories().is_ok());
        assert_eq!(space.get(COMMAND), command);
        drop(function);
        assert_eq!(space.get(COMMAND), command);
        let broken = space.clone().with(0x10, 0xfeb0_0002, 0);
        assert!(Function::take(broken, function_of_test(9)).ok().unwrap().memories().is_err());
        assert_eq!(space.get(COMMAND), command);
    }
}

#[test]
fn the_size_of_memory_is_asked_for_while_it_is_not_decoded() {
    let space = usable().with(COMMAND, DECODES_MEMORY, 0xffff);
    let function = Function::take(space.clone(), function_of_test(10)).ok().unwrap();
    assert!(function.registers(0, 1).is_ok());
    assert_eq!(space.commands_at_writes(0x10), [0; 2], "one write asks, one restores");
}

#[test]
fn a_function_does_dma_only_between_the_start_and_the_drop() {
    let space = usable().with(COMMAND, DOES_DMA, 0xffff);
    let function = Function::take(space.clone(), function_of_test(6)).ok().unwrap();
    function.enable_memory();
    assert_eq!(space.get(COMMAND), DECODES_MEMORY, "an earlier right to do DMA ends");
    function.disable_interrupts();
    function.start_dma();
    assert_eq!(function.space().get(COMMAND), DECODES_MEMORY | DOES_DMA | NO_INTERRUPTS);
    assert_eq!(function.to_string(), "0000:00:06.0");
    drop(function);
    assert_eq!(space.get(COMMAND), DECODES_MEMORY | NO_INTERRUPTS);
}

/// Returns a function whose first capability is at `first`. Others are added as registers.
fn with_capabilities(first: u32) -> ConfigSpace {
    ConfigSpace::default().with(COMMAND, 1 << 20, 0).with(0x34, first, 0)
}

#[test]
fn capabilities_are_read_in_the_order_of_the_list() {
    let address = function_of_test(7);
    let offsets = |space: ConfigSpace| {
        let all = capability::read(&space, address).unwrap();
        all.into_iter().map(|one: Capability| (one.offset, one.id())).collect::<Vec<_>>()
    };
    // The lowest bits of the first offset are reserved.
    let space = with_capabilities(0x83).with(0x80, 0x0110_4009, 0).with(0x40, 0x0011, 0);
    assert_eq!(offsets(space), [(0x80, 0x09), (0x40, 0x11)]);
    assert_eq!(offsets(ConfigSpace::default().with(0x34, 0x40, 0)), [], "the status says: no list");
    for no_capability in [0, 0x3c] {
        assert_eq!(offsets(with_capabilities(no_capability)), []);
    }
    for no_capability in [0x3c, 0x81] {
        assert_eq!(offsets(with_capabilities(0x40).with(0x40, no_capability << 8, 0)), [(0x40, 0)]);
    }
    let chain = (0x40..0xfc).step_by(4).fold(with_capabilities(0x40), |space, offset: u16| {
        space.with(offset, u32::from(offset + 4) << 8, 0)
    });
    assert_eq!(offsets(chain).len(), 48, "as many as fit");
}

#[test]
fn a_capability_list_that_leads_back_to_itself_is_refused() {
    let address = function_of_test(8);
    let to_itself = with_capabilities(0x40).with(0x40, 0x4009, 0);
    assert_eq!(capability::read(&to_itself, address), Err(EndlessCapabilities(address)));
    let cycle = with_capabilities(0xfc).with(0xfc, 0x40 << 8, 0).with(0x40, 0xfc << 8, 0);
    assert_eq!(
        capability::read(&cycle, address).unwrap_err().to_string(),
        "the capability list of 0000:00:08.0 does not end after 48 entries, the most that can exist; compare it \
         with lspci -vv in Linux. If that prints \"chain looped\", the device is broken: do not use it"
    );
}

#[cfg(feature = "virtio-drivers")]
#[test]
fn virtio_drivers_accesses_the_segment_of_the_device() {
    use virtio_drivers::transport::pci::bus::ConfigurationAccess;

    let (space, address) = (usable(), PciAddress::new(1, 2, 3, 4));
    let mut access = access::ConfigAccess::around(&space, address);
    let function = access::function(address);
    assert_eq!(access.read_word(function, 0x10), 0xfeb0_0000);
    assert_eq!(space.last_address(), Some(address));
    let neighbour = access::function(PciAddress::new(1, 2, 3, 5));
    access.write_word(neighbour, 0x04, DECODES_MEMORY);
    assert_eq!(space.last_address(), Some(PciAddress::new(1, 2, 3, 5)));
    // SAFETY: one of the two accesses the function at a time.
    let clone = unsafe { access.unsafe_clone() };
    assert_eq!(clone.read_word(function, 0x04), DECODES_MEMORY);
    assert_eq!(space.last_address(), Some(address));
}

#[test]
fn doorbells_end_where_their_distance_says() {
    let capabilities = |stride: u64| stride << 32 | 0xffff_fff0_ffff_ffff;
    assert_eq!(doorbells::end(capabilities(0)), 0x1010);
    assert_eq!(doorbells::end(capabilities(4)), 0x1000 + 3 * 64 + 4);
    assert_eq!(doorbells::end(capabilities(15)), 0x1000 + 3 * (128 << 10) + 4);
}

#[test]
fn a_disk_has_blocks_of_a_sector_to_a_page() {
    for bytes in [512, 1024, 2048, 4096] {
        assert_eq!(block_size::check(bytes), Ok(bytes));
    }
    for bytes in [0, 1, 256, 511, 513, 520, 4104, 8192, 1 << 31, usize::MAX] {
        assert_eq!(block_size::check(bytes), Err(UnsupportedBlockSize { bytes }));
    }
    assert_eq!(
        block_size::check(0).unwrap_err().to_string(),
        "the first namespace has blocks of 0 bytes, but the driver supports powers of two from 512 to 4096; \
         format it with such blocks (nvme format --block-size=4096), which erases it"
    );
}

#[test]
fn the_backend_is_in_another_domain() {
    assert_eq!(backend_id::parse("0", Some("5")), Ok(DomId(0)));
    assert_eq!(backend_id::parse("32751", None), Ok(DomId(0x7fef)));
    assert_eq!(backend_id::parse("5", Some("5")), Err(BackendIdError::Own(DomId(5))));
    assert_eq!(backend_id::parse("5", Some("?")), Ok(DomId(5)));
    for text in
        ["", "x", "-1", "+1", " 1", "1\0", "0x1", "32752", "65535", "65536", "99999999999999999999"]
    {
        let error = backend_id::parse(text, Some("5")).unwrap_err();
        assert!(matches!(error, BackendIdError::NotADomain(_)), "{text:?}: {error}");
    }
    assert_eq!(
        backend_id::parse("domain-with-a-long-name", None).unwrap_err().to_string(),
        "backend-id in xenstore is \"domain-with-a-lo\", not the number of a domain (0 to 32751); create the domain \
         again with xl and a device in pci=[…]"
    );
    assert_eq!(
        backend_id::parse("5", Some("5")).unwrap_err().to_string(),
        "backend-id in xenstore is 5, the number of this domain, which cannot serve itself; create the domain \
         again with xl and a device in pci=[…]"
    );
}
