//! Does the C interface do on the model what its header says?

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use c_interface_tests::machine::Program;
use fake_xen::GuestBuilder;

/// The C kernel has its state in static variables, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_driver_in_c_uses_all_of_the_interface_in_a_pv_guest() {
    let _alone = alone();
    let program = Program::new(GuestBuilder::new(2048).real_memory().build());
    assert_eq!(program.selftest(), 0, "the line of the check that failed");
    program.guest().check_whole();
}

#[test]
fn a_driver_in_c_uses_all_of_the_interface_in_a_translated_guest() {
    let _alone = alone();
    let program = Program::new(GuestBuilder::new(2048).translated().real_memory().build());
    assert_eq!(program.selftest(), 0, "the line of the check that failed");
    program.guest().check_whole();
}

#[test]
fn what_xen_and_the_kernel_refuse_is_an_error_with_text() {
    let _alone = alone();
    let program = Program::new(GuestBuilder::new(2048).real_memory().build());
    assert_eq!(program.errors(), 0, "the line of the check that failed");
}

#[test]
fn the_stack_of_each_function_is_measured() {
    let _alone = alone();
    let program = Program::new(GuestBuilder::new(2048).real_memory().build());
    assert!(program.stack() > 0, "a call failed");
    program.guest().check_whole();
}

#[test]
fn any_number_is_served_or_refused_with_text() {
    let _alone = alone();
    for guest in [GuestBuilder::new(1024), GuestBuilder::new(1024).translated()] {
        let program = Program::new(guest.real_memory().build());
        program.any_input(300);
        program.guest().check_whole();
    }
}
