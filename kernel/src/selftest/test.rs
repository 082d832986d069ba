//! A self-test, and the macros that end it early.

use alloc::boxed::Box;
use alloc::string::String;
use core::net::SocketAddrV4;

use super::accounts::AccountsSnapshot;
use crate::command_line::When;
use crate::machine::Machine;
use crate::verdict::TestOutcome;
use xen_contig::addr::Order;
use xen_contig::exchange::Capability;

/// The context of a test.
pub struct TestContext<'m> {
    /// The machine.
    pub machine: &'m Machine,
    /// The seed of all patterns.
    pub seed: u64,
    /// The TCP server for the tests of a network card, if the command line names one.
    pub server: Option<SocketAddrV4>,
    /// The counts of frames before the first test.
    pub before: AccountsSnapshot,
}

/// The result of a test, or of a step of it. An error ends the test.
pub type Check = Result<(), TestOutcome>;

/// The body of a test.
type Body = Box<dyn Fn(&TestContext<'_>) -> Check>;

/// A self-test.
pub struct Test {
    /// The name on the command line and in the report.
    pub name: String,
    /// When the test runs.
    pub when: When,
    /// The body of the test.
    pub run: Body,
}

impl Test {
    /// Returns a test that runs by default.
    pub fn new(name: impl Into<String>, run: impl Fn(&TestContext<'_>) -> Check + 'static) -> Self {
        Self { name: name.into(), when: When::Always, run: Box::new(run) }
    }

    /// Skips the test if Xen does not permit extents of this order.
    pub fn needs_order(self, order: u32) -> Self {
        self.needs(order, |capability| match capability {
            Capability::Exchange { limit } | Capability::Refill { limit } => Some(limit),
            _ => None,
        })
    }

    /// Skips the test if this domain exchanges, and Xen does not permit extents of this order.
    ///
    /// A translated guest runs the test, because its memory is contiguous for a device without an
    /// exchange.
    pub fn needs_exchange_order(self, order: u32) -> Self {
        self.needs(order, |capability| match capability {
            Capability::Exchange { limit } => Some(limit),
            _ => None,
        })
    }

    /// Skips the test if the limit is below this order.
    fn needs(self, order: u32, limit: fn(Capability) -> Option<Order>) -> Self {
        let run = self.run;
        let checked = move |context: &TestContext<'_>| match limit(context.machine.capability) {
            Some(limit) if limit.get() < order => {
                skip!("the test needs extents of order {order}, and Xen permits up to {limit}")
            }
            _ => run(context),
        };
        Self { run: Box::new(checked), ..self }
    }

    /// Changes when the test runs.
    pub fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

/// Ends the test, because the tested code is broken.
macro_rules! fail {
    ($($argument:tt)*) => {
        return Err($crate::verdict::TestOutcome::Fail(alloc::format!($($argument)*)))
    };
}
pub(super) use fail;

/// Ends the test, because the test or its environment is broken.
macro_rules! error {
    ($($argument:tt)*) => {
        return Err($crate::verdict::TestOutcome::Error(alloc::format!($($argument)*)))
    };
}
pub(super) use error;

/// Ends the test, because it does not apply here.
macro_rules! skip {
    ($($argument:tt)*) => {
        return Err($crate::verdict::TestOutcome::Skip(alloc::format!($($argument)*)))
    };
}
pub(super) use skip;
