//! Reader of the `struct hvm_start_info` of a PVH guest
//! (`xen/include/public/arch-x86/hvm/start_info.h`; written by `pvh_load_kernel`
//! in `xen/arch/x86/hvm/dom0_build.c` and by `add_module_to_list` and its caller
//! in `tools/libs/guest/xg_dom_x86.c`).
//!
//! The structure is a web of physical pointers. The reader follows none itself: it
//! asks the caller for each piece, so that nothing is touched that the caller does
//! not answer for.

use arrayvec::ArrayVec;

use super::command_line::until_nul;
use super::error::{Problem, StartInfoError};
use super::flags::StartFlags;
use super::memory_map::{self, MemoryRegion};

#[cfg(test)]
mod tests;

/// `XEN_HVM_START_MAGIC_VALUE`.
pub const MAGIC: u32 = 0x336e_c578;

/// More modules than this are not believed.
pub const MAX_MODULES: usize = 32;

/// More regions than this are not believed.
pub const MAX_REGIONS: usize = 128;

/// A command line ends within this many bytes.
pub const MAX_COMMAND_LINE: usize = 4096;

const CHUNK: u64 = 4096;

/// Size of the structure in version 0, before the memory map came.
const SIZE_V0: usize = 40;
/// Size of the structure from version 1 on.
const SIZE_V1: usize = 56;
const MODULE_SIZE: usize = 32;
const REGION_SIZE: usize = 24;

/// What a PVH guest knows at its start. All addresses are guest-physical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PvhStartInfo<'a> {
    /// Version of the structure. Versions above 1 are read as version 1, which they
    /// promise to be compatible with.
    pub version: u32,
    /// What kind of domain this is.
    pub flags: StartFlags,
    /// The kernel's command line; empty if there is none.
    pub cmd_line: &'a str,
    /// Address of the ACPI root pointer, if there is one.
    pub rsdp: Option<u64>,
    /// The modules, RAM disks for other kernels.
    pub modules: ArrayVec<PvhModule<'a>, MAX_MODULES>,
    /// The memory map. Empty if the builder gives none, as Xen's for a dom0 does
    /// not: then `XENMEM_memory_map` is to be asked.
    pub memory_map: ArrayVec<MemoryRegion, MAX_REGIONS>,
}

/// A module of a PVH guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvhModule<'a> {
    /// Address of its first byte.
    pub start: u64,
    /// Its size in bytes.
    pub len: u64,
    /// Its command line; empty if there is none.
    pub cmd_line: &'a str,
}

impl<'a> PvhStartInfo<'a> {
    /// Reads the structure at `start_info` and all that it points to.
    ///
    /// `memory(address, len)` gives exactly `len` bytes from the physical `address`
    /// on, or `None` where there are none; an answer of another length counts as
    /// `None`.
    pub fn read<M>(start_info: u32, memory: M) -> Result<Self, StartInfoError>
    where
        M: Fn(u64, usize) -> Option<&'a [u8]>,
    {
        let memory = Memory(memory);
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

/// The caller's memory, with errors that name the field that pointed there.
struct Memory<M>(M);

impl<'a, M: Fn(u64, usize) -> Option<&'a [u8]>> Memory<M> {
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

    /// The text at `address`; address 0 stands for no text.
    fn text(&self, field: &'static str, address: u64) -> Result<&'a str, StartInfoError> {
        if address == 0 {
            return Ok("");
        }
        // Page by page, as a short text may end where the readable memory does.
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

    /// A table of `count` entries of `size` bytes.
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

/// "Must be zero for version 1"; later versions may have found a use.
fn reserved(field: &'static str, value: u32, version: u32) -> Result<(), StartInfoError> {
    if value != 0 && version == 1 {
        return Err(StartInfoError::new(field, value.into(), Problem::ReservedInUse));
    }
    Ok(())
}

/// The number at a fixed offset of a structure whose whole length was read.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

/// Like [`u32_at`], of eight bytes.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
