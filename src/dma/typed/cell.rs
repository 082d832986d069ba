//! One value in DMA memory.

use core::marker::PhantomData;

use bytemuck::Pod;

use crate::addr::PseudoPhysAddr;
use crate::dma::{BufferError, copy};
use crate::paging::GuestMemory;
use crate::word::Word;

/// A value in memory that a device may access at any time.
///
/// It is for DMA memory what [`core::cell::Cell`] is for a field: it copies values in and out, and
/// lends no reference to them ([M5](crate::rules#M5)). A word is accessed at once, by
/// [`load`](Self::load) and [`store`](Self::store). Any other value is copied by several accesses, and
/// the device may change it between two of them. [`field!`](crate::field) makes the cell of a field.
///
/// The accesses are volatile, so the compiler keeps them in the order of the program. x86 keeps the
/// order of its stores, too. No method sleeps or takes a lock, and each may be called in an interrupt
/// handler. A cell stays in its thread:
/// ```compile_fail,E0277
/// use xen_contig::dma::DmaCell;
/// use xen_contig::paging::GuestMemory;
///
/// fn send<M: GuestMemory + Sync>(cell: DmaCell<'_, M, u32>) {
///     let _ = std::thread::scope(|scope| { scope.spawn(move || cell.store(1)); });
/// }
/// ```
pub struct DmaCell<'c, M, T> {
    memory: &'c M,
    at: PseudoPhysAddr,
    /// A pointer, so that no other thread accesses the value at the same time.
    _value: PhantomData<*mut T>,
}

impl<M, T> Clone for DmaCell<'_, M, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, T> Copy for DmaCell<'_, M, T> {}

impl<'c, M: GuestMemory, T: Pod> DmaCell<'c, M, T> {
    /// The cell of the value at `at`.
    ///
    /// # Safety
    /// During `'c` the value lies in populated, mapped frames that are the caller's
    /// ([M1](crate::rules#M1)), and only this thread accesses them besides the device. The address is
    /// a multiple of the type's alignment.
    pub(in crate::dma) const unsafe fn new(memory: &'c M, at: PseudoPhysAddr) -> Self {
        Self { memory, at, _value: PhantomData }
    }

    /// Reads the word, once.
    pub fn load(self) -> T
    where
        T: Word,
    {
        // SAFETY: the word lies in mapped frames of the cell's maker, and is aligned, by `new`.
        unsafe { self.memory.load(self.at) }
    }

    /// Writes the word, once.
    pub fn store(self, value: T)
    where
        T: Word,
    {
        // SAFETY: the word lies in mapped frames of the cell's maker, and is aligned, by `new`.
        unsafe { self.memory.store(self.at, value) };
    }

    /// Copies the value out, by words of 8 bytes where its alignment allows it.
    ///
    /// The device can change the value meanwhile. Each access is whole, the value need not be.
    pub fn read(self) -> T {
        let mut value = T::zeroed();
        // SAFETY: the value lies in mapped frames of the cell's maker, by `new`.
        unsafe { copy::read(self.memory, self.at, bytemuck::bytes_of_mut(&mut value)) };
        value
    }

    /// Copies a value in, by words of 8 bytes where its alignment allows it.
    ///
    /// The device can read the value meanwhile. Store the word that hands it over afterwards.
    pub fn write(self, value: T) {
        // SAFETY: the value lies in mapped frames of the cell's maker, by `new`.
        unsafe { copy::write(self.memory, self.at, bytemuck::bytes_of(&value)) };
    }

    /// Returns the cell of a part. For [`field!`](crate::field), which knows the offset and the type.
    ///
    /// # Panics
    /// If the part is not within the value, or not aligned. [`field!`](crate::field) passes none such.
    #[doc(hidden)]
    pub fn part<F: Pod>(self, offset: usize, _of: impl FnOnce(&T) -> &F) -> DmaCell<'c, M, F> {
        let is_within = offset.checked_add(size_of::<F>()).is_some_and(|end| end <= size_of::<T>());
        let is_aligned =
            offset.is_multiple_of(align_of::<F>()) && align_of::<F>() <= align_of::<T>();
        assert!(is_within && is_aligned, "a part at {offset} is not a field");
        let at = PseudoPhysAddr::new(self.at.get() + offset as u64);
        // SAFETY: the part lies within the value, which `new` requires to be mapped and its maker's. It
        // is aligned, because the value is, and the part's offset and alignment were checked.
        unsafe { DmaCell::new(self.memory, at) }
    }
}

