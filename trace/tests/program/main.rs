//! The program as its user runs it.

mod perfetto;
mod pipes;
mod run;
mod views;
