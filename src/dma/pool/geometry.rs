//! Where in a chunk its objects lie: pure arithmetic.

/// The shortest way from one object to the next, so that a page has 512 objects at most.
const SHORTEST_STRIDE: u64 = 8;

/// Where in a chunk its objects lie.
///
/// The chunk is cut into windows that no object leaves, each as long as the boundary, or one as
/// long as the chunk. For that to keep objects from crossing a multiple of the boundary, the chunk
/// has to begin at a multiple of [`chunk_align`](Self::chunk_align).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    stride: u64,
    window: u64,
    chunk: u64,
    chunk_align: u64,
}

impl Geometry {
    /// Objects of `size` bytes at multiples of `align` that cross no multiple of `boundary`, in
    /// chunks of `chunk` bytes. `align` and `boundary` are powers of two, the size is not above the
    /// boundary, and the chunk is a multiple of the page size.
    pub fn new(size: u64, align: u64, boundary: Option<u64>, chunk: u64) -> Self {
        let stride = size.max(SHORTEST_STRIDE).next_multiple_of(align);
        // Of a boundary below the stride, every place for an object is a multiple already.
        let window = boundary.filter(|boundary| (stride..chunk).contains(boundary));
        let whole = boundary.map_or(1, |boundary| boundary.min(chunk.next_power_of_two()));
        let (window, chunk_align) = (window.unwrap_or(chunk), align.max(whole));
        Self { size, stride, window, chunk, chunk_align }
    }

    /// Bytes of an object.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a chunk.
    pub const fn chunk(&self) -> u64 {
        self.chunk
    }

    /// What a chunk's address has to be a multiple of.
    pub const fn chunk_align(&self) -> u64 {
        self.chunk_align
    }

    /// How many objects a chunk has room for.
    pub const fn objects(&self) -> u64 {
        let (windows, rest) = (self.chunk / self.window, self.chunk % self.window);
        windows * self.fitting(self.window) + self.fitting(rest)
    }

    /// Where an object begins in its chunk.
    pub const fn offset(&self, object: u64) -> u64 {
        let per_window = self.fitting(self.window);
        object / per_window * self.window + object % per_window * self.stride
    }

    /// How many objects fit one after the other in `bytes` bytes.
    const fn fitting(&self, bytes: u64) -> u64 {
        if bytes < self.size { 0 } else { (bytes - self.size) / self.stride + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of small figures, each object looked at.
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
                        let base = geometry.chunk_align() * 3;
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
        assert_eq!(Geometry::new(1, 1, None, 4096).objects(), 512);
        assert_eq!(Geometry::new(100, 4, None, 4096).objects(), 40);
        assert_eq!(Geometry::new(100, 4, Some(256), 4096).objects(), 32);
        assert_eq!(Geometry::new(4096, 1 << 14, Some(1 << 14), 4096).objects(), 1);
    }
}
