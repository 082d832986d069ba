//! A guest on the model machine, its kernel, and drivers with buffers.
//!
//! [`run_scene`] builds one. [`Scene::apply`] then runs a step, and [`Scene::check`] checks every
//! frame:
//!
//! * Each frame is free, in a buffer, in the reserve or quarantined, and the numbers add up
//!   ([M1](xen_contig::rules#M1)).
//! * P2M, page tables and Xen's M2P agree ([M4](xen_contig::rules#M4)), and no quarantined frame is
//!   mapped.
//! * No two buffers share a machine frame. Each has the bytes that its driver wrote, meets its
//!   constraints and is at the device address that it reports.
//! * Nothing is quarantined without a fault, and Xen never got a frame that was not zeroed.

mod kernel;
mod step;

use std::collections::HashSet;

use fake_xen::{ExchangeFault, FakeGuest, Fault, GuestBuilder, Lie, Owner};
use hypercall::XenErrno;
use xen_contig::addr::{Mfn, Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints, Request};
use xen_contig::exchange::{Accounts, ExchangeError};
use xen_contig::platform::Platform;

pub use kernel::CheckedKernel;
pub use step::{BufferRequest, Setting, Step};

const PAGE: u64 = PAGE_SIZE as u64;

/// A coherent buffer of the scene's allocator.
type Buffer<'a, 'k, 'g> = CoherentBuffer<'a, &'k CheckedKernel<'g>>;

/// A buffer of a driver, and what the driver expects of it.
struct LiveBuffer<'a, 'k, 'g> {
    buffer: Buffer<'a, 'k, 'g>,
    constraints: Constraints,
    /// The number that fills the first page. Each later page has the next number.
    colour: u64,
    /// Whether the buffer is the right part of a split, which may be unaligned.
    cut: bool,
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// The step was done.
    Done,
    /// The step does not apply in this state.
    Nothing,
    /// The constraints contradict each other.
    Contradiction,
    /// The allocator refused the buffer.
    Refused(AllocError),
    /// The trim left idle memory in the reserve.
    Kept(Option<ExchangeError>),
}

/// A running guest, its drivers and the expected state.
pub struct Scene<'a, 'k, 'g> {
    kernel: &'k CheckedKernel<'g>,
    allocator: &'a Allocator<&'k CheckedKernel<'g>>,
    buffers: Vec<LiveBuffer<'a, 'k, 'g>>,
    holds: Vec<(Pfn, Mfn)>,
    total: u64,
    colours: u64,
    /// Frames that Xen got without zeroing, for a permitted reason.
    uncleared: u64,
    /// Whether a fault was armed that may quarantine frames.
    faulty: bool,
    /// Whether the domain was dying, so that a machine frame may have no owner.
    dying: bool,
}

