//! Values of a type in DMA memory.
//!
//! * [`CoherentBox`]: exclusive, until the driver takes the address for its device. References are safe;
//! * [`Coherent`]: shared with a device. It lends cells, and no reference ([M5](crate::rules#M5));
//! * [`DmaCell`]: one value or one field, by [`field!`](crate::field).

mod cell;
mod coherent;
mod device;
mod exclusive;
mod layout;

pub use cell::DmaCell;
pub use coherent::Coherent;
pub use exclusive::CoherentBox;
