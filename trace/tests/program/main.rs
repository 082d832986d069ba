//! The program as its user runs it.

mod perfetto;
mod pipes;
mod real;
mod run;
mod views;
