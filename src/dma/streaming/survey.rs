//! Decides which pages of a mapping a device accesses in place.

use super::MapError;
use super::bounced_pages::BouncedPages;
use super::source::{Source, SourceSize};
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

/// Surveys the pages of `source`. Reads the P2M twice per page and allocates nothing.
///
/// # Errors
/// The ranges are impossible, or nothing backs a page.
pub fn survey<M: GuestMemory>(
    view: &DeviceView<'_, M>,
    source: &Source<'_>,
    size: SourceSize,
    reach: &Reach,
    rules: &CutRules,
) -> Result<Survey, MapError> {
    let mut bounced = BouncedPages::none_of(size.pages);
    for page in source.pages() {
        match view.find(&page) {
            DeviceAddress::At(address) if reach.admits(address, page.len) => {}
            DeviceAddress::At(_) | DeviceAddress::Unknown => bounced.insert(page.index),
            DeviceAddress::NotBacked(pfn) => {
                return Err(MapError::NotBacked { offset: page.offset, pfn });
            }
        }
    }
    Ok(count(view, source, size, bounced, rules))
}

/// Counts what the device gets if these pages are bounced.
fn count<M: GuestMemory>(
    view: &DeviceView<'_, M>,
    source: &Source<'_>,
    size: SourceSize,
    bounced: BouncedPages,
    rules: &CutRules,
) -> Survey {
    let (mut bounced_pages, mut bounced_bytes) = (0, 0);
    let mut digest = AddressDigest::default();
    let mut segments = SegmentCount { rules, run: Piece { address: 0, bytes: 0 }, total: Some(0) };
    for page in source.pages() {
        if bounced.contains(page.index) {
            bounced_pages += 1;
            bounced_bytes += page.len;
            segments.end_run();
            segments.add(round_down(page.in_page(), rules.align()), page.len);
        } else if let DeviceAddress::At(address) = view.find(&page) {
            digest.add(address);
            segments.extend(address, page.len);
        }
    }
    segments.end_run();
    Survey { size, bounced, bounced_pages, bounced_bytes, segments: segments.total, digest }
}

/// Counts segments: contiguous memory together, other memory apart.
struct SegmentCount<'r> {
    rules: &'r CutRules,
    /// The memory that may go on with the next page.
    run: Piece,
    total: Option<u64>,
}

impl SegmentCount<'_> {
    fn extend(&mut self, address: u64, bytes: u64) {
        if self.run.end() != Some(address) {
            self.end_run();
            self.run.address = address;
        }
        self.run.bytes += bytes;
    }

    fn end_run(&mut self) {
        let Piece { address, bytes } = self.run;
        self.run.bytes = 0;
        if bytes > 0 {
            self.add(address, bytes);
        }
    }

    fn add(&mut self, address: u64, bytes: u64) {
        let more = self.rules.count(address, bytes);
        self.total = self.total.zip(more).and_then(|(total, more)| total.checked_add(more));
    }
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
