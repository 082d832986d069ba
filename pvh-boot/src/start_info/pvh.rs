//! The reader of the start info of a PVH guest.
//!
//! `xen/include/public/arch-x86/hvm/start_info.h` defines `struct hvm_start_info`. For dom0,
//! `pvh_load_kernel` in `xen/arch/x86/hvm/dom0_build.c` writes it. For a domU, `add_module_to_list` and
//! its caller in `tools/libs/guest/xg_dom_x86.c` do.
//!
//! The structure contains physical addresses of other structures. The reader calls a function of the
//! kernel for each of them, so it accesses only memory that the kernel returns.

use arrayvec::ArrayVec;

use super::command_line::until_nul;
use super::error::{Problem, StartInfoError};
use super::flags::StartFlags;
use super::memory_map::{self, MemoryRegion};

#[cfg(test)]
mod tests;

/// The magic at the start of the structure: `XEN_HVM_START_MAGIC_VALUE`.
pub const MAGIC: u32 = 0x336e_c578;

/// The highest number of modules that the reader accepts.
///
/// The reader does not allocate memory, so it needs a limit. Xen passes at most one module to dom0.
pub const MAX_MODULES: usize = 32;

/// The highest number of memory regions that the reader accepts.
///
/// The reader does not allocate memory, so it needs a limit. Linux's boot protocol has the same limit
/// (`E820_MAX_ENTRIES_ZEROPAGE`).
pub const MAX_REGIONS: usize = 128;

/// The highest length of a command line in bytes, with its NUL.
///
/// Xen cuts dom0's command line to a quarter of this (`MAX_GUEST_CMDLINE` of
/// `xen/include/public/xen.h`).
pub const MAX_COMMAND_LINE: usize = 4096;

/// A text is read in chunks that end at a multiple of this number of bytes.
const CHUNK: u64 = 4096;

/// Size of the structure in version 0, which has no memory map.
const SIZE_V0: usize = 40;
/// Size of the structure from version 1 on.
const SIZE_V1: usize = 56;
const MODULE_SIZE: usize = 32;
const REGION_SIZE: usize = 24;

/// The checked start info of a PVH guest.
///
/// All addresses are guest-physical, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PvhStartInfo<'a> {
    /// Version of the structure.
    ///
    /// The reader treats a version above 1 as version 1, because the header promises compatibility.
    pub version: u32,
    /// Flags of the domain.
    pub flags: StartFlags,
    /// Command line of the kernel, without its NUL. It may be empty.
    ///
    /// The bytes are those of the user, who may not have written UTF-8.
    pub cmd_line: &'a [u8],
    /// Address of the ACPI root pointer (RSDP), if the domain has one.
    pub rsdp: Option<u64>,
    /// Modules of the domain, for example a RAM disk.
    pub modules: ArrayVec<PvhModule<'a>, MAX_MODULES>,
    /// Memory map of the domain. It passed [`memory_map::check`].
    ///
    /// It is empty if the domain builder does not write one, as in a dom0 of Xen 4.17. The kernel then
    /// makes the hypercall `XENMEM_memory_map`.
    pub memory_map: ArrayVec<MemoryRegion, MAX_REGIONS>,
}

/// A module of a PVH guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvhModule<'a> {
    /// Address of the first byte.
    pub start: u64,
    /// Size in bytes.
    pub len: u64,
    /// Command line of the module. It may be empty.
    pub cmd_line: &'a [u8],
}

impl<'a> PvhStartInfo<'a> {
    /// Reads and checks the structure at `start_info` and all that it points to.
    ///
    /// `memory(address, len)` returns exactly `len` bytes at the physical `address`, or `None` if the
    /// kernel cannot read them. The reader treats a slice of another length as `None`. In a kernel on
    /// the boot page tables, `page_tables::boot_memory` is such a function.
    ///
    /// The result borrows its texts from `memory`. A kernel may call this function from its first
    /// instruction on.
    ///
    /// ```
    /// use pvh_boot::start_info::PvhStartInfo;
    /// use pvh_boot::start_info::pvh::MAGIC;
    ///
    /// // One page of memory at 0x1000, with a start info of version 0 and a command line.
    /// let mut page = [0; 4096];
    /// page[..4].copy_from_slice(&MAGIC.to_le_bytes());
    /// page[24..32].copy_from_slice(&0x1100_u64.to_le_bytes());
    /// page[0x100..0x106].copy_from_slice(b"quiet\0");
    /// let memory = |address: u64, len: usize| {
    ///     let start = address.checked_sub(0x1000)? as usize;
    ///     page.get(start..start.checked_add(len)?)
    /// };
    ///
    /// let info = PvhStartInfo::read(0x1000, memory)?;
    /// assert_eq!((info.version, info.cmd_line), (0, &b"quiet"[..]));
    /// assert!(info.modules.is_empty() && info.memory_map.is_empty());
    /// # Ok::<(), pvh_boot::start_info::StartInfoError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the first field whose value is not possible in a domain that Xen has built. A pointer is
    /// such a field if `memory` does not return the bytes that it points to.
    pub fn read<M>(start_info: u32, memory: M) -> Result<Self, StartInfoError>
    where
        M: Fn(u64, usize) -> Option<&'a [u8]>,
    {
        let memory = PhysicalMemory(memory);
        let start_info = nonzero("hvm_start_info", start_info.into())?;
        let raw = memory.bytes("hvm_start_info", start_info, SIZE_V0)?;
        if u32_at(raw, 0) != MAGIC {
            let problem = Problem::BadMagic;
            return Err(StartInfoError::new("magic", u32_at(raw, 0).into(), problem));
        }
        let version = u32_at(raw, 4);
        let memory_map = match version {
            0 => ArrayVec::new(),
            _ => {
                let raw = memory.bytes("hvm_start_info", start_info, SIZE_V1)?;
                memory.regions(raw, version)?
            }
        };
        Ok(Self {
            version,
            flags: StartFlags::new(u32_at(raw, 8)),
            cmd_line: memory.text("cmdline_paddr", u64_at(raw, 24))?,
            rsdp: Some(u64_at(raw, 32)).filter(|&address| address != 0),
            modules: memory.modules(u64_at(raw, 16), u32_at(raw, 12))?,
            memory_map,
        })
    }
}

