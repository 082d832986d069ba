//! Links from the page to logs.

use std::path::Path;

use serde::Serialize;

/// The directory of the page.
pub const DIR: &str = "target/report";

/// The logs of a boot that the page links to, in this order.
const LOGS: [&str; 6] =
    ["console.log", "xl-dmesg.log", "xl.log", "serial.log", "qemu.log", "qemu.cmd"];

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The words.
    pub text: String,
    /// The address, relative to the page.
    pub href: String,
}

/// Returns links to the logs of a boot that exist and are not empty.
pub fn logs(root: &Path, dir: &str) -> Vec<Link> {
    let is_there = |name: &&&str| {
        let metadata = std::fs::metadata(root.join(dir).join(**name));
        metadata.is_ok_and(|metadata| metadata.len() > 0)
    };
    let link = |name: &str| Link { text: name.to_owned(), href: href(&format!("{dir}/{name}")) };
    LOGS.iter().filter(is_there).map(|name| link(name)).collect()
}

/// Returns the address of a path, which is relative to the repository's root or absolute.
pub fn href(path: &str) -> String {
    let encoded: String = path.bytes().map(encoded).collect();
    if path.starts_with('/') {
        return format!("file://{encoded}");
    }
    match encoded.strip_prefix("target/") {
        Some(rest) => format!("../{rest}"),
        None => format!("../../{encoded}"),
    }
}

/// Returns a byte as an address has it.
fn encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_relative_to_the_page_and_has_no_special_character() {
        assert_eq!(href("target/bed/4.17/pv-dom0/xl.log"), "../bed/4.17/pv-dom0/xl.log");
        assert_eq!(href("docs/TESTING.md"), "../../docs/TESTING.md");
        assert_eq!(href("/tmp/a b"), "file:///tmp/a%20b");
        assert_eq!(href("target/bed/\"#?<x>"), "../bed/%22%23%3F%3Cx%3E");
        assert_eq!(href("javascript:x"), "../../javascript%3Ax");
    }

    #[test]
    fn only_logs_that_exist_are_linked() {
        assert_eq!(logs(Path::new(env!("CARGO_MANIFEST_DIR")), "src"), []);
    }
}
