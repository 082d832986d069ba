//! Readers of what the domain builder says about the new domain.
//!
//! Pure: they look at bytes that they are given, and touch no other memory. A
//! value that can't be true is an error that names the field and the value; it is
//! never believed and never silently replaced.

pub mod pv;
pub mod pvh;
