//! The guest's `probe:` line, and what was asked of it.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// How the guest's line begins.
pub const PROBE: &str = "probe: ";

/// What a guest was asked to allocate, and the seed of its pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The buffer has `1 << order` pages.
    pub order: u32,
    /// It lies below `1 << bits`.
    pub bits: u32,
    /// Page `i` begins with `seed + i`.
    pub seed: u64,
}

impl FromStr for ProbeRequest {
    type Err = Error;

    /// Reads `<order>:<bits>`; the seed is chosen apart.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadProbe { given: text.to_owned() };
        let (order, bits) = text.split_once(':').ok_or_else(bad)?;
        let order = order.parse().ok().filter(|order| *order <= 18).ok_or_else(bad)?;
        let bits = bits.parse().ok().filter(|bits| (1..=64).contains(bits)).ok_or_else(bad)?;
        Ok(Self { order, bits, seed: 0 })
    }
}

/// What the guest claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeClaim {
    /// As asked.
    pub request: ProbeRequest,
    /// How many pages it says there are.
    pub pages: u64,
    /// Where in the machine the first is.
    pub maddr: u64,
    /// The guest's own number of the first.
    pub pfn: u64,
}

impl ProbeClaim {
    /// Reads the line; every field once, in order, and nothing besides.
    pub fn parse(line: &str) -> Result<Self, String> {
        let malformed = || format!("the probe line is malformed: `{line}`");
        let mut words = line.strip_prefix(PROBE).ok_or_else(malformed)?.split(' ');
        let mut field = |name: &str| {
            let word = words.next()?;
            word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
        };
        let mut decimal = |name: &str| field(name)?.parse::<u64>().ok();
        let order = decimal("order").ok_or_else(malformed)?;
        let bits = decimal("bits").ok_or_else(malformed)?;
        let seed = decimal("seed").ok_or_else(malformed)?;
        let pages = decimal("pages").ok_or_else(malformed)?;
        let mut hex = |name: &str| u64::from_str_radix(field(name)?.strip_prefix("0x")?, 16).ok();
        let maddr = hex("maddr").ok_or_else(malformed)?;
        let pfn = hex("pfn").ok_or_else(malformed)?;
        if words.next().is_some() {
            return Err(malformed());
        }
        let order = u32::try_from(order).map_err(|_| malformed())?;
        let bits = u32::try_from(bits).map_err(|_| malformed())?;
        Ok(Self { request: ProbeRequest { order, bits, seed }, pages, maddr, pfn })
    }
}

impl fmt::Display for ProbeClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProbeRequest { order, bits, seed } = self.request;
        let Self { pages, maddr, pfn, .. } = self;
        write!(
            f,
            "order={order} bits={bits} seed={seed} pages={pages} maddr={maddr:#x} pfn={pfn:#x}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "probe: order=2 bits=32 seed=77 pages=4 maddr=0x3c000 pfn=0x1f";

    #[test]
    fn the_line_is_read_and_written_alike() {
        let probe = ProbeClaim::parse(LINE).unwrap();
        assert_eq!(probe.maddr, 0x3c000);
        assert_eq!(format!("{PROBE}{probe}"), LINE);
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for (from, to) in [
            ("order=2", "order=x"),
            ("seed=77 ", ""),
            ("pages=4", "pages=0x4"),
            ("maddr=0x3c000", "maddr=3c000"),
            ("pfn=0x1f", "pfn=0x1f more=1"),
            ("pfn=0x1f", "pfn="),
        ] {
            assert!(ProbeClaim::parse(&LINE.replace(from, to)).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_request_names_order_and_bits() {
        let request: ProbeRequest = "9:32".parse().unwrap();
        assert_eq!((request.order, request.bits), (9, 32));
        for bad in ["9", "9:", ":32", "19:32", "9:65", "9:0", "a:b"] {
            assert!(bad.parse::<ProbeRequest>().unwrap_err().to_string().contains(bad), "{bad}");
        }
    }
}
