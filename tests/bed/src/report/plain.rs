//! Keeps what guests and programs print from steering the terminal.

/// Returns a text without escape sequences and control characters other than line ends and tabs.
pub fn plain(text: &str) -> String {
    // The crate drops tabs, too.
    let pieces: Vec<String> = text.split('\t').map(strip_ansi_escapes::strip_str).collect();
    pieces.join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_does_not_steer_the_terminal() {
        let line = "\u{1b}[H\u{1b}[?25h\u{1b}[2;24HGNU GRUB\tx\u{7}\u{8}\u{1b}";
        assert_eq!(plain(line), "GNU GRUB\tx");
        assert_eq!(plain("a\u{1b}]0;title\u{7}b\u{9b}c\nd – e"), "abc\nd – e");
    }
}
