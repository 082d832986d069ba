//! The embedded scripts, as `build.rs` packed them.

mod packed {
    include!(concat!(env!("OUT_DIR"), "/packed.rs"));
}

use core::fmt::{self, Write};

/// A packed script.
#[derive(Clone, Copy, Debug)]
pub struct Script(&'static [u8]);

/// The script for PV guests.
pub const PV: Script = Script(&packed::PV);

/// The script for translated guests (PVH).
pub const TRANSLATED: Script = Script(&packed::TRANSLATED);

impl Script {
    /// Writes the script to `text`, with an empty line for each comment.
    ///
    /// # Errors
    ///
    /// Returns the errors of `text`.
    pub fn unpack(self, text: &mut impl Write) -> fmt::Result {
        self.0.iter().try_for_each(|code| expand(*code, text))
    }
}

/// Writes the text of a byte. A byte above 127 stands for a pair of bytes.
fn expand(code: u8, text: &mut impl Write) -> fmt::Result {
    match code.checked_sub(0x80) {
        None => text.write_char(code.into()),
        Some(index) => {
            packed::PAIRS[index as usize].iter().try_for_each(|code| expand(*code, text))
        }
    }
}
