//! Which boots and which calls are shown.

use std::collections::BTreeSet;

use wildmatch::WildMatch;
use xen_contig_trace::{Boot, SpanKind, Trace, TracedCall, TracedSpan};

use crate::filter::Filter;

/// `--boot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// The boot with this number, counted from 1.
    Number(usize),
    /// The last boot of the log.
    Last,
    /// Every boot.
    All,
}

/// A boot that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// The number, counted from 1.
    pub number: usize,
    /// The number of boots that the log has.
    pub of: usize,
    /// The boot.
    pub boot: &'a Boot,
}

impl Boots {
    /// Parses the value of `--boot`.
    pub fn parse(value: &str) -> Result<Self, String> {
        match value {
            "last" => Ok(Self::Last),
            "all" => Ok(Self::All),
            _ => match value.parse() {
                Ok(number) if number > 0 => Ok(Self::Number(number)),
                _ => Err("give a number from 1 on, `last` or `all`".to_owned()),
            },
        }
    }

    /// Returns the chosen boots of a trace that has at least one.
    ///
    /// # Errors
    /// A message, if the trace has fewer boots.
    pub fn choose(self, trace: &Trace) -> Result<Vec<Chosen<'_>>, String> {
        let of = trace.boots.len();
        let chosen = |index: usize| Chosen { number: index + 1, of, boot: &trace.boots[index] };
        match self {
            Self::All => Ok((0..of).map(chosen).collect()),
            Self::Last => Ok(vec![chosen(of - 1)]),
            Self::Number(number) if number <= of => Ok(vec![chosen(number - 1)]),
            Self::Number(number) => {
                Err(format!("--boot {number}: the log has {of} boots; `--boot all` shows them"))
            }
        }
    }
}

impl Chosen<'_> {
    /// Returns the line that tells a boot from the others.
    pub fn heading(&self) -> String {
        let Self { number, of, boot } = *self;
        let domain = boot.domain.map_or(String::new(), |domain| format!(", domain {domain}"));
        format!("# boot {number} of {of}: line {} of the log{domain}", boot.line)
    }
}

/// Which calls of a boot are shown.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `-e`
    pub filter: Filter,
    /// `--test`
    pub test: Option<WildMatch>,
    /// `--vcpu`
    pub vcpu: Option<u32>,
    /// `--errors`
    pub errors: bool,
}

impl Selection {
    /// Returns true if the call is shown.
    pub fn picks(&self, boot: &Boot, call: &TracedCall) -> bool {
        (!self.errors || call.is_error())
            && self.picks_vcpu(call.vcpu)
            && self.filter.picks(call)
            && self.picks_test(boot.test_of(call))
    }

    /// Returns true if the calls of the span can be shown.
    pub fn picks_span(&self, boot: &Boot, span: &TracedSpan) -> bool {
        let test = match span.kind {
            SpanKind::Test => Some(span),
            _ => boot.ancestors(span.parent).find(|outer| outer.kind == SpanKind::Test),
        };
        self.picks_vcpu(span.vcpu) && self.picks_test(test)
    }

    /// Iterates over the calls that are shown.
    pub fn calls<'a>(&'a self, boot: &'a Boot) -> impl Iterator<Item = &'a TracedCall> {
        boot.calls.iter().filter(|call| self.picks(boot, call))
    }

    /// Checks that the test and the vCPU exist.
    ///
    /// # Errors
    /// A message that lists what exists.
    pub fn check(&self, boots: &[Chosen<'_>]) -> Result<(), String> {
        let spans = || boots.iter().flat_map(|chosen| &chosen.boot.spans);
        if let Some(pattern) = &self.test {
            let tests = spans().filter(|span| span.kind == SpanKind::Test);
            let names: BTreeSet<&str> = tests.map(|test| test.name.as_str()).collect();
            if !names.iter().any(|name| pattern.matches(name)) {
                let names = names.into_iter().collect::<Vec<_>>().join(" ");
                let names = if names.is_empty() { "none in this boot" } else { &names };
                return Err(format!("--test {pattern}: no test has such a name\ntests: {names}"));
            }
        }
        let highest = boots.iter().map(|chosen| chosen.boot.vcpu_count()).max().unwrap_or(1);
        match self.vcpu {
            Some(vcpu) if vcpu >= highest => {
                Err(format!("--vcpu {vcpu}: the guest has the vCPUs 0 to {}", highest - 1))
            }
            _ => Ok(()),
        }
    }

    /// Returns true if what this vCPU did is shown.
    pub fn picks_vcpu(&self, vcpu: u32) -> bool {
        self.vcpu.is_none_or(|only| only == vcpu)
    }

    fn picks_test(&self, test: Option<&TracedSpan>) -> bool {
        let Some(pattern) = &self.test else { return true };
        test.is_some_and(|test| pattern.matches(&test.name))
    }
}
