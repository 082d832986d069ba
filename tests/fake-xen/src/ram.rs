//! The machine's memory as bytes of the host, so that a test can follow the guest's pointers.
//!
//! One anonymous file holds the machine: the frame `mfn` is at offset `mfn * 4096`. The file is
//! mapped twice. The model reads and writes every frame through a view of the whole file. The guest
//! has a window, which is an address range of the host. A page of the window shows the frame that
//! the guest's page table maps there, with the rights of the entry. A page without a present entry
//! is inaccessible: an access ends the process with `SIGSEGV`.
//!
//! Every access of the model is volatile, because the test may access the same bytes at another
//! address at any time ([M5](xen_contig::rules#M5)).

#![expect(unsafe_code, reason = "maps memory and accesses it through raw pointers")]

use std::ffi::c_int;
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use hypercall::PAGE_SIZE;
use hypercall::ops::Pte;

/// Bytes that a first-level table maps. The window begins at a multiple of it.
const TABLE_BYTES: usize = 512 * PAGE_SIZE;

/// Memory of a machine, and the window through which its guest accesses it.
#[derive(Debug)]
pub(crate) struct Ram {
    file: File,
    machine: Arc<HostMapping>,
    /// The addresses that the window lies in, until they are unmapped with this value.
    _reserved: HostMapping,
    /// The number of the window's first page.
    first_page: u64,
    pages: u64,
}

/// One frame of a [`Ram`].
#[derive(Debug)]
pub(crate) struct RamFrame {
    machine: Arc<HostMapping>,
    offset: usize,
}

/// An address range that this process mapped and that nothing else uses.
#[derive(Debug)]
pub(crate) struct HostMapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the range belongs to the process and not to a thread, and its bytes are only accessed
// volatile, by whichever thread has the model's lock.
unsafe impl Send for HostMapping {}
// SAFETY: as a shared value it only hands out its address.
unsafe impl Sync for HostMapping {}

