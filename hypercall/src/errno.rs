//! The errors that Xen returns.

use core::fmt;
use core::num::NonZeroU16;

/// An error that Xen returned (`public/errno.h`).
///
/// Xen returns the number negated; this type holds the positive number. It keeps numbers that have
/// no name here.
///
/// `Display` prints the name, or else the number, with a minus sign: `-EINVAL`, `-1234`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct XenErrno(NonZeroU16);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl XenErrno {
            $($(#[$doc])* pub const $name: Self = Self(NonZeroU16::new($value).unwrap());)*

            /// Returns the name in `public/errno.h`, if this crate knows the number.
            pub const fn name(self) -> Option<&'static str> {
                match self.0.get() {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// No such file or directory.
    ENOENT = 2,
    /// No such domain.
    ESRCH = 3,
    /// I/O error.
    EIO = 5,
    /// No such device or address.
    ENXIO = 6,
    /// Argument list too long.
    E2BIG = 7,
    /// Try again.
    EAGAIN = 11,
    /// Out of memory.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// Bad address.
    EFAULT = 14,
    /// Device or resource busy.
    EBUSY = 16,
    /// File exists.
    EEXIST = 17,
    /// No such device.
    ENODEV = 19,
    /// Invalid argument.
    EINVAL = 22,
    /// No space left.
    ENOSPC = 28,
    /// Result not representable.
    ERANGE = 34,
    /// Hypercall or sub-operation not implemented.
    ENOSYS = 38,
    /// Value too large.
    EOVERFLOW = 75,
    /// Interrupted, to be restarted.
    ERESTART = 85,
    /// Not supported for this kind of caller.
    EOPNOTSUPP = 95,
}

impl XenErrno {
    /// Returns the positive error number.
    pub const fn raw(self) -> u16 {
        self.0.get()
    }

    /// Makes the error of a positive number; `None` if it is not in 1..=4095.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        match NonZeroU16::new(raw) {
            Some(value) if raw < 4096 => Some(Self(value)),
            _ => None,
        }
    }

    /// Separates success and error in the return value of a hypercall.
    ///
    /// # Errors
    /// The error if the value is in -4095..=-1, as for Linux's `IS_ERR_VALUE`. A value below that
    /// range is not an error number of Xen's; it becomes `EOVERFLOW` rather than a huge success.
    pub const fn check(ret: i64) -> Result<u64, Self> {
        if ret >= 0 {
            return Ok(ret as u64);
        }
        if ret >= -4095
            && let Some(errno) = Self::from_raw(-ret as u16)
        {
            return Err(errno);
        }
        Err(Self::EOVERFLOW)
    }
}

impl fmt::Display for XenErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "-{name}"),
            None => write!(f, "-{}", self.raw()),
        }
    }
}

impl fmt::Debug for XenErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for XenErrno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_return_values() {
        assert_eq!(XenErrno::check(0), Ok(0));
        assert_eq!(XenErrno::check(7), Ok(7));
        assert_eq!(XenErrno::check(-22), Err(XenErrno::EINVAL));
        assert_eq!(XenErrno::check(-4095).unwrap_err().raw(), 4095);
        assert_eq!(XenErrno::check(-4096), Err(XenErrno::EOVERFLOW));
        assert_eq!(XenErrno::check(i64::MIN), Err(XenErrno::EOVERFLOW));
    }

    #[test]
    fn keeps_unknown_values() {
        let odd = XenErrno::check(-1234).unwrap_err();
        assert_eq!((odd.raw(), odd.name()), (1234, None));
        extern crate std;
        assert_eq!(std::format!("{odd} {}", XenErrno::EPERM), "-1234 -EPERM");
    }
}
