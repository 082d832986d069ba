//! Objects of the library in storage that a C caller provides.
//!
//! The storage begins with a *seal*: a number for the kind of the object, combined with the address of
//! the storage. So storage that was never filled, that was freed, that holds another kind of object, or
//! to which an object was copied is recognised.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::error::Failure;

/// An object that lives in the storage of a C caller.
pub trait Kind: Sized {
    /// Its type in C.
    type Storage;
    /// Where the words for the library begin in that type, in bytes.
    const OFFSET: usize;
    /// The name of that type, for errors.
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
    /// Returns the slot in storage.
    ///
    /// # Errors
    /// The pointer is null or not a multiple of 8.
    fn at(storage: *const T::Storage) -> Result<*const Self, Failure> {
        const {
            assert!(
                T::OFFSET.is_multiple_of(8) && align_of::<Self>() <= 8,
                "storage in C is words of 8 bytes"
            );
            assert!(
                T::OFFSET + size_of::<Self>() <= size_of::<T::Storage>(),
                "the storage has too few words"
            );
        }
        let address = storage as u64;
        match address {
            0 => Err(Failure::Null { argument: T::NAME }),
            _ if !address.is_multiple_of(8) => Err(Failure::Misaligned { kind: T::NAME, address }),
            _ => Ok(storage.wrapping_byte_add(T::OFFSET).cast()),
        }
    }

    /// Returns the seal of an object in this slot.
    fn seal(&self) -> u64 {
        T::SEAL ^ ptr::from_ref(self) as u64
    }

    /// Puts an object into storage, whatever the storage contains. `make` fails before anything is written.
    ///
    /// # Safety
    /// If the pointer is neither null nor misaligned, it names storage that the caller may write and that
    /// stays where it is until the object is taken out.
    pub unsafe fn fill(
        storage: *mut T::Storage,
        make: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<&'static T, Failure> {
        let slot = Self::at(storage)?;
        let value = make()?;
        // SAFETY: the storage is the caller's: the function's requirement. `at` has checked its alignment, and
        // at compile time that the slot fits. `AtomicU64` and `UnsafeCell<MaybeUninit<_>>` take any bytes.
        let slot = unsafe { &*slot };
        // SAFETY: the slot has no object yet that anything could refer to.
        let value = unsafe { (*slot.value.get()).write(value) };
        slot.seal.store(slot.seal(), Release);
        Ok(value)
    }

    /// Returns the object in storage. It stays there until [`take`](Self::take).
    ///
    /// # Safety
    /// If the pointer is neither null nor misaligned, it names readable storage. No other call takes
    /// the object out while the reference is used.
    pub unsafe fn get(storage: *const T::Storage) -> Result<&'static T, Failure> {
        // SAFETY: as for this function.
        let slot = unsafe { Self::sealed(storage) }?;
        // SAFETY: the seal says that `fill` has written the object, and nothing has taken it out.
        Ok(unsafe { (*slot.value.get()).assume_init_ref() })
    }

    /// Returns the object in storage for a call that changes it.
    ///
    /// # Safety
    /// As for [`get`](Self::get), and nothing else uses the object while the reference is used.
    pub unsafe fn get_mut(storage: *mut T::Storage) -> Result<&'static mut T, Failure> {
        // SAFETY: as for this function.
        let slot = unsafe { Self::sealed(storage) }?;
        // SAFETY: the seal says that `fill` has written the object. Nothing else uses it: the function's
        // requirement.
        Ok(unsafe { (*slot.value.get()).assume_init_mut() })
    }

    /// Takes the object out. Of two calls, one receives an error.
    ///
    /// # Safety
    /// As for [`get`](Self::get). Nothing refers to the object.
    pub unsafe fn take(storage: *const T::Storage) -> Result<T, Failure> {
        // SAFETY: as for this function.
        let slot = unsafe { Self::sealed(storage) }?;
        match slot.seal.compare_exchange(slot.seal(), 0, AcqRel, Relaxed) {
            // SAFETY: the seal said that `fill` has written the object, and this call alone has broken it.
            Ok(_) => Ok(unsafe { (*slot.value.get()).assume_init_read() }),
            Err(_) => Err(Self::not_in_use(storage)),
        }
    }

    fn not_in_use(storage: *const T::Storage) -> Failure {
        Failure::Handle { kind: T::NAME, address: storage as u64 }
    }

    /// Returns the slot if it is sealed.
    ///
    /// # Safety
    /// As for [`get`](Self::get).
    unsafe fn sealed(storage: *const T::Storage) -> Result<&'static Self, Failure> {
        // SAFETY: the storage is readable: the function's requirement. `at` has checked its alignment, and at
        // compile time that the slot fits. The fields take any bytes.
        let slot = unsafe { &*Self::at(storage)? };
        if slot.seal.load(Acquire) == slot.seal() {
            Ok(slot)
        } else {
            Err(Self::not_in_use(storage))
        }
    }
}