/// The `memory` function of the kernel. Its errors name the field.
struct PhysicalMemory<M>(M);

impl<'a, M: Fn(u64, usize) -> Option<&'a [u8]>> PhysicalMemory<M> {
    /// Returns the `len` bytes to which `field` points.
    fn bytes(
        &self,
        field: &'static str,
        address: u64,
        len: usize,
    ) -> Result<&'a [u8], StartInfoError> {
        if address.checked_add(len as u64).is_none() {
            let problem = Problem::Overflow { len: len as u64 };
            return Err(StartInfoError::new(field, address, problem));
        }
        (self.0)(address, len).filter(|bytes| bytes.len() == len).ok_or(StartInfoError::new(
            field,
            address,
            Problem::Unreadable { len },
        ))
    }

    /// Returns the text at `address`, or an empty text for address 0.
    fn text(&self, field: &'static str, address: u64) -> Result<&'a [u8], StartInfoError> {
        if address == 0 {
            return Ok(&[]);
        }
        // The readable memory may end with the text, so the reader requests one page at a time.
        let mut len = 0;
        while len < MAX_COMMAND_LINE {
            let at = address.checked_add(len as u64).ok_or(StartInfoError::new(
                field,
                address,
                Problem::Overflow { len: len as u64 },
            ))?;
            let chunk = ((CHUNK - at % CHUNK) as usize).min(MAX_COMMAND_LINE - len);
            let bytes = self.bytes(field, at, chunk)?;
            len += chunk;
            if bytes.contains(&0) {
                break;
            }
        }
        until_nul(field, self.bytes(field, address, len)?)
    }

    /// Returns the entries of a table. It has `count` entries of `size` bytes.
    fn table(
        &self,
        (pointer_field, address): (&'static str, u64),
        (count_field, count): (&'static str, u32),
        size: usize,
        limit: usize,
    ) -> Result<impl Iterator<Item = &'a [u8]> + use<'a, M>, StartInfoError> {
        if count as usize > limit {
            let problem = Problem::TooLarge { limit: limit as u64 };
            return Err(StartInfoError::new(count_field, count.into(), problem));
        }
        let bytes = match count {
            0 => &[],
            _ => {
                nonzero(pointer_field, address)?;
                self.bytes(pointer_field, address, count as usize * size)?
            }
        };
        Ok(bytes.chunks_exact(size))
    }

    fn modules(
        &self,
        address: u64,
        count: u32,
    ) -> Result<ArrayVec<PvhModule<'a>, MAX_MODULES>, StartInfoError> {
        let table = self.table(
            ("modlist_paddr", address),
            ("nr_modules", count),
            MODULE_SIZE,
            MAX_MODULES,
        )?;
        let module = |(index, raw): (usize, &[u8])| {
            let (start, len) = (u64_at(raw, 0), u64_at(raw, 8));
            nonzero("modlist.paddr", start).map_err(|error| error.at(index))?;
            if start.checked_add(len).is_none() {
                let problem = Problem::Overflow { len };
                return Err(StartInfoError::new("modlist.paddr", start, problem).at(index));
            }
            let cmd_line = self
                .text("modlist.cmdline_paddr", u64_at(raw, 16))
                .map_err(|error| error.at(index))?;
            Ok(PvhModule { start, len, cmd_line })
        };
        table.enumerate().map(module).collect()
    }

    fn regions(
        &self,
        raw: &[u8],
        version: u32,
    ) -> Result<ArrayVec<MemoryRegion, MAX_REGIONS>, StartInfoError> {
        reserved("reserved", u32_at(raw, 52), version)?;
        let table = self.table(
            ("memmap_paddr", u64_at(raw, 40)),
            ("memmap_entries", u32_at(raw, 48)),
            REGION_SIZE,
            MAX_REGIONS,
        )?;
        let region = |(index, raw): (usize, &[u8])| {
            reserved("memmap.reserved", u32_at(raw, 20), version)
                .map_err(|error| error.at(index))?;
            Ok(MemoryRegion {
                start: u64_at(raw, 0),
                len: u64_at(raw, 8),
                kind: u32_at(raw, 16).into(),
            })
        };
        let regions: ArrayVec<_, MAX_REGIONS> =
            table.enumerate().map(region).collect::<Result<_, StartInfoError>>()?;
        memory_map::check(&regions)?;
        Ok(regions)
    }
}

fn nonzero(field: &'static str, value: u64) -> Result<u64, StartInfoError> {
    match value {
        0 => Err(StartInfoError::new(field, value, Problem::Zero)),
        _ => Ok(value),
    }
}

/// Checks a reserved field. The header requires zero in version 1 only.
fn reserved(field: &'static str, value: u32, version: u32) -> Result<(), StartInfoError> {
    if value != 0 && version == 1 {
        return Err(StartInfoError::new(field, value.into(), Problem::ReservedInUse));
    }
    Ok(())
}

/// Returns the number of four bytes at offset `at` of a whole structure.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

/// Returns the number of eight bytes at offset `at`, as [`u32_at`] does.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
