//! [trace]: hypercall::trace
//! [M3]: crate::rules#M3
//! [M6]: crate::rules#M6
#![doc = include_str!("../docs/CONFORMANCE.md")]
