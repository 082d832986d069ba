//! What every suite works with.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::report::Reporter;
use crate::settings::Settings;
use crate::setup::{self, Bed};
use crate::xen::Xen;

/// What every suite works with.
#[derive(Debug)]
pub struct Context {
    /// What the command line asks for.
    pub settings: Settings,
    /// The image.
    pub image: Vec<u8>,
    /// The repository's root.
    pub root: PathBuf,
}

impl Context {
    /// Makes the bed of the chosen Xen ready, or that of the default release.
    pub fn bed(self: &Arc<Self>, reporter: &mut Reporter) -> Result<Bed> {
        let xen = self.settings.xen.clone().unwrap_or_else(Xen::default_release);
        setup::prepare(&xen, self, reporter)
    }

    /// Makes the bed of the chosen Xen ready, or those of all releases.
    pub fn beds(self: &Arc<Self>, reporter: &mut Reporter) -> Result<Vec<Bed>> {
        let chosen = self.settings.xen.clone().map(|xen| vec![xen]);
        let xens = chosen.unwrap_or_else(Xen::releases);
        xens.iter().map(|xen| setup::prepare(xen, self, reporter)).collect()
    }
}
