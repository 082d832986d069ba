//! Decides which pages of a mapping a device accesses in place.

use super::MapError;
use super::bounced_pages::BouncedPages;
use super::source::{Source, SourcePage, SourceSize};
use super::view::{DeviceAddress, DeviceView, Reach};
use crate::addr::PAGE_SIZE;
use crate::dma::segments::{CutRules, Piece, round_down};
use crate::paging::GuestMemory;

const PAGE: u64 = PAGE_SIZE as u64;

/// Which pages of a mapping must be bounced, and what that comes to.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    pub size: SourceSize,
    pub bounced: BouncedPages,
    pub bounced_pages: u64,
    pub bounced_bytes: u64,
    /// The segments if no two bounced pages are contiguous; `None` if some bytes cannot be cut.
    pub segments: Option<u64>,
    /// The digest of the addresses of the other pages.
    pub digest: AddressDigest,
}

/// Surveys the pages of `source`. Allocates nothing.
///
/// # Errors
/// Nothing backs a page.
pub fn survey<M: GuestMemory>(
    view: &DeviceView<'_, M>,
    source: &Source<'_>,
    size: SourceSize,
    reach: &Reach,
    rules: &CutRules,
) -> Result<Survey, MapError> {
    let mut bounced = BouncedPages::none_of(size.pages);
    let mut tally = Tally::new(rules);
    for page in source.pages() {
        match view.find(&page) {
            DeviceAddress::At(address) if reach.admits(address, page.len) => {
                tally.in_place(address, page.len);
            }
            DeviceAddress::At(_) | DeviceAddress::Unknown => {
                bounced.insert(page.index);
                tally.bounced(&page);
            }
            DeviceAddress::NotBacked(pfn) => {
                return Err(MapError::NotBacked { offset: page.offset, pfn });
            }
        }
    }
    if tally.bounced_pages > 0 && bounced.has_groups() {
        // Pages before and after the counted ones are bounced with them.
        tally = tally_of(view, source, &bounced, rules);
    }
    let segments = tally.segments();
    let Tally { bounced_pages, bounced_bytes, digest, .. } = tally;
    Ok(Survey { size, bounced, bounced_pages, bounced_bytes, segments, digest })
}

/// Counts what the device gets if these pages are bounced.
fn tally_of<'r, M: GuestMemory>(
    view: &DeviceView<'_, M>,
    source: &Source<'_>,
    bounced: &BouncedPages,
    rules: &'r CutRules,
) -> Tally<'r> {
    let mut tally = Tally::new(rules);
    for page in source.pages() {
        match view.find(&page) {
            DeviceAddress::At(address) if !bounced.contains(page.index) => {
                tally.in_place(address, page.len);
            }
            _ => tally.bounced(&page),
        }
    }
    tally
}

/// Counts pages and segments: contiguous memory together, other memory apart.
struct Tally<'r> {
    rules: &'r CutRules,
    bounced_pages: u64,
    bounced_bytes: u64,
    digest: AddressDigest,
    /// The memory in place that may go on with the next page.
    run: Piece,
    /// The segments of the memory before.
    before: Option<u64>,
}

impl<'r> Tally<'r> {
    const fn new(rules: &'r CutRules) -> Self {
        Self {
            rules,
            bounced_pages: 0,
            bounced_bytes: 0,
            digest: AddressDigest(0),
            run: Piece { address: 0, bytes: 0 },
            before: Some(0),
        }
    }

    fn in_place(&mut self, address: u64, bytes: u64) {
        self.digest.add(address);
        if self.run.end() != Some(address) {
            self.before = self.segments();
            self.run = Piece { address, bytes: 0 };
        }
        self.run.bytes += bytes;
    }

    fn bounced(&mut self, page: &SourcePage) {
        self.bounced_pages += 1;
        self.bounced_bytes += page.len;
        let own = self.rules.count(round_down(page.in_page(), self.rules.align()), page.len);
        self.before = sum(self.segments(), own);
        self.run.bytes = 0;
    }

    /// Returns the segments so far; `None` if some bytes cannot be cut.
    fn segments(&self) -> Option<u64> {
        match self.run {
            Piece { bytes: 0, .. } => self.before,
            Piece { address, bytes } => sum(self.before, self.rules.count(address, bytes)),
        }
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.zip(other).and_then(|(one, other)| one.checked_add(other))
}

/// A number that changes when the address of a page changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressDigest(u64);

impl AddressDigest {
    /// Adds the address of the next page.
    pub const fn add(&mut self, address: u64) {
        // The multiplier is odd, so the product keeps all information.
        self.0 = (self.0.rotate_left(29) ^ (address / PAGE)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
