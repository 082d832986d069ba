//! A drawing of what a transaction did to a range of frames.

use alloc::string::String;
use core::fmt::Write;

use xen_contig::addr::{MachineAddr, Mfn};
use xen_contig::frames::FrameRun;

use crate::machine::Machine;
use crate::say;

/// The frames of a range at one time.
struct PictureRow {
    /// The extents of the machine memory: a letter where one begins, and `=` where it continues.
    machine: String,
    /// The aliases of each frame.
    aliases: String,
    extents: u32,
    lowest: Option<Mfn>,
    highest: Option<Mfn>,
}

impl PictureRow {
    fn of(machine: &Machine, run: &FrameRun) -> Self {
        let mut row = Self {
            machine: String::new(),
            aliases: String::new(),
            extents: 0,
            lowest: None,
            highest: None,
        };
        let mut previous: Option<Mfn> = None;
        for pfn in run.iter() {
            let mfn = machine.p2m.mfn(pfn);
            let goes_on = mfn.is_some() && mfn == previous.map(|mfn| mfn.add(1));
            row.extents += u32::from(!goes_on);
            row.machine.push(match mfn {
                None => '?',
                Some(_) if goes_on => '=',
                Some(_) => char::from(b'a' + ((row.extents - 1) % 26) as u8),
            });
            row.lowest = row.lowest.min(mfn).or(mfn);
            row.highest = row.highest.max(mfn);
            previous = mfn;
            let mut alias = '.';
            machine.areas.aliases(pfn, |seen| alias = if seen.live { 'V' } else { 'l' });
            row.aliases.push(alias);
        }
        row
    }
}

/// A range of frames before and after a transaction.
pub struct Picture {
    title: String,
    before: PictureRow,
    after: Option<PictureRow>,
}

impl Picture {
    /// Records the range before the transaction.
    pub fn of(machine: &Machine, run: &FrameRun) -> Self {
        let (first, last) = (run.first(), run.first().add(run.frames() - 1));
        let mut title = String::new();
        let _infallible = write!(title, "pfn {first} to {last}, a column for each frame");
        Self { title, before: PictureRow::of(machine, run), after: None }
    }

    /// Records the range after the transaction.
    pub fn after(&mut self, machine: &Machine, run: &FrameRun) {
        self.after = Some(PictureRow::of(machine, run));
    }
}

/// Prints the drawing in eight lines.
pub fn draw(picture: &Picture) {
    let Picture { title, before, after: Some(after) } = picture else { return };
    say!("# picture: {title}");
    for (when, row) in [("before", before), ("after ", after)] {
        let address = |mfn: Option<Mfn>| mfn.map_or(0, |mfn| MachineAddr::of(mfn).get());
        say!("# picture: {when} |{}| extents in the machine: {}", row.machine, row.extents);
        say!(
            "# picture:        |{}| from {:#x} to {:#x}",
            row.aliases,
            address(row.lowest),
            address(row.highest) + 0xfff
        );
    }
    say!("# picture: a to z: an extent begins, =: it continues; .: mapped once, l: leftover of an");
    say!("# picture: unmapped area, V: area in use");
}
