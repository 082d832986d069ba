//! A script of raw calls, which the model answers as a real Xen does.
//!
//! The self-test `same-script` of the image runs the same script.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fake_xen::{FakeGuest, FakeXen, GuestBuilder, NEIGHBOUR};
use hypercall::ops::Pte;
use hypercall::{DomId, Mfn, Pfn, VirtAddr};
use script::{Script, ScriptGuest, ScriptPage, ScriptResult};
use xen_contig::paging::LinearMapping;

/// The first frame of the run.
const RUN: Pfn = Pfn::new(600);

/// How many frames the maximum is above the guest's number of frames.
const SLACK: u64 = 300;

struct ScriptModel {
    guest: FakeGuest,
    dom0: bool,
    /// The lists, by the frame that contains them.
    lists: RefCell<BTreeMap<Pfn, Box<[u64; 512]>>>,
}

impl ScriptModel {
    fn new(builder: GuestBuilder, dom0: bool) -> Self {
        let builder = builder.max_pages(1024 + SLACK);
        let guest = if dom0 { builder.privileged().max_order(18) } else { builder }.build();
        Self { guest, dom0, lists: RefCell::default() }
    }
}

// SAFETY: the model's frames contain no Rust object. The lists are boxes, which live as long as the
// value.
unsafe impl ScriptGuest for ScriptModel {
    type Xen = FakeXen;

    fn xen(&self) -> &FakeXen {
        self.guest.xen()
    }

    fn is_dom0(&self) -> bool {
        self.dom0
    }

    fn is_translated(&self) -> bool {
        self.guest.p2m().is_translated()
    }

    fn limit(&self) -> u32 {
        if self.dom0 { 18 } else { 9 }
    }

    fn run(&self) -> Pfn {
        RUN
    }

    fn backing(&self, pfn: Pfn) -> u64 {
        self.guest.p2m().gfn(pfn).expect("a populated frame").number()
    }

    fn record(&self, pfn: Pfn, mfn: u64) {
        self.guest.forge(pfn, Mfn::new(mfn));
    }

    fn entry(&self, pfn: Pfn) -> u64 {
        self.guest.entry(pfn).get()
    }

    fn pte(&self, pfn: Pfn) -> Pte {
        self.guest.linear_entry(pfn)
    }

    fn address(&self, page: ScriptPage) -> VirtAddr {
        match page {
            ScriptPage::Linear(pfn) => self.guest.address(pfn),
            ScriptPage::Alias => self.guest.alias_address(0),
            ScriptPage::Probe => self.guest.alias_address(1),
            ScriptPage::Nowhere => self.guest.alias_address(512),
        }
    }

    fn m2p(&self, mfn: u64) -> Option<u64> {
        self.guest.pfn(Mfn::new(mfn)).map(Pfn::number)
    }

    fn find(&self, pfn: Pfn, fits: &mut dyn FnMut(u64) -> bool) -> Option<u64> {
        let recorded = |mfn: &u64| self.m2p(*mfn) == Some(pfn.number());
        (0..self.guest.xen().machine_frames()).find(|mfn| recorded(mfn) && fits(*mfn))
    }

    fn hole(&self) -> u64 {
        2048
    }

    fn unowned(&self) -> Option<u64> {
        // This frame belongs to the model itself, as it belongs to Xen on a real machine.
        Some(2)
    }

    fn other_domain(&self) -> DomId {
        NEIGHBOUR
    }

    fn list(&self, pfn: Pfn) -> *mut u64 {
        let mut lists = self.lists.borrow_mut();
        let list = lists.entry(pfn).or_insert_with(|| {
            let list = Box::new([0; 512]);
            self.guest.place(&*list, pfn);
            list
        });
        list.as_mut_ptr()
    }
}

/// Runs a script, and checks every answer and at the end the guest.
fn check_same(model: &ScriptModel, script: Script) {
    let mut text = String::new();
    script.unpack(&mut text).expect("memory is available");
    let mut transcript = String::new();
    let verdict = script::run(model, &text, |call, answer| {
        transcript.extend([call, "\n", answer, "\n"]);
    });
    match verdict {
        ScriptResult::Same { calls } => assert!(calls > 0),
        ScriptResult::Differs { line, call, expected, answer } => panic!(
            "{transcript}\nline {line}: `{call}`: expected `{expected}`, the model: `{answer}`"
        ),
    }
    model.guest.check_whole();
}

#[test]
fn the_model_answers_a_pv_domu_as_xen_does() {
    check_same(&ScriptModel::new(GuestBuilder::new(1024), false), script::PV);
}

#[test]
fn the_model_answers_a_pv_dom0_as_xen_does() {
    check_same(&ScriptModel::new(GuestBuilder::new(1024), true), script::PV);
}

#[test]
fn the_model_answers_a_translated_guest_as_xen_does() {
    for dom0 in [false, true] {
        check_same(
            &ScriptModel::new(GuestBuilder::new(1024).translated(), dom0),
            script::TRANSLATED,
        );
    }
}

#[test]
fn a_packed_script_has_every_line() {
    for (script, text) in [
        (script::PV, include_str!("script/pv.txt")),
        (script::TRANSLATED, include_str!("script/translated.txt")),
    ] {
        let mut unpacked = String::new();
        script.unpack(&mut unpacked).expect("memory is available");
        let expected = text.lines().map(|line| if line.starts_with('#') { "" } else { line });
        assert!(unpacked.lines().eq(expected));
    }
}

#[test]
fn an_answer_that_differs_is_named() {
    let model = ScriptModel::new(GuestBuilder::new(1024), false);
    let verdict =
        script::run(&model, "# C05\n\nexchange 1x0 r0 for 1x0 r0 count=2\n= 0\n", |_, _| ());
    let ScriptResult::Differs { line, call, expected, answer } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((line, call, expected), (3, "exchange 1x0 r0 for 1x0 r0 count=2", "= 0"));
    assert_eq!(&*answer, "= EINVAL done=2");
}