/// Builds a scene, calls `act` with it, and drops it.
pub fn run_scene<R>(setting: &Setting, act: impl FnOnce(&mut Scene<'_, '_, '_>) -> R) -> R {
    let builder = GuestBuilder::new(setting.frames).max_order(setting.max_order).seed(setting.seed);
    let guest = if setting.translated { builder.translated().build() } else { builder.build() };
    guest.xen().set_preempt(setting.preempt);
    let mut bitmap = Vec::new();
    let kernel = CheckedKernel::new(&guest, &mut bitmap);
    // The free frames of a guest that has run for a while hold old bytes.
    guest.paint();
    let allocator = Allocator::new(&kernel, setting.retain);
    let mut scene = Scene {
        kernel: &kernel,
        allocator: &allocator,
        buffers: Vec::new(),
        holds: Vec::new(),
        total: kernel.free_frames(),
        colours: 0,
        uncleared: 0,
        faulty: false,
        dying: false,
    };
    act(&mut scene)
}

impl<'a, 'k, 'g> Scene<'a, 'k, 'g> {
    /// Returns the guest.
    pub const fn guest(&self) -> &'g FakeGuest {
        self.kernel.guest()
    }

    /// Returns the kernel.
    pub const fn kernel(&self) -> &'k CheckedKernel<'g> {
        self.kernel
    }

    /// Returns the allocator.
    pub const fn allocator(&self) -> &'a Allocator<&'k CheckedKernel<'g>> {
        self.allocator
    }

    /// Returns how many buffers drivers have.
    pub const fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// Returns how many frames are quarantined.
    pub fn quarantined(&self) -> u64 {
        accounts(&self.kernel).quarantined()
    }

    /// Runs a step.
    ///
    /// # Panics
    /// If the allocator reports something false.
    pub fn apply(&mut self, step: &Step) -> StepOutcome {
        let outcome = self.perform(step);
        let may_reject = |want: &BufferRequest| want.segments > 1 || want.mask < u64::MAX;
        let may_reject = match step {
            Step::Alloc(want) => may_reject(want),
            Step::Many(wants) => wants.iter().any(may_reject),
            _ => false,
        };
        if may_reject {
            // The allocator returns an extent that it rejects to Xen without zeroing it, because the
            // guest never wrote to it.
            self.uncleared = self.guest().given_up_dirty();
        }
        outcome
    }

    fn perform(&mut self, step: &Step) -> StepOutcome {
        let guest = self.guest();
        match step {
            Step::Alloc(want) => return self.alloc(want),
            Step::Many(wants) => return self.many(wants),
            Step::Drop(index) => {
                if self.buffers.is_empty() {
                    return StepOutcome::Nothing;
                }
                let index = index % self.buffers.len();
                drop(self.buffers.swap_remove(index).buffer);
            }
            Step::Split(index, at) => return self.split(*index, *at),
            Step::Trim => {
                let before = self.allocator.stats();
                let report = self.allocator.trim(u64::MAX);
                // What is returned may count twice: if Xen hands out low memory again, it is returned, too.
                let owned = before.idle + before.lent + before.set_aside;
                assert!(report.freed + report.quarantined <= owned, "{report:?} of {before:?}");
                let after = self.allocator.stats();
                if after.idle + after.set_aside > 0 {
                    assert!(report.error.is_some(), "{report:?} {after:?}");
                    return StepOutcome::Kept(report.error);
                }
            }
            Step::Reclaim(frames) => {
                let idle = self.allocator.stats().idle;
                let freed = self.allocator.reclaim(*frames);
                assert!(freed >= idle.min(*frames), "{freed} of {frames} with {idle} idle");
            }
            Step::Fault { call, errno, after } => {
                self.faulty = true;
                let after = if self.kernel.p2m().is_translated() { 0 } else { *after };
                guest.xen().arm(Fault::refuse(*call, *errno).after(after));
            }
            Step::Stop { call, after } => {
                // Only the operations of a translated guest return how many extents were done.
                if !self.kernel.p2m().is_translated() {
                    return StepOutcome::Nothing;
                }
                self.faulty = true;
                guest.xen().arm(Fault::stop(*call).after(*after));
            }
            Step::ExchangeFault(fault) => {
                if !self.is_detectable(fault) {
                    return StepOutcome::Nothing;
                }
                self.faulty = true;
                self.dying |= *fault == ExchangeFault::Dying;
                guest.xen().arm_exchange(fault.clone());
            }
            Step::Fragment(order) => guest.fragment(Order::new(*order).unwrap_or(Order::ZERO)),
            Step::Exhaust(left) => guest.exhaust_but(*left),
            Step::Relieve => guest.relieve(),
            Step::MaxOrder(order) => guest.set_max_order(*order),
            Step::Deny(deny) => guest.deny_exchange(deny.then_some(XenErrno::EPERM)),
            Step::Hold(index) => {
                let free = self.kernel.free();
                // Xen takes a granted frame of a translated guest without an error
                // ([C76](xen_contig::conformance#C76)). So the kernel itself must not treat a granted
                // frame as free.
                if free.is_empty() || self.kernel.p2m().is_translated() {
                    return StepOutcome::Nothing;
                }
                let pfn = free[index % free.len()];
                guest.hold(pfn);
                self.holds.push((pfn, guest.mfn(pfn).expect("a free frame is populated")));
            }
            Step::Unhold => self.unhold(),
            Step::Touch(vcpu, index) => {
                let free = self.kernel.free();
                if free.is_empty() {
                    return StepOutcome::Nothing;
                }
                guest.read(vcpu % 2, free[index % free.len()], 0);
            }
            Step::NoLists(refuse) => self.kernel.refuse_lists(*refuse),
        }
        StepOutcome::Done
    }

    /// Returns true if the guest can detect the fault.
    ///
    /// It cannot if Xen reports success and names frames that the guest owns already. The trait `Xen`
    /// excludes this.
    fn is_detectable(&self, fault: &ExchangeFault) -> bool {
        let ExchangeFault::Lie(Lie { commit, count, out, .. }) = fault else { return true };
        match out.map(|mfn| self.guest().owner(Mfn::new(mfn))) {
            // The first frame of the extent decides: if Xen refuses to map it, the run is torn.
            Some(Some(Owner::Domain(id))) => id != fake_xen::GUEST,
            // The exchange itself, with its false answer, may assign the frame to the guest.
            Some(Some(Owner::Free)) => !commit,
            Some(_) => true,
            // Without a commit the list still holds guest frame numbers. With a count above 0 the guest
            // reads them as machine frames.
            None => *commit || count.unwrap_or(0) == 0,
        }
    }

    fn unhold(&mut self) {
        for (pfn, mfn) in self.holds.drain(..) {
            // Xen refuses to exchange a frame that a peer maps.
            match self.kernel.guest().mfn(pfn) {
                Some(backing) => {
                    assert_eq!(backing, mfn, "{pfn} was exchanged although a peer maps it");
                    self.kernel.guest().unhold(pfn);
                }
                None => assert!(self.faulty, "{pfn}, which a peer maps, is not populated"),
            }
        }
    }

    fn alloc(&mut self, want: &BufferRequest) -> StepOutcome {
        let Ok(constraints) = want.constraints() else { return StepOutcome::Contradiction };
        match self.allocator.alloc_coherent(want.bytes, &constraints) {
            Ok(buffer) => {
                self.add_buffer(buffer, want, constraints);
                StepOutcome::Done
            }
            Err(error) => StepOutcome::Refused(error),
        }
    }

    fn many(&mut self, wants: &[BufferRequest]) -> StepOutcome {
        let limits = wants.iter().map(BufferRequest::constraints).collect::<Result<Vec<_>, _>>();
        let Ok(limits) = limits else { return StepOutcome::Contradiction };
        let request = |(want, limits): (&BufferRequest, _)| Request::new(want.bytes).within(limits);
        let requests: Vec<_> = wants.iter().zip(&limits).map(request).collect();
        let buffers: Result<Vec<Buffer<'a, 'k, 'g>>, (usize, AllocError)> = match requests[..] {
            [] => return StepOutcome::Nothing,
            [a] => self.allocator.alloc_many(&[a]).map(Vec::from),
            [a, b] => self.allocator.alloc_many(&[a, b]).map(Vec::from),
            [a, b, c] => self.allocator.alloc_many(&[a, b, c]).map(Vec::from),
            [a, b, c, d, ..] => self.allocator.alloc_many(&[a, b, c, d]).map(Vec::from),
        };
        match buffers {
            Ok(buffers) => {
                for ((buffer, want), limits) in buffers.into_iter().zip(wants).zip(limits) {
                    self.add_buffer(buffer, want, limits);
                }
                StepOutcome::Done
            }
            Err((index, error)) => {
                assert!(index < requests.len(), "buffer {index} of {}", requests.len());
                StepOutcome::Refused(error)
            }
        }
    }

    /// Checks a new buffer, writes to it and adds it to the drivers' buffers.
    fn add_buffer(
        &mut self,
        buffer: Buffer<'a, 'k, 'g>,
        want: &BufferRequest,
        constraints: Constraints,
    ) {
        let guest = self.guest();
        assert_eq!(buffer.len(), want.bytes, "{buffer:?}");
        assert_eq!(buffer.frames().frames(), buffer.len().div_ceil(PAGE), "{buffer:?}");
        assert!(buffer.segments().count() <= constraints.max_segments(), "{buffer:?} {want:?}");
        for pfn in buffer.frames().iter() {
            assert_eq!(guest.uniform(pfn), Some(0), "{pfn} of a new {buffer:?} for {want:?}");
        }
        self.colours += 1;
        let colour = 0xb0ff_0000_0000_0000 | self.colours << 20;
        for (page, pfn) in (0..).zip(buffer.frames().iter()) {
            guest.fill(pfn, colour + page);
        }
        self.buffers.push(LiveBuffer { buffer, constraints, colour, cut: false });
    }

    fn split(&mut self, index: usize, at: u64) -> StepOutcome {
        if self.buffers.is_empty() {
            return StepOutcome::Nothing;
        }
        let index = index % self.buffers.len();
        let LiveBuffer { mut buffer, constraints, colour, cut } = self.buffers.swap_remove(index);
        let len = buffer.len();
        match buffer.split_off(at) {
            Ok(right) => {
                assert_eq!((buffer.len(), right.len()), (at, len - at));
                let right_colour = colour + at / PAGE;
                self.buffers.push(LiveBuffer { buffer, constraints, colour, cut });
                let right =
                    LiveBuffer { buffer: right, constraints, colour: right_colour, cut: true };
                self.buffers.push(right);
                StepOutcome::Done
            }
            Err(error) => {
                assert!(!at.is_multiple_of(PAGE) || at == 0 || at >= len, "{error:?}");
                assert_eq!(buffer.len(), len, "the buffer stays whole");
                self.buffers.push(LiveBuffer { buffer, constraints, colour, cut });
                StepOutcome::Nothing
            }
        }
    }

    /// Checks every frame and every buffer.
    ///
    /// # Panics
    /// If a frame is not in exactly one place, or a buffer is wrong.
    pub fn check(&self) {
        let (guest, census) = (self.guest(), self.guest().check());
        let held: Vec<Pfn> =
            self.buffers.iter().flat_map(|live| live.buffer.frames().iter()).collect();
        let (free, stats) = (self.kernel.free(), self.allocator.stats());
        assert_eq!(free.len() as u64, self.kernel.free_frames());
        let reserve = stats.idle + stats.set_aside + stats.records;
        let places = [free.len() as u64, held.len() as u64, reserve, self.quarantined()];
        let sum: u64 = places.iter().sum();
        assert_eq!(
            sum, self.total,
            "free, in buffers, in the reserve, quarantined: {places:?} (M1)"
        );

        let in_use: HashSet<Pfn> = free.iter().chain(&held).copied().collect();
        assert_eq!(
            in_use.len(),
            free.len() + held.len(),
            "a frame is both free and in a buffer (M1)"
        );
        let lost = || census.holes.iter().chain(&census.unmapped);
        for pfn in lost() {
            assert!(!in_use.contains(pfn), "{pfn} is free or in a buffer, and not mapped");
        }
        assert!(lost().count() as u64 <= self.quarantined(), "{census:?}: not all quarantined");
        let (orphans, holes) = (census.orphans.len(), census.holes.len());
        // A machine frame that a dying domain or a translated guest loses has no owner.
        let may_have_no_owner = self.dying || self.kernel.p2m().is_translated();
        assert!(orphans == holes || may_have_no_owner && orphans < holes, "{orphans} of {holes}");
        assert!(self.faulty || self.quarantined() == 0, "quarantined without a fault");
        assert_eq!(guest.given_up_dirty(), self.uncleared, "Xen got frames that were not zeroed");

        let mut machine = HashSet::new();
        for live in &self.buffers {
            self.check_buffer(live, &mut machine);
        }
    }

    fn check_buffer(&self, live: &LiveBuffer<'_, '_, '_>, machine: &mut HashSet<u64>) {
        let LiveBuffer { buffer, constraints, colour, cut } = live;
        let guest = self.guest();
        for (page, pfn) in (0..).zip(buffer.frames().iter()) {
            assert_eq!(guest.uniform(pfn), Some(colour + page), "{pfn} of {buffer:?}");
            let mfn = guest.mfn(pfn).expect("a buffer's frame is populated");
            assert!(machine.insert(mfn.number()), "{mfn} backs two buffers");
        }
        let mut end = 0;
        for segment in buffer.segments() {
            assert_eq!(segment.offset, end, "{buffer:?}");
            end += segment.len;
            let address = segment.dma.get();
            assert!(
                *cut || constraints.admits(address, segment.len),
                "{buffer:?} for {constraints:?}"
            );
            assert!(address >= constraints.lowest());
            assert!(address + (segment.len - 1) <= constraints.mask());
            for page in 0..segment.len.div_ceil(PAGE) {
                let pfn = buffer.frames().first().add(segment.offset / PAGE + page);
                let seen = match self.kernel.p2m().is_translated() {
                    true => pfn.number(),
                    false => guest.mfn(pfn).expect("a buffer's frame is populated").number(),
                };
                assert_eq!(segment.dma.frame().number() + page, seen, "{pfn} of {buffer:?}");
            }
        }
        assert_eq!(end, buffer.len(), "{buffer:?}");
    }

    /// Ends all faults, shortages, denials and mappings of peers.
    pub fn end_disturbances(&mut self) {
        let guest = self.guest();
        guest.xen().disarm();
        guest.relieve();
        guest.deny_exchange(None);
        self.kernel.refuse_lists(false);
        self.unhold();
    }

    /// Ends the scene: drops all buffers and trims all memory. Every frame is then free or quarantined.
    ///
    /// # Panics
    /// If a frame is elsewhere.
    pub fn finish(&mut self) {
        self.end_disturbances();
        self.buffers.clear();
        let report = self.allocator.trim(u64::MAX);
        assert_eq!((self.allocator.stats().idle, report.error), (0, None), "{report:?}");
        self.check();
        assert_eq!(self.kernel.free_frames() + self.quarantined(), self.total);
    }
}

fn accounts<'k>(kernel: &'k &CheckedKernel<'_>) -> &'k Accounts {
    kernel.accounts()
}
