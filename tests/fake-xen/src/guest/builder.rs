//! Builds a machine and its guest, as a toolstack's domain builder does.

use std::sync::Arc;

use hypercall::Mfn;
use hypercall::PageTableFlags;
use hypercall::ops::Pte;
use xen_contig::paging::FlushClock;
use xen_contig::sync::AtomicU64;

use super::areas;
use super::{AreaConfig, FakeGuest, LINEAR};
use crate::content::WORDS;
use crate::domain::{Domain, GUEST};
use crate::machine::MachineState;
use crate::ram::{HostMapping, Ram};
use crate::tables::AddressLayout;
use crate::xen::FakeXen;

/// Where aliases are made without real memory.
const ALIASES: u64 = 0xffff_c900_0000_0000;

/// Where areas are made without real memory.
const AREAS: u64 = 0xffff_d000_0000_0000;

/// Builds a machine and its guest.
#[derive(Clone, Debug)]
pub struct GuestBuilder {
    frames: u64,
    machine_frames: u64,
    max_pages: u64,
    vcpus: usize,
    max_order: u32,
    translated: bool,
    privileged: bool,
    seed: u64,
    areas: Option<AreaConfig>,
    real_memory: bool,
    record_memory: bool,
}

impl GuestBuilder {
    /// A PV guest of `frames` frames, see [`FakeGuest::new`].
    pub const fn new(frames: u64) -> Self {
        Self {
            frames,
            machine_frames: 4 * frames + 1024,
            max_pages: frames,
            vcpus: 2,
            max_order: 9,
            translated: false,
            privileged: false,
            seed: 0x5eed_0fa1_1c0d_e001,
            areas: None,
            real_memory: false,
            record_memory: false,
        }
    }

    /// Sets how many frames the machine has.
    #[must_use]
    pub const fn machine_frames(self, machine_frames: u64) -> Self {
        Self { machine_frames, ..self }
    }

    /// Sets how many frames the guest may have. The default is the number that it has.
    #[must_use]
    pub const fn max_pages(self, max_pages: u64) -> Self {
        Self { max_pages, ..self }
    }

    /// Sets the number of vCPUs.
    #[must_use]
    pub const fn vcpus(self, vcpus: usize) -> Self {
        Self { vcpus, ..self }
    }

    /// Sets the highest order that Xen permits.
    #[must_use]
    pub const fn max_order(self, max_order: u32) -> Self {
        Self { max_order, ..self }
    }

    /// Makes it a translated guest (PVH).
    #[must_use]
    pub const fn translated(self) -> Self {
        Self { translated: true, ..self }
    }

    /// Makes it a control domain (dom0).
    #[must_use]
    pub const fn privileged(self) -> Self {
        Self { privileged: true, ..self }
    }

    /// Sets the seed by which the guest's frames are scattered over the machine.
    #[must_use]
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Adds virtual areas.
    #[must_use]
    pub const fn areas(self, areas: AreaConfig) -> Self {
        Self { areas: Some(areas), ..self }
    }

    /// Gives the guest memory that the test can access through pointers.
    ///
    /// [`FakeGuest::address`], the pointer of a buffer and the pointers of virtual areas are then
    /// addresses of the host. They show the machine frame that the guest's page tables map there.
    /// Accesses must be volatile ([M5](xen_contig::rules#M5)). An access to a page that is not
    /// mapped ends the process with `SIGSEGV`; a driver must not touch memory that a transaction
    /// holds. The areas of a translated guest stay without real memory, because the guest's own page
    /// tables map them and the model has none.
    ///
    /// The whole machine takes memory of the host, and each frame of the guest a mapping of the
    /// process. Linux limits the mappings of a process (`vm.max_map_count`, 65,530 by default), so
    /// all guests of a process together may have about 60,000 frames. A guest of 1,024 frames is
    /// built in a few milliseconds, which is why bulk tests do without.
    #[must_use]
    pub const fn real_memory(self) -> Self {
        Self { real_memory: true, ..self }
    }

    /// Gives the guest pointers to memory in which its kernel can keep records.
    ///
    /// A frame's pointer then names bytes that exist beside the frame's content: the model, the
    /// device and Xen do not see them, and they stay when the frame is exchanged. That suits a
    /// kernel that keeps a frame to itself, and it is cheap, so that a test can build thousands of
    /// such guests. [Real memory](Self::real_memory) includes it.
    #[must_use]
    pub const fn record_memory(self) -> Self {
        Self { record_memory: true, ..self }
    }

