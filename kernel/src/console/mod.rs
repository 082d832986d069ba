//! The console, which writes every line to every sink that accepts it.
//!
//! | sink | reaches | accepted from |
//! |---|---|---|
//! | `console_io` | Xen's log | dom0; a domU only by a Xen built for verbose debugging |
//! | port 0xe9 | Xen's log | a PVH guest, if `console_io` is refused |
//! | the PV console ring | the backend in dom0: `xl console`, xenconsoled's log | a domU |
//!
//! A spin lock guards the console. Unlike the kernel's other locks it is held across hypercalls,
//! because otherwise lines would mix. Handlers of events and faults do not print. The one exception
//! is a handler that ends in a panic, which takes the console from its user.
//!
//! A sink that refuses a line is dropped without a message, because there may be no sink left to
//! print it.

mod print;
mod ring;

pub(crate) use print::say;
pub use print::{drain, line, move_ring, rebind_ring, seize, use_debug_port, use_ring};
pub use ring::ConsoleQueue;
