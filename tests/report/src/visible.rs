//! Text of a log, without characters that act on what shows it.

/// Replaces characters that would not be seen, or would change how others are seen.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            // Unicode has pictures of the control characters of ASCII.
            '\0'..='\x1f' => {
                shown.extend(char::from_u32(0x2400 + character as u32));
            }
            '\x7f' => shown.push('\u{2421}'),
            '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{80}'..='\u{9f}'
            | '\u{feff}' => shown.push_str(&format!("\\u{{{:x}}}", character as u32)),
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_cannot_be_seen_are_shown_by_name() {
        assert_eq!(visible("a\x00\x1b[1m\x7f\u{9b}\u{202e}\tb\n"), "a␀␛[1m␡\\u{9b}\\u{202e}\tb\n");
    }
}
