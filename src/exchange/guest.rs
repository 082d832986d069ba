//! The guest that a transaction works on.

use super::accounts::Accounts;
use crate::p2m::P2m;

/// Xen and the tables of one PV guest.
///
/// All four belong to the same guest: the contract of
/// [`Exchanger::new`](super::Exchanger::new) says so.
#[derive(Debug)]
pub(super) struct GuestHandle<'a, X, L> {
    pub xen: &'a X,
    pub p2m: P2m<'a>,
    pub linear: &'a L,
    pub accounts: &'a Accounts,
}

// Not derived: a derive would also require `X: Clone` and `L: Clone`, which are only borrowed.
impl<X, L> Clone for GuestHandle<'_, X, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X, L> Copy for GuestHandle<'_, X, L> {}
