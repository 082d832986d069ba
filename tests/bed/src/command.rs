//! Calls other programs and tells their failures apart.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use crate::error::{Error, Result};

/// Runs `command` to its end and returns what it said, whether it succeeded or not.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().map_err(|source| {
        let program = command.get_program().to_string_lossy().into_owned();
        if source.kind() == io::ErrorKind::NotFound {
            Error::MissingProgram { package: package_of(&program), program }
        } else {
            Error::file("running", Path::new(&program), source)
        }
    })
}

/// Runs `command`, which must succeed, and returns its standard output.
pub fn succeed(command: &mut Command) -> Result<String> {
    let out = output(command)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(Error::CommandFailed {
        command: shown(command),
        status: out.status.to_string(),
        output: both(&out),
    })
}

/// Standard error and output of a program, for a person to read.
pub fn both(out: &Output) -> String {
    let text = [&out.stderr, &out.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    text.concat().trim_end().to_owned()
}

/// Returns the command line as a person can paste it into a shell.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| {
        let arg = arg.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        if arg.is_empty() || !arg.chars().all(plain) {
            format!("'{}'", arg.replace('\'', "'\\''"))
        } else {
            arg.into_owned()
        }
    }));
    words.join(" ")
}

fn package_of(program: &str) -> &'static str {
    match program {
        "qemu-system-x86_64" => "qemu-system-x86",
        "readelf" => "binutils",
        "dpkg-deb" => "dpkg",
        "apt-get" | "apt-cache" | "apt-config" => "apt",
        "gzip" => "gzip",
        _ => "coreutils",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = output(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(error.to_string().contains("`no-such-program-here` is not installed"));
        assert_eq!(package_of("qemu-system-x86_64"), "qemu-system-x86");
    }

    #[test]
    fn a_failure_shows_command_and_output() {
        let error = succeed(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains("why") && text.contains('3'), "{text}");
    }
}
