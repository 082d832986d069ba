//! Any input is read without a panic, and damage to one line costs no other.

use proptest::prelude::*;
use xen_contig_trace::Trace;

const LOGS: [&[u8]; 7] = [
    include_bytes!("logs/serial.log"),
    include_bytes!("logs/dmesg.log"),
    include_bytes!("logs/vcpus.log"),
    include_bytes!("logs/lost.log"),
    include_bytes!("logs/boots.log"),
    include_bytes!("logs/interrupted.log"),
    include_bytes!("logs/panic.log"),
];

/// What is done to a log: at which place, and with which byte.
#[derive(Clone, Debug)]
enum Harm {
    Set(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
    End(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let place = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 14));
    let words: Vec<&[u8]> = vec![
        b"# trace ",
        b"(XEN) ",
        b"(d1) ",
        b"(d1)",
        b"\n",
        b"\r\n",
        b"lost=18446744073709551615",
        b"#18446744073709551615 ",
        b"@18446744073.709551615 ",
        b"+18446744073709551615 ",
        b"times=18446744073709551615",
        b"cut=18446744073709551615",
        b"0x1+18446744073709551615 ",
        b"v4294967295 ",
        b"# trace: the last hypercalls of ",
        b"\xff\xfe",
        "–".as_bytes(),
    ];
    prop_oneof![
        (place.clone(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        (place.clone(), 1..64_usize).prop_map(|(at, length)| Harm::Remove(at, length)),
        (place.clone(), prop::sample::select(words))
            .prop_map(|(at, word)| Harm::Insert(at, word.to_vec())),
        (place.clone(), 1..2000_usize).prop_map(|(at, length)| Harm::Repeat(at, length)),
        place.prop_map(Harm::End),
    ]
}

fn apply(log: &mut Vec<u8>, harm: &Harm) {
    let length = log.len();
    if length == 0 {
        return;
    }
    match harm {
        Harm::Set(at, byte) => log[at % length] = *byte,
        Harm::Remove(at, count) => {
            let at = at % length;
            log.drain(at..(at + count).min(length));
        }
        Harm::Insert(at, bytes) => {
            let at = at % length;
            log.splice(at..at, bytes.iter().copied());
        }
        Harm::Repeat(at, count) => {
            let at = at % length;
            let again = log[at..(at + count).min(length)].to_vec();
            log.splice(at..at, again);
        }
        Harm::End(at) => log.truncate(at % length),
    }
}

/// Reads the log and calls everything that computes with its numbers.
fn read(log: &[u8]) -> Trace {
    let trace = Trace::parse(log);
    for boot in &trace.boots {
        let _ = (boot.first_test(), boot.vcpu_count());
        for call in &boot.calls {
            let _ = (call.end(), call.to_string(), call.frames_in.frames());
            // Ends only if no span contains itself.
            assert!(boot.ancestors(call.parent).count() <= boot.spans.len());
            let _ = (boot.test_of(call), boot.operation_of(call));
        }
        for span in &boot.spans {
            let _ = span.end();
            assert!(boot.ancestors(span.parent).count() <= boot.spans.len());
        }
        boot.losses.iter().for_each(|loss| drop(loss.kind.to_string()));
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_log_is_read(which in 0..LOGS.len(), harms in prop::collection::vec(harm(), 1..20)) {
        let mut log = LOGS[which].to_vec();
        harms.iter().for_each(|harm| apply(&mut log, harm));
        read(&log);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        read(&bytes);
    }

    /// A line that is not the trace's changes nothing, wherever it is.
    #[test]
    fn lines_of_others_change_nothing(which in 0..LOGS.len(), at in any::<prop::sample::Index>()) {
        let log = LOGS[which];
        let mut lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
        lines.insert(at.index(lines.len()), b"(XEN) [    9.000000] a message of Xen\r\n");
        let (expected, found) = (Trace::parse(log), Trace::parse(&lines.concat()));
        for (expected, found) in expected.boots.iter().zip(&found.boots) {
            let calls = |boot: &xen_contig_trace::Boot| {
                boot.calls.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            prop_assert_eq!(calls(expected), calls(found));
            prop_assert_eq!(expected.losses.len(), found.losses.len());
        }
        prop_assert_eq!(expected.boots.len(), found.boots.len());
    }

    /// Damage to a line with a call costs this call at most.
    #[test]
    fn a_damaged_line_costs_one_call(line in 0..60_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut lines: Vec<Vec<u8>> =
            LOGS[0].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let whole = Trace::parse(LOGS[0]).boots[0].calls.len();
        let line = line % lines.len();
        prop_assume!(byte != b'\n' && !lines[line].windows(8).any(|w| w == b"version="));
        let length = lines[line].len();
        lines[line][at.index(length - 1)] = byte;
        let trace = Trace::parse(&lines.concat());
        let found: usize = trace.boots.iter().map(|boot| boot.calls.len()).sum();
        prop_assert!(found + 1 >= whole, "{found} of {whole}");
    }
}
