//! The reservation of the model's domain, and whether it allows a refill.

use fake_xen::{Fault, GuestBuilder};
use hypercall::XenErrno;
use xen_contig::addr::{AddressBits, Order};
use xen_contig::exchange::Accounts;
use xen_contig::reservation::Reservation;

#[test]
fn a_refill_is_allowed_up_to_the_maximum_and_not_above() {
    for maximum in [1023, 1024, 1025] {
        let guest = GuestBuilder::new(1024).translated().build();
        guest.set_max_pages(maximum);
        let reservation = Reservation::read(guest.xen()).unwrap();
        assert_eq!((reservation.current(), reservation.maximum()), (1024, maximum));

        let accounts = Accounts::new();
        let refiller = guest.refiller(&accounts, Order::new(4).unwrap());
        let mut list = [0; 16];
        let refilled = refiller.refill(guest.run(512, 16), AddressBits::UNLIMITED, &mut list);
        assert_eq!(reservation.allows_refill(), refilled.is_ok(), "{reservation}");
        assert_eq!(reservation.allows_refill(), accounts.quarantined() == 0);
    }
}

#[test]
fn a_domain_above_its_maximum_is_named() {
    let guest = GuestBuilder::new(64).build();
    let text = || Reservation::read(guest.xen()).unwrap().to_string();
    guest.set_max_pages(80);
    assert_eq!(text(), "64 frames, at most 80");
    guest.set_max_pages(60);
    assert!(text().starts_with("64 frames, at most 60: 4 too many, so"), "{}", text());
}

#[test]
fn a_question_that_xen_refuses_is_an_error() {
    for call in [1, 2] {
        let guest = GuestBuilder::new(64).build();
        guest.xen().arm(Fault::refuse(call, XenErrno::EPERM));
        assert_eq!(Reservation::read(guest.xen()), Err(XenErrno::EPERM));
    }
}
