//! Pictures: drawn by plotters as SVG, in colours that the page's style chooses, so that they can be
//! read on a light and on a dark ground.

mod axis;
pub mod bars;
mod canvas;
pub mod frames;
pub mod timeline;

pub use canvas::{Drawn, Series};
