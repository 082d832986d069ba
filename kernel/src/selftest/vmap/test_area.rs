//! An area of a test, which is unmapped when the test ends.

use core::ops::Deref;

use xen_contig::vmap::{Area, UnmapMode};

use super::{Check, fail};
use crate::machine::Machine;

/// An area that is unmapped lazily when it is dropped.
///
/// A test that fails frees its frames. If an area still mapped them, later tests that get one of
/// them would fail too.
pub struct TestArea<'m> {
    machine: &'m Machine,
    /// `None` after [`unmap`](Self::unmap).
    area: Option<Area>,
}

impl<'m> TestArea<'m> {
    /// Takes ownership of an area of the machine.
    pub const fn new(machine: &'m Machine, area: Area) -> Self {
        Self { machine, area: Some(area) }
    }

    /// Unmaps the area in the kernel's mode.
    pub fn vunmap(mut self) -> Check {
        let Some(area) = self.area.take() else { unreachable!("an area is unmapped once") };
        match self.machine.areas.vunmap(area) {
            Ok(()) => Ok(()),
            Err(error) => fail!("unmapping: {error}"),
        }
    }

    /// Unmaps the area in a mode.
    pub fn unmap(mut self, mode: UnmapMode) -> Check {
        let Some(area) = self.area.take() else { unreachable!("an area is unmapped once") };
        let areas = self.machine.areas;
        let before = areas.mode();
        areas.set_mode(mode);
        let result = areas.vunmap(area);
        areas.set_mode(before);
        match result {
            Ok(()) => Ok(()),
            Err(error) => fail!("unmapping: {error}"),
        }
    }
}

impl Deref for TestArea<'_> {
    type Target = Area;

    fn deref(&self) -> &Area {
        let Some(area) = &self.area else { unreachable!("`unmap` consumes the value") };
        area
    }
}

impl Drop for TestArea<'_> {
    fn drop(&mut self) {
        if let Some(area) = self.area.take() {
            // The test has failed already. If an entry cannot be removed, the next purge removes
            // it.
            let _refused = self.machine.areas.vunmap(area);
        }
    }
}
