//! A script as it is embedded: without its comments, which are for readers and would make a third of
//! it. Their lines stay, so that the others keep their numbers.

/// Embeds a file of the crate.
macro_rules! embed {
    ($path:literal) => {{
        const WHOLE: &str = include_str!($path);
        const BARE: &[u8; $crate::text::bare_len(WHOLE)] = &$crate::text::bare(WHOLE);
        match core::str::from_utf8(BARE) {
            Ok(text) => text,
            Err(_) => panic!("a script is ASCII but for its comments"),
        }
    }};
}
pub(crate) use embed;

/// How long a text is without its comments.
pub(crate) const fn bare_len(text: &str) -> usize {
    let (text, mut at, mut len, mut comment) = (text.as_bytes(), 0, 0, false);
    while at < text.len() {
        comment = is_comment(text, at, comment);
        len += !comment as usize;
        at += 1;
    }
    len
}

/// The text without its comments.
pub(crate) const fn bare<const LEN: usize>(text: &str) -> [u8; LEN] {
    let (text, mut at, mut len, mut comment) = (text.as_bytes(), 0, 0, false);
    let mut bare = [0; LEN];
    while at < text.len() {
        comment = is_comment(text, at, comment);
        if !comment {
            bare[len] = text[at];
            len += 1;
        }
        at += 1;
    }
    bare
}

/// Whether the character at `at` is part of a comment, which goes up to the end of its line.
const fn is_comment(text: &[u8], at: usize, before: bool) -> bool {
    match text[at] {
        b'\n' => false,
        b'#' if at == 0 || text[at - 1] == b'\n' => true,
        _ => before,
    }
}
