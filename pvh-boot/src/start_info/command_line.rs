//! The readers of texts that end with a NUL.

use core::str;

use super::error::{Problem, StartInfoError};

/// Returns the bytes before the first NUL of `bytes`. There may be none.
pub(super) fn until_nul<'a>(
    field: &'static str,
    bytes: &'a [u8],
) -> Result<&'a [u8], StartInfoError> {
    match bytes.iter().position(|&byte| byte == 0) {
        Some(len) => Ok(&bytes[..len]),
        None => {
            let last = bytes.last().copied().unwrap_or(0);
            let problem = Problem::Unterminated { within: bytes.len() };
            Err(StartInfoError::new(field, last.into(), problem))
        }
    }
}

/// Returns the text before the first NUL of `bytes`. It may be empty.
pub(super) fn text_until_nul<'a>(
    field: &'static str,
    bytes: &'a [u8],
) -> Result<&'a str, StartInfoError> {
    let text = until_nul(field, bytes)?;
    str::from_utf8(text).map_err(|error| {
        let offset = error.valid_up_to();
        StartInfoError::new(field, text[offset].into(), Problem::NotUtf8 { offset })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(bytes: &[u8]) -> (u64, Problem) {
        let error = text_until_nul("text", bytes).unwrap_err();
        assert_eq!((error.field(), error.index()), ("text", None));
        (error.value(), error.problem())
    }

    #[test]
    fn a_text_ends_at_the_first_nul() {
        assert_eq!(text_until_nul("text", b"\0"), Ok(""));
        assert_eq!(text_until_nul("text", b"one two\0three\0"), Ok("one two"));
        assert_eq!(
            text_until_nul("text", b"ok\0\xff\xff"),
            Ok("ok"),
            "the bytes after the NUL do not count"
        );
        assert_eq!(text_until_nul("text", "größe=1\0".as_bytes()), Ok("größe=1"));
        assert_eq!(until_nul("text", b"ok\xff\0three"), Ok(&b"ok\xff"[..]));
    }

    #[test]
    fn a_text_without_nul_or_not_in_utf8_is_refused() {
        assert_eq!(problem(b""), (0, Problem::Unterminated { within: 0 }));
        assert_eq!(problem(b"abc"), (b'c'.into(), Problem::Unterminated { within: 3 }));
        assert_eq!(problem(b"abc\xff\0"), (0xff, Problem::NotUtf8 { offset: 3 }));
        assert_eq!(
            problem(b"\xc3\0"),
            (0xc3, Problem::NotUtf8 { offset: 0 }),
            "an incomplete character"
        );
    }
}
