//! A whole set of buffers, a driver's rings and descriptors, in as few exchanges as possible.

use core::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;
use hypercall::Xen;
use hypercall::trace::Span;

use super::constraints::Sleep;
use super::{AllocError, Allocator, CoherentBuffer, Constraints, Layout};
use crate::addr::Order;
use crate::exchange::{Capability, Lists, OnRefusal, Part, Placement, Progress};
use crate::platform::Platform;

/// One buffer of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes.
    pub size: u64,
    /// What the device can reach.
    pub constraints: Constraints,
}

/// An extent that a request needs from Xen.
struct Wanted {
    index: usize,
    layout: Layout,
    order: Order,
    placement: Placement,
}

impl<P: Platform> Allocator<P> {
    /// Allocates a set of buffers, all or none.
    ///
    /// Those of one extent each share one detach, one flush and one attach, and an exchange for
    /// each order and place. The others, and those that Xen has no memory for in the first place
    /// that it is asked for, are allocated one by one.
    ///
    /// # Errors
    /// The index of the request that failed, and its error. The other buffers have been given back.
    pub fn alloc_many<const N: usize>(
        &self,
        requests: &[Request; N],
    ) -> Result<[CoherentBuffer<'_, P>; N], (usize, AllocError)> {
        let span = Span::Operation("alloc_many");
        self.platform().xen().within(span, || self.alloc_set(requests))
    }

    fn alloc_set<const N: usize>(
        &self,
        requests: &[Request; N],
    ) -> Result<[CoherentBuffer<'_, P>; N], (usize, AllocError)> {
        let mut buffers = [const { None }; N];
        let mut wanted: ArrayVec<Wanted, N> = ArrayVec::new();
        for (index, request) in requests.iter().enumerate() {
            let Request { size, constraints } = request;
            if !self.must_refill(constraints) {
                buffers[index] = self.find(*size, constraints);
            }
            if buffers[index].is_none()
                && let Some(extent) = self.want(index, request)
            {
                wanted.push(extent);
            }
        }
        wanted.sort_unstable_by_key(|extent| {
            (core::cmp::Reverse(extent.order), extent.placement.bits, extent.index)
        });
        if wanted.len() > 1 {
            self.exchange_together(requests, &wanted, &mut buffers);
        }
        for (index, request) in requests.iter().enumerate() {
            if buffers[index].is_none() {
                let buffer = self.alloc_coherent(request.size, &request.constraints);
                buffers[index] = Some(buffer.map_err(|error| (index, error))?);
            }
        }
        Ok(buffers.map(|buffer| buffer.expect("each was found, exchanged or allocated")))
    }

    /// What a request needs from Xen, if that is one extent.
    fn want(&self, index: usize, request: &Request) -> Option<Wanted> {
        let Capability::Exchange { limit } = self.capability() else { return None };
        let layout = Layout::new(request.size, &request.constraints, limit).ok()?;
        let [segment] = layout.segments() else { return None };
        let order = segment.order;
        (request.constraints.sleep() == Sleep::May).then(|| Wanted {
            index,
            layout,
            order,
            placement: request.constraints.placement(),
        })
    }

    /// Serves what it can of `wanted` by one transaction. What it can't stays `None`.
    fn exchange_together<'a, const N: usize>(
        &'a self,
        requests: &[Request; N],
        wanted: &ArrayVec<Wanted, N>,
        buffers: &mut [Option<CoherentBuffer<'a, P>>; N],
    ) {
        let Some(exchanger) = self.exchanger() else { return };
        let frames: u64 = wanted.iter().map(|extent| extent.order.frames()).sum();
        let mut parts: ArrayVec<Part, N> = ArrayVec::new();
        let mut first = 0;
        let alike = |one: &Wanted, next: &Wanted| {
            (one.order, one.placement) == (next.order, next.placement)
        };
        for group in wanted.chunk_by(alike) {
            let part = Part::gather(first, group.len() as u64, group[0].order, group[0].placement);
            first += part.frames();
            parts.push(part);
        }
        let Some(run) = self.take(frames) else { return };
        let Some(mut lists) = self.platform().lists(frames + N as u64) else {
            return self.platform().give(run);
        };
        let (backing, extents) = lists.as_mut().split_at_mut(frames as usize);
        // What is exchanged before a refusal is as good as any; the rest is tried alone.
        let lists = Lists { backing, extents };
        let exchanged = self.exchange_on_record(&exchanger, run, &parts, OnRefusal::Return, lists);
        let Progress { mut run, done, .. } = match exchanged {
            Ok(progress) => progress,
            Err(failure) => {
                failure.remaining.into_iter().for_each(|run| self.give_zeroed(run));
                return;
            }
        };
        let mut end = 0;
        for extent in wanted {
            end += extent.order.frames();
            let piece;
            (piece, run) = run.split_at(extent.order.frames());
            let constraints = &requests[extent.index].constraints;
            let frames = extent.order.frames();
            if end <= done && self.in_reach(&piece, &extent.layout, frames, constraints) {
                self.books.exchanged.fetch_add(1, Relaxed);
                let buffer = self.finish(piece, &extent.layout, frames, constraints);
                buffers[extent.index] = Some(buffer);
            } else {
                self.give_unfit(piece, end <= done);
            }
        }
    }
}
