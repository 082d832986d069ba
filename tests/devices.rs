//! The parts of the kernel that deal with devices and need no Xen.

#[path = "../kernel/src/drivers/block_size.rs"]
mod block_size;

use block_size::UnsupportedBlockSize;

#[test]
fn a_disk_has_blocks_of_a_sector_to_a_page() {
    for bytes in [512, 1024, 2048, 4096] {
        assert_eq!(block_size::check(bytes), Ok(bytes));
    }
    for bytes in [0, 1, 256, 511, 513, 520, 4104, 8192, 1 << 31, usize::MAX] {
        assert_eq!(block_size::check(bytes), Err(UnsupportedBlockSize { bytes }));
    }
    assert_eq!(
        block_size::check(0).unwrap_err().to_string(),
        "the first namespace has blocks of 0 bytes, but the driver supports powers of two from 512 to 4096; \
         format it with such blocks (nvme format --block-size=4096), which erases it"
    );
}
