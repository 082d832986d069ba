//! Runs the program.

use std::io::Write;
use std::process::{Command, Stdio};

/// What the program printed.
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// The program with its options, reading and writing pipes.
pub fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-contig-trace"));
    command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program with standard input.
pub fn run(options: &[&str], input: &[u8]) -> Output {
    let mut child = command(options).spawn().unwrap();
    // A program that reports a wrong option reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Output {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Returns the path of a log of `tests/logs`.
pub fn log(name: &str) -> String {
    format!("{}/tests/logs/{name}.log", env!("CARGO_MANIFEST_DIR"))
}

/// Runs the program on a log of `tests/logs`.
pub fn run_on(name: &str, options: &[&str]) -> Output {
    let path = log(name);
    run(&[options, &[&path]].concat(), b"")
}
