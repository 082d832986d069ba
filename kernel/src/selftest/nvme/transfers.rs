//! Are all bytes transferred, and no others?
//!
//! Each test reads the first half of the disk, and writes and reads a quarter of its own.

use alloc::vec::Vec;
use core::num::NonZeroUsize;
use core::ops::Range;

use dma_api::{CpuDmaBuffer, DmaDirection};
use rdif_block::RequestOp;
use xen_contig::adapters::virtio_drivers::StaticDevice;

use super::{DISK_BYTES, broken, original_byte, start_test_disk};
use crate::drivers::memory::{Kernel, Narrow, Wide};
use crate::drivers::nvme::{AT_A_TIME, NVME, NvmeDisk, NvmeRequest};
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::watch;
use crate::selftest::drivers::{examine, find, is_balanced, nothing_in_reach};
use crate::selftest::soak::random::SoakRandom;
use crate::selftest::{Check, TestContext, TestOutcome, error, fail};

const QUARTER: usize = DISK_BYTES / 4;
/// The part of the disk that the tests only read.
const ORIGINAL: Range<usize> = 0..2 * QUARTER;

/// A piece of the disk, in bytes.
type Piece = Range<usize>;

/// A disk in use by a test.
struct TestedDisk<'c, 'm> {
    context: &'c TestContext<'m>,
    disk: NvmeDisk,
    tally: &'c DriverTally,
}

/// Reads and writes pieces in the order of the disk, each as large as a request can be.
pub fn sequential(context: &TestContext<'_>) -> Check {
    let order = |disk: &NvmeDisk, part: Range<usize>| -> Vec<Piece> {
        let bytes = disk.max_transfer();
        part.clone().step_by(bytes).map(|at| at..(at + bytes).min(part.end)).collect()
    };
    check(context, 2 * QUARTER..3 * QUARTER, &order)
}

/// Reads and writes pieces of random sizes, up to that of the largest request, in random order.
pub fn random(context: &TestContext<'_>) -> Check {
    let seed = context.seed;
    let order = move |disk: &NvmeDisk, part: Range<usize>| -> Vec<Piece> {
        let mut random = SoakRandom::new(seed);
        let block = disk.info().device.logical_block_size;
        let most = (disk.max_transfer() / block) as u64;
        let (mut pieces, mut at) = (Vec::new(), part.start);
        while at < part.end {
            // The exponent is random too, so that many pieces are small.
            let largest = most >> random.below(u64::from(most.ilog2()) + 1);
            let bytes = random.within(1, largest) as usize * block;
            let end = (at + bytes).min(part.end);
            pieces.push(at..end);
            at = end;
        }
        for index in (1..pieces.len()).rev() {
            pieces.swap(index, random.below(index as u64 + 1) as usize);
        }
        pieces
    };
    check(context, 3 * QUARTER..DISK_BYTES, &order)
}

/// Returns the pieces of a part of the disk, in the order in which they are transferred.
type Order<'o> = &'o dyn Fn(&NvmeDisk, Range<usize>) -> Vec<Piece>;

fn check(context: &TestContext<'_>, own: Range<usize>, order: Order<'_>) -> Check {
    let device = find(context, NVME)?;
    nothing_in_reach(context.machine)?;
    drop(device);
    let (middle, tally) = (own.start + own.len() / 2, DriverTally::start("nvme"));
    write_and_read::<Narrow>(context, own.start..middle, order, &tally)?;
    write_and_read::<Wide>(context, middle..own.end, order, &tally)?;
    tally.finish()?;
    is_balanced()
}

fn write_and_read<S: StaticDevice<Platform = Kernel> + 'static>(
    context: &TestContext<'_>,
    own: Range<usize>,
    order: Order<'_>,
    tally: &DriverTally,
) -> Check {
    let device = find(context, NVME)?;
    let disk = start_test_disk::<S>(context, device)?;
    let mut disk = TestedDisk { context, disk, tally };
    let seed = context.seed;
    let as_made = move |at| original_byte(seed, at);
    let written = move |at| !original_byte(seed, at);
    let pieces = order(&disk.disk, own);
    disk.all(RequestOp::Read, &pieces, &as_made)?;
    disk.all(RequestOp::Write, &pieces, &written)?;
    disk.disk.flush().map_err(broken)?;
    disk.all(RequestOp::Read, &pieces, &written)?;
    let pieces = order(&disk.disk, ORIGINAL);
    disk.all(RequestOp::Read, &pieces, &as_made)
}

impl TestedDisk<'_, '_> {
    /// Transfers all pieces, several at a time. `content` is the byte at each offset of the disk.
    fn all(&mut self, op: RequestOp, pieces: &[Piece], content: &dyn Fn(usize) -> u8) -> Check {
        for together in pieces.chunks(AT_A_TIME) {
            self.together(op, together, content)?;
        }
        Ok(())
    }

    fn together(
        &mut self,
        op: RequestOp,
        pieces: &[Piece],
        content: &dyn Fn(usize) -> u8,
    ) -> Check {
        let requests = pieces.iter().map(|piece| self.request(op, piece, content));
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        let buffers = self.disk.transfer(requests).map_err(broken)?;
        for one in watch::take() {
            examine(self.context.machine, &one)?;
        }
        for (piece, buffer) in pieces.iter().zip(&buffers) {
            self.tally.moved(piece.len());
            let bytes = buffer.as_slice_cpu();
            if let Some(offset) =
                (0..piece.len()).find(|it| bytes[*it] != content(piece.start + it))
            {
                let at = piece.start + offset;
                fail!(
                    "{op:?} of bytes {piece:?} of the disk, of {pieces:?}: byte {at} is {:#04x}, \
                     expected {:#04x}",
                    bytes[offset],
                    content(at)
                );
            }
        }
        Ok(())
    }

    /// Returns a request for a piece. The buffer of a write has the content; that of a read has other bytes.
    fn request(
        &self,
        op: RequestOp,
        piece: &Piece,
        content: &dyn Fn(usize) -> u8,
    ) -> Result<NvmeRequest, TestOutcome> {
        let info = self.disk.info();
        let (direction, value): (_, &dyn Fn(usize) -> u8) = match op {
            RequestOp::Read => (DmaDirection::FromDevice, &|at| !content(at) ^ 0x5a),
            _ => (DmaDirection::ToDevice, content),
        };
        let Some(len) = NonZeroUsize::new(piece.len()) else { error!("a piece has no bytes") };
        let align = info.limits.dma.constraints().align;
        let mut buffer = match CpuDmaBuffer::new_zero(self.disk.dma(), len, align, direction) {
            Ok(buffer) => buffer,
            Err(why) => fail!("a buffer of {len} bytes: {why}"),
        };
        let bytes: Vec<u8> = piece.clone().map(value).collect();
        buffer.copy_from_slice_cpu(&bytes);
        let block = (piece.start / info.device.logical_block_size) as u64;
        Ok(NvmeRequest { op, block, buffer })
    }
}
