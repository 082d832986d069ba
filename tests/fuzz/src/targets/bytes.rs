//! Reads numbers from bytes. Past the end all bytes are 0.

/// The remaining bytes of an input.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// Returns true if no byte remains.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let (head, rest) = self.0.split_at(self.0.len().min(N));
        taken[..head.len()].copy_from_slice(head);
        self.0 = rest;
        taken
    }

    /// Reads a number of 8 bits.
    pub fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    /// Reads a number of 16 bits, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// Reads a number of 32 bits, little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Reads a number of 64 bits, little-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// Reads a number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        u64::from(self.u16()) % limit
    }
}
