//! The domain of the backend, as the toolstack names it in xenstore. The host tests compile this file too.

use core::fmt;

use arrayvec::ArrayString;
use hypercall::DomId;

/// A `backend-id` that is not the number of another domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendIdError {
    /// The text, as far as it fits, is not the number of a domain.
    NotADomain(ArrayString<16>),
    /// It is the number of the domain in which the kernel runs.
    Own(DomId),
}

impl fmt::Display for BackendIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADomain(text) => write!(
                f,
                "backend-id in xenstore is {text:?}, not the number of a domain (0 to {})",
                DomId::SELF.0 - 1
            )?,
            Self::Own(DomId(own)) => write!(
                f,
                "backend-id in xenstore is {own}, the number of this domain, which cannot serve itself"
            )?,
        }
        f.write_str("; create the domain again with xl and a device in pci=[…]")
    }
}

impl core::error::Error for BackendIdError {}

/// Returns the domain that `text` names. `own` is the text of the key `domid`, with the kernel's own number.
///
/// # Errors
/// The text is not a number, the number is not of a domain, or it is the kernel's own.
pub fn parse(text: &str, own: Option<&str>) -> Result<DomId, BackendIdError> {
    let Some(id) = number(text) else {
        let mut shown = ArrayString::new();
        text.chars().take_while(|char| shown.try_push(*char).is_ok()).for_each(drop);
        return Err(BackendIdError::NotADomain(shown));
    };
    match own.and_then(number) {
        Some(own) if own == id => Err(BackendIdError::Own(own)),
        _ => Ok(id),
    }
}

/// Returns the domain with a decimal number. Xen reserves the numbers from `DOMID_SELF` on.
fn number(text: &str) -> Option<DomId> {
    // `parse` would accept a sign.
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| is_decimal)?;
    (id < DomId::SELF.0).then_some(DomId(id))
}