impl Ram {
    /// Memory for `frames` machine frames, and a window of `pages` pages without a mapping.
    ///
    /// # Panics
    /// If the host does not provide the memory or the addresses.
    pub fn new(frames: u64, pages: u64) -> Self {
        // SAFETY: the name is a C string, and the call accesses nothing else.
        let descriptor = unsafe { libc::memfd_create(c"fake-xen".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(descriptor >= 0, "memfd_create: {}", Error::last_os_error());
        // SAFETY: the call above opened the descriptor, and nothing else owns it.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let bytes = frames as usize * PAGE_SIZE;
        file.set_len(bytes as u64).expect("room for the machine's memory");
        let machine = Arc::new(HostMapping::of_file(&file, bytes));
        // Larger by one table than the window, which begins at the first address that is aligned.
        let reserved = HostMapping::reserve(pages as usize * PAGE_SIZE + TABLE_BYTES);
        let first_page = reserved.first_table() / PAGE_SIZE as u64;
        Self { file, machine, _reserved: reserved, first_page, pages }
    }

    /// One frame of the machine.
    pub fn frame(&self, mfn: u64) -> RamFrame {
        let offset = mfn as usize * PAGE_SIZE;
        assert!(offset < self.machine.bytes, "mfn {mfn:#x} is beyond the machine");
        RamFrame { machine: self.machine.clone(), offset }
    }

    /// The address of the window's first page.
    pub const fn window(&self) -> u64 {
        self.first_page * PAGE_SIZE as u64
    }

    /// Returns true if a page, by the number of its address, is one of the window.
    pub fn contains(&self, page: u64) -> bool {
        (self.first_page..self.first_page + self.pages).contains(&page)
    }

    /// Maps a page of the window as `pte` says. Does nothing for a page outside of the window.
    ///
    /// # Panics
    /// If the host refuses. It has a limit for the number of mappings of a process.
    pub fn show(&self, page: u64, pte: Pte) {
        if !self.contains(page) {
            return;
        }
        let frame = pte.mfn().number() as usize * PAGE_SIZE;
        let rights = match pte.is_writable() {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        let (rights, kind, file, offset) = if pte.is_present() && frame < self.machine.bytes {
            (rights, libc::MAP_SHARED, self.file.as_raw_fd(), frame)
        } else {
            (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        let address = std::ptr::with_exposed_provenance_mut(page as usize * PAGE_SIZE);
        // SAFETY: `contains` says that the page lies in the window, which this value owns. No Rust
        // object lies there: memory of the guest is never a reference
        // ([M5](xen_contig::rules#M5)).
        let mapped =
            unsafe { map(address, PAGE_SIZE, rights, kind | libc::MAP_FIXED, file, offset) };
        assert_eq!(mapped.as_ptr().addr(), address.addr(), "MAP_FIXED maps where it is told to");
    }
}

impl RamFrame {
    /// Reads 1, 2, 4 or 8 bytes once.
    pub fn load(&self, offset: usize, bytes: usize) -> u64 {
        let at = self.at(offset, bytes);
        // SAFETY: `at` returns an address of `bytes` mapped bytes, aligned to their number.
        unsafe {
            match bytes {
                1 => at.read_volatile().into(),
                2 => at.cast::<u16>().read_volatile().into(),
                4 => at.cast::<u32>().read_volatile().into(),
                _ => at.cast::<u64>().read_volatile(),
            }
        }
    }

    /// Writes 1, 2, 4 or 8 bytes once.
    pub fn store(&self, offset: usize, bytes: usize, value: u64) {
        let at = self.at(offset, bytes);
        // SAFETY: `at` returns an address of `bytes` mapped bytes, aligned to their number. The
        // view is writable.
        unsafe {
            match bytes {
                1 => at.write_volatile(value as u8),
                2 => at.cast::<u16>().write_volatile(value as u16),
                4 => at.cast::<u32>().write_volatile(value as u32),
                _ => at.cast::<u64>().write_volatile(value),
            }
        }
    }

    /// The address of 1, 2, 4 or 8 bytes of the frame in the view of the machine.
    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(matches!(bytes, 1 | 2 | 4 | 8), "{bytes} bytes are not a word");
        assert!(offset.is_multiple_of(bytes) && offset < PAGE_SIZE, "{bytes} bytes at {offset}");
        self.machine.start.as_ptr().wrapping_add(self.offset + offset)
    }
}

impl HostMapping {
    /// A writable view of a file's first bytes.
    fn of_file(file: &File, bytes: usize) -> Self {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED the range is one that nothing uses.
        let start =
            unsafe { map(null_mut(), bytes, rights, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        Self { start, bytes }
    }

    /// Addresses without memory.
    fn reserve(bytes: usize) -> Self {
        Self::anonymous(bytes, libc::PROT_NONE)
    }

    /// Writable memory for `pages` pages, whose first begins at a multiple of what a table maps.
    ///
    /// The host provides a page when it is first accessed.
    pub fn scratch(pages: u64) -> Self {
        let bytes = pages as usize * PAGE_SIZE + TABLE_BYTES;
        Self::anonymous(bytes, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// The first address that is a multiple of what a table maps.
    pub fn first_table(&self) -> u64 {
        self.start.as_ptr().expose_provenance().next_multiple_of(TABLE_BYTES) as u64
    }

    fn anonymous(bytes: usize, rights: c_int) -> Self {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED the range is one that nothing uses.
        let start = unsafe { map(null_mut(), bytes, rights, kind, -1, 0) };
        Self { start, bytes }
    }
}

impl Drop for HostMapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this value, which is the only one that names it. The
        // guest's pointers are valid as long as the guest lives, which owns this.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Calls `mmap`.
///
/// # Safety
/// With `MAP_FIXED`, the range belongs to the caller, and no Rust object lies in it.
unsafe fn map(
    address: *mut u8,
    bytes: usize,
    rights: c_int,
    kind: c_int,
    file: c_int,
    offset: usize,
) -> NonNull<u8> {
    // SAFETY: without MAP_FIXED the kernel chooses a range that nothing uses. With MAP_FIXED the
    // `# Safety` section of this function demands a range of the caller without Rust objects.
    let mapped =
        unsafe { libc::mmap(address.cast(), bytes, rights, kind, file, offset as libc::off_t) };
    assert!(
        mapped != libc::MAP_FAILED,
        "mmap of {bytes} bytes: {}. Each scattered frame is a mapping of its own; a process may \
         have /proc/sys/vm/max_map_count of them",
        Error::last_os_error()
    );
    NonNull::new(mapped.cast()).expect("mmap does not map page 0")
}