    /// The guest's address space, and its memory if the test has pointers to it.
    fn memory(&self) -> (AddressLayout, Option<Ram>) {
        let mut layout = AddressLayout { linear: LINEAR, aliases: ALIASES, areas: AREAS };
        if !self.real_memory {
            return (layout, None);
        }
        let linear_tables = self.frames.div_ceil(WORDS as u64);
        let area_tables = self.areas.map_or(0, |areas| areas.tables());
        let tables = if self.translated { linear_tables } else { linear_tables + 1 + area_tables };
        let ram = Ram::new(self.machine_frames, tables * WORDS as u64);
        layout.linear = ram.window();
        if !self.translated {
            layout.aliases = layout.linear + (linear_tables << 21);
            layout.areas = layout.aliases + (1 << 21);
        }
        (layout, Some(ram))
    }

    /// Builds the machine and the guest.
    ///
    /// # Panics
    /// If the machine is too small for the guest.
    pub fn build(self) -> FakeGuest {
        let domain = Domain {
            id: GUEST,
            pages: self.frames,
            max_pages: self.max_pages,
            max_order: self.max_order,
            privileged: self.privileged,
            exchange_denied: None,
            exchange_translated: false,
            physmap: None,
        };
        let (mut layout, ram) = self.memory();
        let scratch = self.record_memory && !self.real_memory;
        let record_memory = scratch.then(|| HostMapping::scratch(self.frames));
        if let Some(memory) = &record_memory {
            layout.linear = memory.first_table();
        }
        let mut machine = MachineState::new(self.machine_frames, domain, self.vcpus, layout, ram);
        let limit = self.machine_frames;
        let mut mfns: Vec<u64> = (0..self.frames)
            .map(|_| machine.heap.take(0, limit, u64::MAX).expect("a machine with room"))
            .collect();
        scatter(&mut mfns, self.seed);
        for (pfn, mfn) in mfns.iter().enumerate() {
            machine.assign(*mfn, 0);
            machine.frames[*mfn as usize].content.fill(0);
            machine.set_m2p(*mfn, pfn as u64);
        }
        let (flushes, tables, p2m) = if self.translated {
            machine.domain.physmap = Some(mfns.into_iter().map(Some).collect());
            (0..self.frames).for_each(|pfn| machine.physmap_changed(pfn));
            (FlushClock::translated(), 0, Arc::default())
        } else {
            let area_tables = self.areas.map_or(0, |areas| areas.tables());
            let tables = build_tables(&mut machine, &mfns, area_tables);
            (FlushClock::pv(), tables, mfns.into_iter().map(AtomicU64::new).collect())
        };
        let (xen, flushes, frames) = (FakeXen::new(machine), Arc::new(flushes), self.frames);
        let mut guest = FakeGuest {
            xen,
            flushes,
            p2m,
            frames,
            layout,
            tables,
            areas: None,
            _record_memory: record_memory,
        };
        guest.areas = self.areas.map(|config| areas::make(&guest, config));
        guest
    }
}

/// Builds the tables of the linear mapping, of aliases and of areas in the guest's first frames.
/// These are mapped read-only, as Xen requires for page tables. Returns the number of tables.
fn build_tables(machine: &mut MachineState, mfns: &[u64], area_tables: u64) -> u64 {
    let AddressLayout { linear, aliases, areas } = machine.layout;
    let linear_tables = mfns.len().div_ceil(WORDS);
    let tables = linear_tables + 1 + area_tables as usize;
    assert!(tables < mfns.len(), "a guest with room for its tables");
    let read_only = PageTableFlags::PRESENT | PageTableFlags::NO_EXECUTE;
    for (table, covered) in mfns.chunks(WORDS).enumerate() {
        for (index, mfn) in covered.iter().enumerate() {
            let is_table = table * WORDS + index < tables;
            let writable =
                if is_table { PageTableFlags::empty() } else { PageTableFlags::WRITABLE };
            let pte = Pte::new(Mfn::new(*mfn), read_only | writable);
            machine.frames[mfns[table] as usize].content.write(index, pte.raw());
        }
        machine.hook((linear >> 21) + table as u64, mfns[table]).expect("a sound linear mapping");
    }
    machine.hook(aliases >> 21, mfns[linear_tables]).expect("a sound table for aliases");
    for table in 0..area_tables {
        let mfn = mfns[linear_tables + 1 + table as usize];
        machine.hook((areas >> 21) + table, mfn).expect("a sound table for areas");
    }
    tables as u64
}

/// Shuffles until no frame backs its own number and no two neighbours are neighbours in the machine.
/// A guest that is contiguous by accident would make tests pass for nothing.
fn scatter(mfns: &mut [u64], seed: u64) {
    let mut random = seed | 1;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % limit
    };
    for index in (1..mfns.len()).rev() {
        mfns.swap(index, below(index + 1));
    }
    loop {
        let orderly = |mfns: &[u64], pfn: usize| {
            mfns[pfn] == pfn as u64 || (pfn > 0 && mfns[pfn - 1] + 1 == mfns[pfn])
        };
        let Some(pfn) = (0..mfns.len()).find(|pfn| orderly(mfns, *pfn)) else { return };
        mfns.swap(pfn, below(mfns.len()));
    }
}
