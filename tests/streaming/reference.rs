//! What a mapping should be, written as simply as possible.

use std::ptr::NonNull;

use fake_xen::FakeGuest;
use xen_contig::addr::Pfn;
use xen_contig::dma::Constraints;
use xen_contig::paging::GuestMemory;

use crate::scene::PAGE;

/// The bytes of one range in one page.
pub struct ReferencePage {
    pub offset: u64,
    pub in_page: u64,
    pub len: u64,
    /// Where the device finds the first byte, if it can access the bytes there.
    pub address: Option<u64>,
}

/// What a mapping should be.
pub struct Reference {
    pub pages: Vec<ReferencePage>,
    /// The segments if no two bounced pages are contiguous; `None` if some bytes cannot be cut.
    pub segments: Option<u64>,
}

impl Reference {
    pub fn new(guest: &FakeGuest, list: &[NonNull<[u8]>], limits: &Constraints) -> Self {
        let mut pages = pages(guest, list);
        let group =
            (1..).map(|bit| 1 << (bit - 1)).find(|group| pages.len().div_ceil(*group) <= 512);
        for group in pages.chunks_mut(group.unwrap()) {
            if !group.iter().all(|page| takes(page, limits)) {
                group.iter_mut().for_each(|page| page.address = None);
            }
        }
        let segments = worst(&pages, limits);
        Self { pages, segments }
    }

    pub fn bounced_bytes(&self) -> u64 {
        self.pages.iter().filter(|page| page.address.is_none()).map(|page| page.len).sum()
    }

    /// Returns true if the device takes the mapping page by page.
    pub fn is_by_page(&self, limits: &Constraints) -> bool {
        self.segments.is_some_and(|segments| segments <= limits.max_segments() as u64)
    }

    /// Returns for each byte whether it is bounced.
    pub fn bounced(&self) -> Vec<bool> {
        let each = |page: &ReferencePage| vec![page.address.is_none(); page.len as usize];
        self.pages.iter().flat_map(each).collect()
    }
}

fn pages(guest: &FakeGuest, list: &[NonNull<[u8]>]) -> Vec<ReferencePage> {
    let base = guest.pointer(Pfn::new(0)).addr() as u64;
    let (mut pages, mut offset) = (vec![], 0);
    for range in list {
        let start = range.cast::<u8>().addr().get() as u64;
        let end = start + range.len() as u64;
        let mut at = start;
        while at < end {
            let next = end.min(at - at % PAGE + PAGE);
            let frame = at.checked_sub(base).map(|within| within / PAGE);
            let frame = frame.filter(|frame| *frame < guest.frames()).map(Pfn::new);
            let gfn = frame.map(|pfn| guest.p2m().gfn(pfn).unwrap().number());
            let address = gfn.map(|gfn| gfn * PAGE + at % PAGE);
            pages.push(ReferencePage { offset, in_page: at % PAGE, len: next - at, address });
            offset += next - at;
            at = next;
        }
    }
    pages
}

fn takes(page: &ReferencePage, limits: &Constraints) -> bool {
    page.address.is_some_and(|address| {
        address >= limits.lowest()
            && address + page.len - 1 <= limits.mask()
            && address % limits.streaming_align() == 0
    })
}

fn worst(pages: &[ReferencePage], limits: &Constraints) -> Option<u64> {
    let mut runs: Vec<(u64, u64)> = vec![];
    let mut last_end = None;
    for page in pages {
        let address =
            page.address.unwrap_or(page.in_page - page.in_page % limits.streaming_align());
        match runs.last_mut() {
            Some(run) if page.address.is_some() && page.address == last_end => run.1 += page.len,
            _ => runs.push((address, page.len)),
        }
        last_end = page.address.map(|address| address + page.len);
    }
    runs.into_iter().map(|(address, bytes)| cut(address, bytes, limits)).sum()
}

/// Cuts contiguous memory as late as possible each time.
fn cut(mut address: u64, mut bytes: u64, limits: &Constraints) -> Option<u64> {
    let mut count = 0;
    while bytes > 0 {
        let boundary = limits.boundary().unwrap_or(1 << 63);
        let most = limits.max_segment().min(boundary - address % boundary);
        let len = if bytes <= most { bytes } else { most - most % limits.streaming_align() };
        if len == 0 || !address.is_multiple_of(limits.streaming_align()) {
            return None;
        }
        (address, bytes, count) = (address + len, bytes - len, count + 1);
    }
    Some(count)
}
