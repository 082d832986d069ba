//! The messages of driver crates, which use the crate `log`.

use log::{LevelFilter, Log, Metadata, Record};

use crate::say;

/// Prints warnings and errors of driver crates: their error types often do not have the cause.
struct DriverMessages;

impl Log for DriverMessages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            say!("# {}: {}", record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Prints the messages of driver crates from now on. Later calls have no effect.
pub fn print() {
    if log::set_logger(&DriverMessages).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
