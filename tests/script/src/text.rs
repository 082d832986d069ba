//! A script as it is embedded: packed by `build.rs`, without its comments.

mod packed {
    include!(concat!(env!("OUT_DIR"), "/packed.rs"));
}

use core::fmt::{self, Write};

/// A script that is to be unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Script(&'static [u8]);

/// The script for PV guests.
pub const PV: Script = Script(&packed::PV);

/// The script for guests that Xen translates for (PVH).
pub const TRANSLATED: Script = Script(&packed::TRANSLATED);

impl Script {
    /// Unpacks the script. Comments are empty lines in it.
    ///
    /// # Errors
    /// Those of `text`.
    pub fn unpack(self, text: &mut impl Write) -> fmt::Result {
        self.0.iter().try_for_each(|code| expand(*code, text))
    }
}

/// A byte above 127 stands for two others.
fn expand(code: u8, text: &mut impl Write) -> fmt::Result {
    match code.checked_sub(0x80) {
        None => text.write_char(code.into()),
        Some(index) => {
            packed::PAIRS[index as usize].iter().try_for_each(|code| expand(*code, text))
        }
    }
}
