//! Where in a chunk its objects lie: pure arithmetic.

/// Where in a chunk its objects lie.
///
/// The chunk is cut into windows that no object leaves: windows as long as the boundary, or one as
/// long as the chunk. Objects then cross no multiple of the boundary, if the chunk begins at a
/// multiple of [`chunk_align`](Self::chunk_align).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    stride: u64,
    window: u64,
    chunk: u64,
}

impl Geometry {
    /// Places objects of `size` bytes at multiples of `align` in chunks of `chunk` bytes.
    ///
    /// No object crosses a multiple of `boundary`. `align` and `boundary` are powers of two, and
    /// the size is at most the boundary and the chunk.
    pub fn new(size: u64, align: u64, boundary: Option<u64>, chunk: u64) -> Self {
        let stride = size.next_multiple_of(align);
        // With a boundary below the stride, every object begins at a multiple of the boundary.
        let window = boundary.filter(|boundary| (stride..chunk).contains(boundary));
        Self { size, stride, window: window.unwrap_or(chunk), chunk }
    }

    /// Returns the number that the address of a chunk must be a multiple of.
    pub fn chunk_align(align: u64, boundary: Option<u64>, chunk: u64) -> u64 {
        align.max(boundary.map_or(1, |boundary| boundary.min(chunk.next_power_of_two())))
    }

    /// Returns the bytes of an object.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the number of objects in a chunk.
    pub const fn objects(&self) -> u64 {
        let (windows, rest) = (self.chunk / self.window, self.chunk % self.window);
        windows * self.fitting(self.window) + self.fitting(rest)
    }

    /// Returns where an object begins in its chunk, in bytes.
    pub const fn offset(&self, object: u64) -> u64 {
        let per_window = self.fitting(self.window);
        object / per_window * self.window + object % per_window * self.stride
    }

    /// Returns how many objects fit into `bytes` bytes.
    const fn fitting(&self, bytes: u64) -> u64 {
        if bytes < self.size { 0 } else { (bytes - self.size) / self.stride + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks each object of every combination of small figures.
    #[test]
    fn objects_keep_apart_and_within_every_rule() {
        let powers = |to: u32| (0..=to).map(|bit| 1_u64 << bit);
        for chunk in [4096, 8192, 12288, 20480] {
            let sizes =
                (1..40).chain([63, 64, 65, 100, 500, 512, 1000, 2048, 4000, 4096, 6000, 12288]);
            for size in sizes.filter(|size| *size <= chunk) {
                for align in powers(15) {
                    let boundaries = powers(16).filter(|boundary| *boundary >= size).map(Some);
                    for boundary in boundaries.chain([None]) {
                        let geometry = Geometry::new(size, align, boundary, chunk);
                        let base = Geometry::chunk_align(align, boundary, chunk) * 3;
                        let mut end = 0;
                        assert!(geometry.objects() > 0, "{geometry:?}");
                        for object in 0..geometry.objects() {
                            let offset = geometry.offset(object);
                            assert!(offset >= end, "{geometry:?}");
                            end = offset + size;
                            assert!(end <= chunk, "{geometry:?}");
                            assert!((base + offset).is_multiple_of(align), "{geometry:?}");
                            if let Some(boundary) = boundary {
                                let side = |byte: u64| (base + byte) / boundary;
                                assert_eq!(side(offset), side(end - 1), "{geometry:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_room_is_wasted_where_none_needs_to_be() {
        assert_eq!(Geometry::new(64, 64, None, 4096).objects(), 64);
        assert_eq!(Geometry::new(1, 1, None, 4096).objects(), 4096);
        assert_eq!(Geometry::new(100, 4, None, 4096).objects(), 40);
        assert_eq!(Geometry::new(100, 4, Some(256), 4096).objects(), 32);
        assert_eq!(Geometry::new(4096, 1 << 14, Some(1 << 14), 4096).objects(), 1);
    }
}
