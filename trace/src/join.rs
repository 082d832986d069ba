//! From the bytes of a log to the lines of a trace, each whole.
//!
//! Xen prints at most 199 bytes of a guest on one line; the rest follows on the next line of the same
//! domain. And Xen's own messages can begin in the middle of a line of dom0.

use std::collections::BTreeMap;

use crate::record::{MARK, RECAP, Reason, Record};

/// The shortest line of a domU that Xen may have cut, without the prefix (`DOMAIN_PBUF_SIZE` - 1).
const CUT: usize = 199;

/// The domain whose line it is: `Some` if Xen put the number before it.
pub(crate) type Source = Option<u32>;

/// A line of a trace, or why it cannot be read.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) line: usize,
    pub(crate) source: Source,
    pub(crate) record: Result<Record, Reason>,
}

/// The beginning of a line whose rest may follow.
#[derive(Clone, Debug)]
struct Pending {
    line: usize,
    /// From [`MARK`] on.
    text: String,
}

/// Puts the lines of a trace together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joiner {
    pending: BTreeMap<Source, Pending>,
}

impl Joiner {
    /// Takes a line of the log and adds the lines of the trace that are complete now.
    pub(crate) fn take(&mut self, number: usize, bytes: &[u8], complete: &mut Vec<Joined>) {
        let text = String::from_utf8_lossy(bytes);
        for piece in pieces(text.trim_end_matches(['\r', '\n'])) {
            self.take_piece(number, &piece, complete);
        }
    }

    /// Gives up waiting: the log has ended, or nothing more comes at present.
    pub(crate) fn flush(&mut self, complete: &mut Vec<Joined>) {
        for (source, pending) in std::mem::take(&mut self.pending) {
            complete.push(pending.alone(source));
        }
    }

    fn take_piece(&mut self, number: usize, piece: &Piece<'_>, complete: &mut Vec<Joined>) {
        let source = piece.source;
        if let Some(pending) = self.pending.remove(&source) {
            if piece.text.contains(MARK) {
                complete.push(pending.alone(source));
            } else {
                let text = format!("{}{}", pending.text, piece.text);
                let joined = Pending { line: pending.line, text };
                let record = parse(&joined.text);
                if record.is_ok() && !piece.may_continue() {
                    complete.push(Joined { line: joined.line, source, record });
                    return;
                }
                if piece.may_continue() {
                    self.pending.insert(source, joined);
                    return;
                }
                complete.push(pending.alone(source));
            }
        }
        let Some(at) = piece.text.find(MARK) else {
            if piece.text.contains(RECAP) {
                complete.push(Joined { line: number, source, record: Ok(Record::Recap) });
            }
            return;
        };
        let text = &piece.text[at..];
        if piece.may_continue() {
            self.pending.insert(source, Pending { line: number, text: text.to_owned() });
            return;
        }
        let record = parse(text);
        let again = text[MARK.len()..].find(MARK).map(|next| next + MARK.len());
        match again {
            // Two lines whose line end is lost.
            Some(next) if record.is_err() => {
                let first = parse(&text[..next]);
                complete.push(Joined { line: number, source, record: first });
                let rest = Piece { source, text: &text[next..], interrupted: false };
                self.take_piece(number, &rest, complete);
            }
            _ => complete.push(Joined { line: number, source, record }),
        }
    }
}

impl Pending {
    fn alone(self, source: Source) -> Joined {
        Joined { line: self.line, source, record: parse(&self.text) }
    }
}

fn parse(text: &str) -> Result<Record, Reason> {
    Record::parse(text.strip_prefix(MARK).unwrap_or(text))
}

/// The part of a line that one domain printed.
#[derive(Debug, PartialEq, Eq)]
struct Piece<'a> {
    source: Source,
    text: &'a str,
    /// Another message begins where this one should go on.
    interrupted: bool,
}

impl Piece<'_> {
    fn may_continue(&self) -> bool {
        self.interrupted || self.source.is_some() && self.text.len() >= CUT
    }
}

/// Splits a line at the prefixes that Xen prints, and leaves out what Xen says itself.
fn pieces(line: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = line;
    let mut speaker = Speaker::Unnamed;
    loop {
        // A prefix before the mark belongs to the line; one after it begins another message.
        let next = prefix(rest);
        let (text, after) = match next {
            Some((at, _, _)) => (&rest[..at], true),
            None => (rest, false),
        };
        let has_mark = text.contains(MARK);
        let source = match speaker {
            Speaker::Domain(domain) => Some(domain),
            Speaker::Unnamed | Speaker::Xen => None,
        };
        let is_line = match speaker {
            // dom0's lines can have Xen's prefix, from a log that was relayed.
            Speaker::Xen => has_mark,
            Speaker::Domain(_) => true,
            Speaker::Unnamed => !text.is_empty() && (!after || has_mark),
        };
        if is_line {
            let text = if source.is_some() { without_time(text) } else { text };
            pieces.push(Piece { source, text, interrupted: after && has_mark });
        }
        let Some((at, length, who)) = next else { return pieces };
        rest = &rest[at + length..];
        speaker = who;
    }
}

/// Who speaks after a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Unnamed,
    Xen,
    Domain(u32),
}

/// Finds the first `(XEN) ` or `(d3) `: the place, the length, and who speaks.
fn prefix(text: &str) -> Option<(usize, usize, Speaker)> {
    text.match_indices('(').find_map(|(at, _)| {
        let inner = &text[at + 1..];
        let close = inner.find(") ").or_else(|| inner.strip_suffix(')').map(str::len))?;
        let name = &inner[..close];
        let speaker = match name {
            "XEN" => Speaker::Xen,
            _ => {
                let digits = name.strip_prefix('d')?;
                let digits = digits.split_once('v').map_or(digits, |(domain, _)| domain);
                let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                Speaker::Domain(number.then(|| digits.parse().ok())??)
            }
        };
        Some((at, (close + 3).min(text.len() - at), speaker))
    })
}

/// Removes Xen's time, `[2026-11-26 11:00:00] ` or `[    1.234567] `.
fn without_time(text: &str) -> &str {
    let stamp = text.strip_prefix('[').and_then(|inner| inner.split_once("] "));
    let is_time = |time: &str| {
        time.bytes().all(|b| matches!(b, b'0'..=b'9' | b' ' | b'.' | b':' | b'-' | b'+' | b','))
    };
    match stamp {
        Some((time, rest)) if is_time(time) => rest,
        _ => text,
    }
}