impl<'c, M: GuestMemory, T: Pod, const N: usize> DmaCell<'c, M, [T; N]> {
    /// Returns the cell of an element.
    ///
    /// # Errors
    /// [`BufferError::NoElement`] if there is none with this number.
    pub fn at(self, index: usize) -> Result<DmaCell<'c, M, T>, BufferError> {
        if index >= N {
            return Err(BufferError::NoElement { index, count: N });
        }
        let at = PseudoPhysAddr::new(self.at.get() + (index * size_of::<T>()) as u64);
        // SAFETY: the element lies within the array, which `new` requires to be mapped and its maker's.
        // Each element of an aligned array is aligned.
        Ok(unsafe { DmaCell::new(self.memory, at) })
    }
}

/// Returns the [`DmaCell`](crate::dma::DmaCell) of a field: `field!(cell, Type, field)`.
///
/// A field of a field is named as `field!(cell, Type, outer.inner)`. The macro needs no `unsafe`.
/// ```
/// use bytemuck::{Pod, Zeroable};
/// use xen_contig::dma::{DmaCell, Le};
/// use xen_contig::field;
/// use xen_contig::paging::GuestMemory;
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Descriptor {
///     address: Le<u64>,
///     len: Le<u32>,
///     status: Le<u32>,
/// }
///
/// fn is_done(descriptor: DmaCell<'_, impl GuestMemory, Descriptor>) -> bool {
///     field!(descriptor, Descriptor, status).load().get() == 2
/// }
/// ```
/// The type must be that of the cell:
/// ```compile_fail,E0308
/// # use xen_contig::{dma::DmaCell, field, paging::GuestMemory};
/// # #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// # #[repr(C)]
/// # struct Descriptor { status: u32 }
/// fn status(cell: DmaCell<'_, impl GuestMemory, u64>) -> u32 {
///     field!(cell, Descriptor, status).load()
/// }
/// ```
#[macro_export]
macro_rules! field {
    ($cell:expr, $type:ty, $($field:tt).+ $(,)?) => {
        $crate::dma::DmaCell::<'_, _, $type>::part(
            $cell,
            ::core::mem::offset_of!($type, $($field).+),
            |whole: &$type| &whole.$($field).+,
        )
    };
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::dma::Be;
    use crate::dma::test_memory::TestMemory;

    #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
    #[repr(C)]
    struct Packet {
        len: Be<u32>,
        ports: [Be<u16>; 3],
        tail: [u8; 2],
    }

    #[test]
    fn a_value_is_copied_at_each_aligned_address() {
        for at in (4080..4096).step_by(align_of::<Packet>()) {
            let memory = TestMemory::new(2);
            // SAFETY: the value lies in the two pages of `memory`, at a multiple of its alignment.
            let cell = unsafe { DmaCell::<_, Packet>::new(&memory, PseudoPhysAddr::new(at)) };
            let ports = [1, 2, 3].map(Be::new);
            let packet = Packet { len: Be::new(0x0102_0304), ports, tail: [8, 9] };
            cell.write(packet);
            assert_eq!(cell.read(), packet);
            let at = at as usize;
            assert_eq!([0, 3, 5, 9, 10, 11].map(|byte| memory.byte(at + byte)), [1, 4, 1, 3, 8, 9]);
            assert_eq!((memory.byte(at - 1), memory.byte(at + 12)), (0xee, 0xee));
            memory.take_accesses();
            crate::field!(cell, Packet, ports).at(1).unwrap().store(Be::new(0x0a0b));
            assert_eq!(crate::field!(cell, Packet, len).load().get(), 0x0102_0304);
            assert_eq!(memory.take_accesses(), 2, "a word is one access");
            assert_eq!((memory.byte(at + 6), memory.byte(at + 7)), (0x0a, 0x0b));
        }
    }

    #[test]
    #[should_panic(expected = "a part at 0 is not a field")]
    fn a_part_with_a_stricter_alignment_is_no_field() {
        let memory = TestMemory::new(1);
        // SAFETY: the value lies in the page of `memory`, and bytes are aligned everywhere.
        let cell = unsafe { DmaCell::<_, [u8; 8]>::new(&memory, PseudoPhysAddr::new(1)) };
        cell.part::<u64>(0, |_| &0);
    }

    #[test]
    #[should_panic(expected = "a part at 1 is not a field")]
    fn a_part_past_the_end_is_no_field() {
        let memory = TestMemory::new(1);
        // SAFETY: the value lies in the page of `memory`, and bytes are aligned everywhere.
        let cell = unsafe { DmaCell::<_, [u8; 8]>::new(&memory, PseudoPhysAddr::new(1)) };
        cell.part::<[u8; 8]>(1, |whole| whole);
    }
}
