//! The trait through which the library reaches the guest's memory.

use super::holder::{FrameInUse, Holder};
use crate::addr::{Mfn, PAGE_SIZE, Pfn, PseudoPhysAddr};
use crate::frames::FrameRun;
use crate::word::Word;

/// The guest's memory, as the kernel reaches it.
///
/// [`load`](Self::load) and [`store`](Self::store), and [`pointer`](Self::pointer) by their defaults, are
/// also called under the lock of the reserve, possibly in an interrupt handler (see
/// [Locks](crate::platform#locks)). The other methods are called with no lock of this crate held, some of
/// them between hypercalls of a transaction. No method may allocate or exchange memory.
///
/// # Safety
/// The implementor promises:
/// * [`zero`](Self::zero) fills exactly the frames that it is given, and [`copy`](Self::copy) writes to
///   exactly those;
/// * [`pointer`](Self::pointer) is the address at which a populated frame is mapped, readable and
///   writable. Neighbouring frames are mapped side by side;
/// * [`load`](Self::load) and [`store`](Self::store) access exactly the word that they are given.
pub unsafe trait GuestMemory {
    /// Fills `frames` frames from `first` on with zeros.
    ///
    /// The writes need not be volatile: no device has the address of the frames at that moment, and a
    /// hypercall is a barrier for the compiler. But a device may read the memory soon after. So an
    /// implementation with plain writes ends with `compiler_fence(SeqCst)`; `asm!` that is not `nomem`,
    /// such as `rep stosq`, needs none.
    ///
    /// # Safety
    /// The frames are populated and mapped, and nothing else uses them ([M1](crate::rules#M1)).
    unsafe fn zero(&self, first: Pfn, frames: u64);

    /// Copies the bytes of `frames` frames from `from` on to the frames from `to` on.
    ///
    /// The default copies word by word. What [`zero`](Self::zero) says of its writes holds here, too.
    ///
    /// # Safety
    /// All frames are populated and mapped, and nothing else uses them ([M1](crate::rules#M1)). The two
    /// runs are apart.
    unsafe fn copy(&self, from: Pfn, to: Pfn, frames: u64) {
        for offset in (0..frames * PAGE_SIZE as u64).step_by(8) {
            let at = |first: Pfn| PseudoPhysAddr::new(PseudoPhysAddr::of(first).get() + offset);
            // SAFETY: the words lie in the two runs: the function's requirement.
            unsafe { self.store(at(to), self.load::<u64>(at(from))) };
        }
    }

    /// Returns the address at which a frame is mapped.
    fn pointer(&self, pfn: Pfn) -> *mut u8;

    /// Drops all mappings of the run's frames that nothing uses any more, except the linear one.
    /// Flushes nothing ([F1](crate::rules#F1)). Called before the run is given up.
    ///
    /// A kernel that drops every mapping at once need not implement it. One with virtual areas calls
    /// [`Vmap::vacate`](crate::vmap::Vmap::vacate). In a translated guest Xen takes even frames that
    /// another domain maps ([C76](crate::conformance#C76)). So there it must also name frames that are
    /// granted or shared, if a run can have such a frame.
    ///
    /// # Errors
    /// A frame that is in use, and what references it. Its mappings were not touched.
    fn purge(&self, _run: &FrameRun) -> Result<(), FrameInUse> {
        Ok(())
    }

    /// Returns what references a frame that Xen refuses to take, as far as the kernel can tell.
    ///
    /// Called after a refusal, and by the default of
    /// [`check_unreferenced`](super::LinearMapping::check_unreferenced) before memory in use moves. So it
    /// may walk page tables. `mfn` is the machine frame that backs the frame in a PV guest: after a
    /// refusal the P2M does not have it.
    fn holder(&self, _pfn: Pfn, _mfn: Option<Mfn>) -> Holder {
        Holder::Unknown
    }

    /// Reads a word once, as a device driver needs it.
    ///
    /// # Safety
    /// The word lies in populated, mapped frames of the caller's, at a multiple of its size.
    unsafe fn load<T: Word>(&self, at: PseudoPhysAddr) -> T {
        let pointer = self.pointer(at.frame()).wrapping_add(at.offset());
        // SAFETY: the word is mapped and aligned: the function's requirement, and the trait's promise
        // about `pointer`. A word has no invalid bits. The access is volatile, and makes no reference
        // ([M5](crate::rules#M5)).
        unsafe { pointer.cast::<T>().read_volatile() }
    }

    /// Writes a word once.
    ///
    /// # Safety
    /// The word lies in populated, mapped frames of the caller's, at a multiple of its size.
    unsafe fn store<T: Word>(&self, at: PseudoPhysAddr, value: T) {
        let pointer = self.pointer(at.frame()).wrapping_add(at.offset());
        // SAFETY: the word is mapped and aligned: the function's requirement, and the trait's promise
        // about `pointer`. The access is volatile, and makes no reference ([M5](crate::rules#M5)).
        unsafe { pointer.cast::<T>().write_volatile(value) }
    }
}
