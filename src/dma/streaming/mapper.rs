//! Maps memory: decides which pages are bounced, and obtains the memory for that.

use core::fmt;
use core::ptr::NonNull;

use hypercall::Xen;
use hypercall::trace::Span;

use super::bounce::{Bounce, BounceMemory, BouncePool};
use super::layout::BounceLayout;
use super::limits::{max_mapping, plan_by_page, plan_dense, within_order_limit};
use super::mapping::{Mapping, MappingParts};
use super::source::Source;
use super::survey::{Survey, survey};
use super::view::{DeviceView, Reach};
use super::{Direction, MapError};
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::dma::device::DeviceCounters;
use crate::dma::plan::Plan;
use crate::dma::segments::{CutRules, round_down};
use crate::dma::{AllocError, Allocator, ConstraintError, Constraints, Pool, Sleep};
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// Maps memory for a device, with bounce memory from a pool or within narrower limits.
///
/// Made by [`Device::mapper`](crate::dma::Device::mapper). The methods of the device with the same names
/// use one without a pool.
///
/// ```
/// use core::ptr::NonNull;
/// use xen_contig::dma::{Device, Direction, MapError, Pool, Sleep};
/// use xen_contig::platform::Platform;
///
/// /// Sends a packet where no hypercall may be made: bounced if it must be, to an object of `bounce`.
/// ///
/// /// # Safety
/// /// The packet is valid until the function returns, and nothing else accesses it.
/// unsafe fn send<P: Platform + Sync>(
///     nic: &Device<'_, P>,
///     bounce: &Pool<'_, P>,
///     packet: NonNull<[u8]>,
///     start: impl Fn(u64, u64),
///     wait: impl Fn(),
/// ) -> Result<(), MapError> {
///     let mapper = nic.mapper().with_pool(bounce).sleep(Sleep::MustNot);
///     // SAFETY: this function's contract. The mapping is dropped when the device has stopped.
///     let mapping = unsafe { mapper.map(packet, Direction::ToDevice)? };
///     mapping.segments().for_each(|segment| start(segment.dma.get(), segment.len));
///     wait();
///     Ok(())
/// }
/// ```
pub struct Mapper<'d, P: Platform> {
    allocator: &'d Allocator<P>,
    limits: Constraints,
    counters: &'d DeviceCounters,
    /// Tried before the allocator.
    pool: Option<&'d dyn BouncePool<P>>,
}

/// How the memory of a mapping is bounced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Not at all.
    InPlace,
    /// Some pages.
    ByPage,
    /// All bytes, because the device takes too few segments for anything else.
    Dense,
}

