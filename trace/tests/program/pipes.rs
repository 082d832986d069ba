//! The program in a pipe, and beside a log that grows.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::run::{command, log, run, run_on};

/// Longer than a loaded machine needs. A test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let line = b"# trace v0 #0 @1.000000000 +1 - sched_op yield -> 0\n";
    for options in [&[][..], &["--json", "-"], &["-f"]] {
        let mut child = command(options).spawn().unwrap();
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(&line.repeat(20_000));
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{options:?}: {stderr}");
        assert_eq!(stderr, "", "{options:?}");
    }
}

fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

#[test]
fn a_log_that_grows_is_followed() {
    let path = std::env::temp_dir().join(format!("xen-contig-{}-follow.log", std::process::id()));
    let mut log = File::create(&path).unwrap();
    log.write_all(b"# trace version=1 vcpus=1 ring=8 calls=all\n").unwrap();
    log.write_all(b"# trace v0 #0 @1.000000000 +1 - sched_op yield -> 0\n").unwrap();
    let mut child = command(&["-f", path.to_str().unwrap()]).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let next = || lines.recv_timeout(PATIENCE).unwrap();
    assert_eq!((next().as_str(), next().as_str()), ("boot", "  sched_op yield -> 0"));
    // The rest of a call and its frames come later.
    log.write_all(b"# trace v0 @2.000000000 begin test one\n# trace v0 #1 @2.00").unwrap();
    log.write_all(b"0000000 +9 - memory_op exchange in=1 -> 0 done=1\n# trace v0 #1 in 0x5\n")
        .unwrap();
    log.write_all(b"# trace v0 #1 out 0x6\n").unwrap();
    assert_eq!(next(), "test one");
    assert_eq!(next(), "  memory_op exchange in=1 -> 0 done=1  0x5 => 0x6");
    // The guest boots again, into a log that begins anew.
    log.set_len(0).unwrap();
    std::io::Seek::rewind(&mut log).unwrap();
    log.write_all(b"# trace version=1 vcpus=1 ring=8 calls=all\n").unwrap();
    log.write_all(b"# trace v0 #0 @1.000000000 +1 - sched_op block -> 0\n").unwrap();
    assert_eq!(next(), "# boot 2 of the log: line 7");
    assert_eq!((next().as_str(), next().as_str()), ("boot", "  sched_op block -> 0"));
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_followed_pipe_shows_what_the_log_shows() {
    for name in ["serial", "vcpus", "dmesg"] {
        let whole = run_on(name, &[]);
        let bytes = std::fs::read(log(name)).unwrap();
        let followed = run(&["-f"], &bytes);
        assert!(followed.success, "{}", followed.stderr);
        assert_eq!(followed.stdout, whole.stdout, "{name}");
    }
}
