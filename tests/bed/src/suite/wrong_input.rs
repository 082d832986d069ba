//! Calls the bed itself with what it can't use, as a user would, and wants a clear answer.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};
use crate::guest::GuestVerdict;
use crate::report::Reporter;
use crate::setup::{Bed, make_dir, write};

/// A port of this machine without a listener stands for a network that is down.
const NOWHERE: &str = "http://127.0.0.1:9/debian";

/// Tries everything.
pub fn check(bed: &Bed, reporter: &mut Reporter) -> Result<()> {
    let dir = bed.dir.join("wrong-input");
    make_dir(&dir)?;
    let text = dir.join("no-elf");
    write(&text, b"#!/bin/sh\n")?;
    let text = text.display().to_string();
    // Empty, so that the setup has to fetch.
    let fresh = dir.join("fresh");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(|e| Error::file("removing", &fresh, e))?;
    }
    let fresh = fresh.display().to_string();
    let cases: [(&str, Vec<&str>, &[&str]); 9] = [
        ("an unknown MODE", vec!["run", "--mode", "pv-domx"], &["`pv-domx`", "pvh-dom0"]),
        ("an unknown XEN", vec!["run", "--xen", "4.18"], &["`4.18`", "4.20"]),
        ("VCPUS=0", vec!["run", "--vcpus", "0"], &["--vcpus", "0 is not in 1..=32"]),
        ("MEMORY=lots", vec!["run", "--memory", "lots"], &["--memory", "lots"]),
        ("ARGS with a quote", vec!["run", "--args", "seed=\"1\""], &["seed=\"1\""]),
        ("no such option", vec!["run", "--colour"], &["--colour", "--help"]),
        (
            "no such image",
            vec!["run", "--image", "/nonexistent/xen-contig"],
            &["/nonexistent/xen-contig", "make image"],
        ),
        ("an image that is not an ELF file", vec!["run", "--image", &text], &[&text, "not an ELF"]),
        (
            "no network on the first run",
            vec!["setup", "--target", &fresh, "--mirror", NOWHERE],
            &[NOWHERE, "can't be reached", "check the network"],
        ),
    ];
    for (name, words, expected) in cases {
        reporter.note(name, try_one(&words, expected)?);
    }
    Ok(())
}

fn try_one(words: &[&str], expected: &[&str]) -> Result<std::result::Result<(), String>> {
    let program = env::current_exe().map_err(|e| Error::file("finding", Path::new("bed"), e))?;
    let out = command::output(Command::new(program).args(words))?;
    let said = String::from_utf8_lossy(&out.stderr);
    let error = i32::from(GuestVerdict::Error.exit_status());
    if out.status.code() != Some(error) {
        return Ok(Err(format!("{} instead of exit status {error}: {said}", out.status)));
    }
    Ok(match expected.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(format!("the message does not say {word}: {said}")),
        None => Ok(()),
    })
}
