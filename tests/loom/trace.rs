//! The tracer, which one vCPU reads while others write it.

use fake_xen::FakeGuest;
use hypercall::ops::{EventChannelOp, Port, VcpuOp};
use hypercall::trace::{Hypercall, TraceRecord};
use hypercall::{Traced, Xen};

use crate::scene::{Lasting, explore, join, spawn};

/// Two vCPUs make hypercalls while a third reads the tracer.
///
/// A panic handler reads like that. The reader gets complete entries in order, or learns that a vCPU is
/// writing them. Each call is counted once.
#[test]
fn a_reader_sees_complete_entries_or_none() {
    explore(3, || {
        let guest = FakeGuest::new(8);
        let xen = Lasting::new(Traced::new(guest.xen().clone(), || 7));
        let traced = xen.get();
        traced.record_into(vec![None; 4].leak());
        // SAFETY: `VCPUOP_is_up` accesses no memory of the guest.
        let ask = move || unsafe { traced.vcpu_op(VcpuOp::IsUp, 0) };
        let send = move || traced.event_channel_op(EventChannelOp::Send(Port(3)));
        let one = spawn(move || (ask(), ask()));
        let other = spawn(send);
        let mut next = 0;
        let free = traced.recent(4, |record| {
            let TraceRecord::Call(entry) = record else { panic!("no span was entered") };
            assert_eq!((entry.sequence, entry.start, entry.done), (next, 7, None));
            next += 1;
            match entry.call.hypercall() {
                Hypercall::VcpuOp => assert_eq!(entry.result, Ok(1)),
                Hypercall::EventChannelOp => assert_eq!(entry.result, Ok(0)),
                other => panic!("no vCPU made a {}", other.name()),
            }
        });
        assert!(free || next == 0);
        assert_eq!((join(one), join(other)), ((Ok(1), Ok(1)), Ok(0)));
        let taken = std::iter::from_fn(|| traced.take()).count();
        assert_eq!((taken, traced.calls(), traced.summary().total().calls), (3, 3, 3));
    });
}
