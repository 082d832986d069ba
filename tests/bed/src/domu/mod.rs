//! The image as a domU: a small Linux dom0 runs the real `xl create` for one job after another
//! in one boot, and reports each over a serial port of its own.

mod jobs;
mod report;
mod session;

pub use jobs::DRIVER_DOMAIN;
pub use report::JobReport;
pub use session::{JobResult, SessionSpec, XEN_MIB, judged, judged_with_files, run};
