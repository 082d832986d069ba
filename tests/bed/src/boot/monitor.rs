//! QEMU's monitor (QMP), spoken over QEMU's standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A monitor that has been greeted.
#[derive(Debug)]
pub struct Monitor {
    input: ChildStdin,
    lines: Receiver<String>,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Monitor {
    /// Greets the monitor.
    pub fn open(input: ChildStdin, output: ChildStdout) -> Result<Self> {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut monitor = Self { input, lines };
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Runs a command and returns its result.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let problem = |problem: String| Error::Monitor { command: command.to_owned(), problem };
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.input, "{request}").map_err(|error| problem(error.to_string()))?;
        loop {
            let line = self.lines.recv_timeout(PATIENCE).map_err(|error| {
                problem(match error {
                    RecvTimeoutError::Timeout => "no answer in time".to_owned(),
                    RecvTimeoutError::Disconnected => "QEMU has ended".to_owned(),
                })
            })?;
            // Greetings and events come in between.
            let Ok(mut answer) = serde_json::from_str::<Value>(&line) else { continue };
            if let Some(error) = answer.get("error") {
                return Err(problem(error.to_string()));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Writes `size` bytes of the machine's memory at `address` to a file. What QEMU calls
    /// physical is what Xen calls machine memory.
    pub fn save_memory(&mut self, address: u64, size: u64, file: &Path) -> Result<()> {
        let arguments = json!({ "val": address, "size": size, "filename": file });
        self.execute("pmemsave", &arguments).map(drop)
    }

    /// Whether every CPU has stopped for good: halted, with interrupts off.
    pub fn all_halted(&mut self) -> Result<bool> {
        let arguments = json!({ "command-line": "info registers -a" });
        let text = self.execute("human-monitor-command", &arguments)?;
        Ok(halted_in(text.as_str().unwrap_or_default()))
    }

    /// Asks QEMU to leave; it may already have.
    pub fn quit(&mut self) {
        let _ = writeln!(self.input, "{}", json!({ "execute": "quit" }));
    }
}

fn halted_in(registers: &str) -> bool {
    const INTERRUPTS_ON: u64 = 1 << 9;
    let mut states = registers.lines().filter_map(|line| {
        let flags = line.split("FL=").nth(1)?.split_whitespace().next()?;
        let halted = line.split("HLT=").nth(1)?.starts_with('1');
        let flags = u64::from_str_radix(flags, 16).ok()?;
        Some(halted && flags & INTERRUPTS_ON == 0)
    });
    match states.next() {
        Some(first) => first && states.all(|state| state),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: &str = "RIP=ffff82d040 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n";

    #[test]
    fn only_a_machine_that_nothing_can_wake_is_halted() {
        let two = format!("CPU#0\n{DEAD}CPU#1\n{DEAD}");
        assert!(halted_in(&two));
        assert!(!halted_in(&two.replacen("HLT=1", "HLT=0", 1)));
        assert!(!halted_in(&two.replacen("00000046", "00000246", 1)), "an interrupt would wake it");
        assert!(!halted_in(""));
    }
}
