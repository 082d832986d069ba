//! How an exchange ended.

use super::detached::Detached;
use super::recover::TornExchange;
use crate::exchange::error::ExchangeError;

/// A run that Xen was asked to exchange. It is still unmapped.
pub(in crate::exchange) struct Exchanged<'t, 'a, X, L> {
    pub(super) detached: Detached<'t, 'a, X, L>,
    pub(super) ending: Ending,
}

/// How the exchange ended.
pub(super) enum Ending {
    /// All parts were exchanged. `done` is the number of frames.
    Complete { done: u64 },
    /// Xen refused what follows the first `done` frames, counted through the parts.
    Refused { done: u64, error: ExchangeError },
    /// The transaction failed. The caller gets back what remains of the run.
    Failed(ExchangeError),
}

impl From<TornExchange> for Ending {
    fn from(TornExchange { error }: TornExchange) -> Self {
        Self::Failed(error)
    }
}
