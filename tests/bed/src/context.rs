//! What every suite works with.

use std::path::PathBuf;

use crate::cli::Cli;
use crate::error::Result;
use crate::progress::ProgressLog;
use crate::setup::{self, Bed, SetupOptions};

/// What every suite works with.
#[derive(Clone, Debug)]
pub struct SuiteContext {
    /// The command line.
    pub cli: Cli,
    /// How a bed is made.
    pub options: SetupOptions,
    /// The image.
    pub image: Vec<u8>,
    /// The repository's root.
    pub root: PathBuf,
}

impl SuiteContext {
    /// Makes the bed of the chosen Xen ready.
    pub fn bed(&self, progress: &mut ProgressLog) -> Result<Bed> {
        setup::prepare(self.cli.xen, &self.options, progress)
    }

    /// Makes the beds of all Xens ready, or that of the chosen one.
    pub fn beds(&self, progress: &mut ProgressLog) -> Result<Vec<Bed>> {
        self.cli
            .xens()
            .into_iter()
            .map(|xen| setup::prepare(xen, &self.options, progress))
            .collect()
    }
}
