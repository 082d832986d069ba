//! Objects of the library in storage that a C caller provides.
//!
//! The storage begins with a *seal*: a number for the kind of the object, combined with the address of
//! the storage. So storage that was never filled, that was freed, that holds another kind of object, or
//! to which an object was copied is recognised.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::error::Failure;

/// An object that lives in the storage of a C caller.
pub trait Kind {
    /// The name of its type in C, for errors.
    const NAME: &'static str;
    /// A random number.
    const SEAL: u64;
}

/// The storage as the library uses it.
#[repr(C)]
pub struct Slot<T> {
    seal: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T: Kind + 'static> Slot<T> {
    /// Returns the number of words of 8 bytes that the storage needs.
    pub const WORDS: usize = {
        assert!(align_of::<Self>() <= 8, "storage in C consists of words of 8 bytes");
        size_of::<Self>().div_ceil(8)
    };

    /// Returns the storage at `words`.
    ///
    /// # Errors
    /// The pointer is null or not a multiple of 8.
    fn at(words: *const u64) -> Result<*const Self, Failure> {
        let address = words as u64;
        match address {
            0 => Err(Failure::Null { argument: T::NAME }),
            _ if !address.is_multiple_of(8) => Err(Failure::Misaligned { kind: T::NAME, address }),
            _ => Ok(words.cast()),
        }
    }

    const fn seal_at(address: u64) -> u64 {
        T::SEAL ^ address
    }

    /// Puts an object into storage, whatever the storage contains. `make` fails before anything is written.
    ///
    /// # Safety
    /// If the pointer is neither null nor misaligned, it names [`WORDS`](Self::WORDS) words that the caller
    /// may write and that stay where they are until the object is taken out.
    pub unsafe fn fill(
        words: *mut u64,
        make: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<&'static T, Failure> {
        let slot = Self::at(words)?;
        let value = make()?;
        // SAFETY: the words are the caller's and are enough: the function's requirement. `AtomicU64` and
        // `UnsafeCell<MaybeUninit<_>>` take any bytes.
        let slot = unsafe { &*slot };
        // SAFETY: the slot has no object yet that anything could refer to.
        let value = unsafe { (*slot.value.get()).write(value) };
        slot.seal.store(Self::seal_at(words as u64), Release);
        Ok(value)
    }

    /// Returns the object in storage. It stays there until [`take`](Self::take).
    ///
    /// # Safety
    /// If the pointer is neither null nor misaligned, it names as many readable words. No other call takes
    /// the object out while the reference is used.
    pub unsafe fn get(words: *const u64) -> Result<&'static T, Failure> {
        // SAFETY: as for this function.
        let slot = unsafe { Self::sealed(words) }?;
        // SAFETY: the seal says that `fill` has written the object, and nothing has taken it out.
        Ok(unsafe { (*slot.value.get()).assume_init_ref() })
    }

    /// Returns the object in storage for a call that changes it.
    ///
    /// # Safety
    /// As for [`get`](Self::get), and nothing else uses the object while the reference is used.
    pub unsafe fn get_mut(words: *mut u64) -> Result<&'static mut T, Failure> {
        // SAFETY: as for this function.
        let slot = unsafe { Self::sealed(words) }?;
        // SAFETY: the seal says that `fill` has written the object. Nothing else uses it: the function's
        // requirement.
        Ok(unsafe { (*slot.value.get()).assume_init_mut() })
    }

    /// Takes the object out. Of two calls, one receives an error.
    ///
    /// # Safety
    /// As for [`get`](Self::get). Nothing refers to the object.
    pub unsafe fn take(words: *const u64) -> Result<T, Failure> {
        // SAFETY: as for this function.
        let slot = unsafe { Self::sealed(words) }?;
        let seal = Self::seal_at(words as u64);
        match slot.seal.compare_exchange(seal, 0, AcqRel, Relaxed) {
            // SAFETY: the seal said that `fill` has written the object, and this call alone has broken it.
            Ok(_) => Ok(unsafe { (*slot.value.get()).assume_init_read() }),
            Err(_) => Err(Failure::Handle { kind: T::NAME }),
        }
    }

    /// Returns the slot if it is sealed.
    ///
    /// # Safety
    /// As for [`get`](Self::get).
    unsafe fn sealed(words: *const u64) -> Result<&'static Self, Failure> {
        // SAFETY: the words are readable: the function's requirement. The fields take any bytes.
        let slot = unsafe { &*Self::at(words)? };
        if slot.seal.load(Acquire) == Self::seal_at(words as u64) {
            Ok(slot)
        } else {
            Err(Failure::Handle { kind: T::NAME })
        }
    }
}
