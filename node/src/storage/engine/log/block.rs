//! Blocks: what the log writes and reads.
//!
//! Shape: a buffer of whole blocks whose memory begins at a block's edge, as O_DIRECT wants it: a longer vector, used from
//! its first aligned byte on. Units: a block is 4,096 bytes, the largest unit that today's disks ask for.

use std::ops::{Deref, DerefMut};

/// Bytes of a block. Offsets and lengths in the log's files are multiples of it.
pub const BLOCK_BYTES: usize = 4096;

/// Whole blocks in aligned memory.
#[derive(Debug, Default)]
pub struct Blocks {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Blocks {
    /// As many zeroed blocks as hold `bytes`.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let bytes = whole_blocks(bytes);
        let memory = vec![0; bytes + BLOCK_BYTES];
        let address = memory.as_ptr().addr();
        Self { start: address.next_multiple_of(BLOCK_BYTES) - address, memory, bytes }
    }
}

impl Deref for Blocks {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// The length of the blocks that hold `bytes`.
pub(super) const fn whole_blocks(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_begin_at_a_blocks_edge() {
        for bytes in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 1 << 20] {
            let blocks = Blocks::zeroed(bytes);
            assert!(blocks.len() >= bytes && blocks.len() < bytes + BLOCK_BYTES);
            assert!(blocks.len().is_multiple_of(BLOCK_BYTES));
            assert!(blocks.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
        }
    }
}