impl<P: Platform> fmt::Debug for Mapper<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapper").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<'d, P: Platform> Mapper<'d, P> {
    pub(super) const fn new(
        allocator: &'d Allocator<P>,
        limits: Constraints,
        counters: &'d DeviceCounters,
    ) -> Self {
        Self { allocator, limits, counters, pool: None }
    }

    pub(in crate::dma) const fn limits(&self) -> &Constraints {
        &self.limits
    }

    /// Takes bounce memory from `pool` before the allocator is asked: the guarantee for callers that must
    /// not sleep.
    ///
    /// One object serves a mapping if it has room for all pages that are bounced and if the device reaches
    /// it. So its size should be whole pages. [`Zeroing::Whatever`](crate::dma::Zeroing) is enough: all
    /// bytes of the pages that a mapping uses are overwritten.
    #[must_use]
    pub fn with_pool(self, pool: &'d Pool<'_, P>) -> Self
    where
        P: Sync,
    {
        Self { pool: Some(pool), ..self }
    }

    /// Says whether mappings may wait for hypercalls.
    #[must_use]
    pub fn sleep(self, sleep: Sleep) -> Self {
        // No limit contradicts it.
        let limits = self.limits.to_builder().sleep(sleep).build().unwrap_or(self.limits);
        Self { limits, ..self }
    }

    /// Maps within the limits of the device and within these.
    ///
    /// # Errors
    /// If the two contradict each other.
    pub fn within(self, limits: &Constraints) -> Result<Self, ConstraintError> {
        Ok(Self { limits: self.limits.narrowed_by(limits)?, ..self })
    }

    /// Maps `bytes`, as [`Device::map`](crate::dma::Device::map).
    ///
    /// # Safety
    /// As for [`Device::map`](crate::dma::Device::map).
    ///
    /// # Errors
    /// As for [`Device::map`](crate::dma::Device::map).
    pub unsafe fn map(
        &self,
        bytes: NonNull<[u8]>,
        direction: Direction,
    ) -> Result<Mapping<'d, P>, MapError> {
        // SAFETY: this function has the same contract.
        unsafe { self.map_source(Source::One(bytes), direction) }
    }

    /// Maps `bytes` for a driver that names them by one device address. Returns that address, too.
    ///
    /// Calls `claim` before anything is bounced, and returns its answer. The bounce memory is a buffer.
    ///
    /// # Safety
    /// As for [`Device::map`](crate::dma::Device::map).
    pub(in crate::dma) unsafe fn map_raw<C>(
        &self,
        bytes: NonNull<[u8]>,
        direction: Direction,
        claim: impl FnOnce() -> Result<C, AllocError>,
    ) -> Result<(Mapping<'d, P>, DmaAddr, Option<C>), MapError> {
        // SAFETY: this function has the same contract.
        let mapped = unsafe { self.map_uncounted(Source::One(bytes), direction, claim) };
        let mapped = mapped.and_then(|(mapping, claim)| {
            let first = mapping.segments().next();
            let dma = first.ok_or_else(|| self.lost_frame(bytes))?.dma;
            Ok((mapping, dma, claim))
        });
        self.count(mapped.as_ref().map(|(mapping, ..)| mapping));
        mapped
    }

    /// Returns the error for a first page whose frame was there at the survey, and is not any more.
    fn lost_frame(&self, bytes: NonNull<[u8]>) -> MapError {
        let view = DeviceView::new(self.allocator.platform());
        let first = Source::One(bytes).pages().next();
        first.map_or(MapError::Empty, |page| MapError::NotBacked {
            offset: 0,
            pfn: view.frame(&page),
        })
    }

    /// Maps several ranges, as [`Device::map_list`](crate::dma::Device::map_list).
    ///
    /// # Safety
    /// As for [`Device::map_list`](crate::dma::Device::map_list).
    ///
    /// # Errors
    /// As for [`Device::map_list`](crate::dma::Device::map_list).
    pub unsafe fn map_list<'m>(
        &self,
        list: &'m [NonNull<[u8]>],
        direction: Direction,
    ) -> Result<Mapping<'m, P>, MapError>
    where
        'd: 'm,
    {
        // SAFETY: this function has the same contract.
        unsafe { self.map_source(Source::List(list), direction) }
    }

    /// Returns true if [`map`](Self::map) would bounce any of these bytes, as
    /// [`Device::needs_bounce`](crate::dma::Device::needs_bounce).
    ///
    /// # Errors
    /// As for [`Device::needs_bounce`](crate::dma::Device::needs_bounce).
    pub fn needs_bounce(&self, bytes: NonNull<[u8]>) -> Result<bool, MapError> {
        self.survey(&Source::One(bytes)).map(|survey| self.way(&survey) != Way::InPlace)
    }

    /// Returns the most bytes that can be mapped wherever they lie, as
    /// [`Device::max_mapping`](crate::dma::Device::max_mapping). A pool does not change that.
    pub fn max_mapping(&self) -> u64 {
        max_mapping(self.allocator, &self.limits)
    }

    /// Maps the memory of `source`, and counts that.
    ///
    /// # Safety
    /// As for [`Device::map_list`](crate::dma::Device::map_list).
    unsafe fn map_source<'m>(
        &self,
        source: Source<'m>,
        direction: Direction,
    ) -> Result<Mapping<'m, P>, MapError>
    where
        'd: 'm,
    {
        // SAFETY: this function has the same contract.
        let mapped = unsafe { self.map_uncounted(source, direction, || Ok(())) };
        let mapped = mapped.map(|(mapping, _)| mapping);
        self.count(mapped.as_ref());
        mapped
    }

    /// Counts a mapping, or why there is none.
    fn count(&self, mapped: Result<&Mapping<'_, P>, &MapError>) {
        match mapped {
            Ok(mapping) => self.counters.count_mapping(mapping.len(), mapping.bounced_bytes()),
            Err(error) => self.counters.count_failure(error.cause()),
        }
    }

    /// Maps the memory of `source`. If any of it must be bounced, calls `claim` before that and returns its
    /// answer.
    ///
    /// # Safety
    /// As for [`Device::map_list`](crate::dma::Device::map_list).
    unsafe fn map_uncounted<'m, C>(
        &self,
        source: Source<'m>,
        direction: Direction,
        claim: impl FnOnce() -> Result<C, AllocError>,
    ) -> Result<(Mapping<'m, P>, Option<C>), MapError>
    where
        'd: 'm,
    {
        let survey = self.survey(&source)?;
        let way = self.way(&survey);
        let claimed = (way != Way::InPlace).then(claim).transpose();
        let claimed = claimed.map_err(|error| {
            let bytes = survey.size.bytes;
            MapError::NoBounceMemory { bytes, error }
        })?;
        let bounce = match way {
            Way::InPlace => None,
            Way::ByPage => Some(self.bounce_by_page(&source, &survey)?),
            Way::Dense => Some(self.bounce_densely(&source, &survey)?),
        };
        let rules = CutRules::for_streaming(&self.limits);
        let live = self.counters.begin_mapping();
        let parts = MappingParts { source, direction, rules, bounce, survey, live };
        // SAFETY: this function has the same contract for each range. The layout of the bounce memory is
        // that of this source.
        let mapping = unsafe { Mapping::new(self.allocator.platform(), parts) };
        Ok((mapping, claimed))
    }

    fn survey(&self, source: &Source<'_>) -> Result<Survey, MapError> {
        let platform = self.allocator.platform();
        let size = source.size(platform.p2m().frames().saturating_mul(PAGE))?;
        let (reach, rules) = (Reach::new(&self.limits), CutRules::for_streaming(&self.limits));
        survey(&DeviceView::new(platform), source, size, &reach, &rules)
    }

    fn way(&self, survey: &Survey) -> Way {
        match survey.segments {
            Some(segments) if segments <= self.limits.max_segments() as u64 => {
                if survey.bounced_pages == 0 { Way::InPlace } else { Way::ByPage }
            }
            _ => Way::Dense,
        }
    }

    /// Bounces some pages, each to a page of its own. If the device does not reach that many pages, all
    /// bytes are bounced: they may take one page less.
    fn bounce_by_page(
        &self,
        source: &Source<'_>,
        survey: &Survey,
    ) -> Result<Bounce<'d, P>, MapError> {
        let bytes = survey.bounced_pages.saturating_mul(PAGE);
        let align = self.limits.streaming_align();
        let layout = BounceLayout::ByPage { bounced: survey.bounced, align };
        if let Some(memory) = self.take_object(bytes, |_| true) {
            return Ok(Bounce { memory, layout });
        }
        let Ok(plan) = plan_by_page(bytes, &self.limits) else {
            return self.bounce_densely(source, survey);
        };
        self.allocate(&plan)
            .map(|memory| Bounce { memory, layout })
            .map_err(|error| MapError::NoBounceMemory { bytes, error })
    }

    /// Bounces all bytes. The first keeps its offset in the page if the device then takes the buffer.
    fn bounce_densely(
        &self,
        source: &Source<'_>,
        survey: &Survey,
    ) -> Result<Bounce<'d, P>, MapError> {
        let (bytes, rules) = (survey.size.bytes, CutRules::for_streaming(&self.limits));
        let offset = source.pages().next().map_or(0, |page| page.in_page());
        let first = round_down(offset, self.limits.streaming_align());
        for first in [first, 0] {
            let takes = |address: u64| {
                let count = rules.count(address + first, bytes);
                count.is_some_and(|count| count <= self.limits.max_segments() as u64)
            };
            if let Some(memory) = self.take_object(first + bytes, takes) {
                return Ok(Bounce { memory, layout: BounceLayout::Dense { first } });
            }
        }
        let permitted = within_order_limit(self.allocator, &self.limits);
        let too_long = |limit| MapError::TooLong { bytes, max: self.max_mapping(), limit };
        let plan = |limits, first| plan_dense(first + bytes, limits).map(|plan| (first, plan));
        let (first, plan) = plan(&permitted, first)
            .or_else(|_| plan(&permitted, 0))
            // Memory that the guest has may be contiguous for longer than what Xen hands out.
            .or_else(|_| plan(&self.limits, first))
            .or_else(|_| plan(&self.limits, 0))
            .map_err(too_long)?;
        match self.allocate(&plan) {
            Ok(memory) => Ok(Bounce { memory, layout: BounceLayout::Dense { first } }),
            Err(limit @ AllocError::OrderNotPermitted { .. }) => Err(too_long(limit)),
            Err(error) => Err(MapError::NoBounceMemory { bytes: plan.size(), error }),
        }
    }

    /// Takes an object of the pool that holds `bytes` bytes in whole pages, if the device reaches it and
    /// `takes` accepts its address.
    fn take_object(
        &self,
        bytes: u64,
        takes: impl FnOnce(u64) -> bool,
    ) -> Option<BounceMemory<'d, P>> {
        let bytes = bytes.checked_next_multiple_of(PAGE)?;
        let object = self.pool.filter(|pool| pool.bytes() >= bytes)?.take()?;
        let address = object.dma_addr().get();
        let last = address.checked_add(bytes - 1)?;
        let reached = address >= self.limits.lowest() && last <= self.limits.mask();
        let serves = address.is_multiple_of(PAGE) && object.len() >= bytes && reached;
        (serves && takes(address)).then_some(BounceMemory::Object(object))
    }

    fn allocate(&self, plan: &Plan) -> Result<BounceMemory<'d, P>, AllocError> {
        let span = Span::Operation(self.limits.operation("map", plan.size()));
        let xen = self.allocator.platform().xen();
        xen.within(span, || self.allocator.alloc(plan)).map(BounceMemory::Buffer)
    }
}
