//! Segments: the log's files, their names and headers.
//!
//! Shape: `log-000001` and so on, of one length, zero-filled when made. The first block is the header: checksum (16: blake3
//! over the rest of the block), magic (8), version (4), store id (8), epoch (8), length of the file (8), lowest lsn that may
//! stand in it (8), last lsn before it (8), zeros. Integers big-endian. Groups follow.
//! Invariants: all that is not zero of a header lies in the first 512 bytes, which disks write whole, so a crash leaves the
//! old header or the new one. A file gets its name when it is full of synced zeros. A header is synced before the first
//! group of its epoch is written, and each use of a file has an epoch above every one before it, in any file.

use std::io;

use redb::StorageBackend;
use shoal_protocol::id::Lsn;

use crate::storage::effect::Failure;
use crate::storage::engine::disk::Disk;

use super::block::{BLOCK_BYTES, Blocks};

/// A segment's file, closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) name: String,
    /// Length of the file.
    pub(super) bytes: u64,
    /// Zero if it was never used.
    pub(super) epoch: u64,
    /// First and last record in it that may be needed.
    pub(super) records: Option<(Lsn, Lsn)>,
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store_id: u64,
    pub(super) epoch: u64,
    /// Length of the file.
    pub(super) bytes: u64,
    /// No record in it is below.
    pub(super) first: Lsn,
    /// The last record before it.
    pub(super) previous: Lsn,
}

impl Header {
    /// The header's block.
    pub(super) fn encode(&self) -> Blocks {
        let mut block = Blocks::zeroed(BLOCK_BYTES);
        let numbers = [self.store_id, self.epoch, self.bytes, self.first.0, self.previous.0];
        let fields = MAGIC.into_iter().chain(VERSION.to_be_bytes());
        let fields = fields.chain(numbers.into_iter().flat_map(u64::to_be_bytes));
        block[CHECKSUM_BYTES..].iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        let sum = checksum(&block[CHECKSUM_BYTES..]);
        block[..CHECKSUM_BYTES].copy_from_slice(&sum);
        block
    }

    /// Reads the block; `None` if it is no header, or damaged.
    ///
    /// # Errors
    /// Another version's or another store's: nothing in the file is to be touched.
    pub(super) fn decode(block: &[u8], store_id: u64) -> Result<Option<Self>, Foreign> {
        let Some((sum, rest)) = block.split_at_checked(CHECKSUM_BYTES) else { return Ok(None) };
        if rest.len() != BLOCK_BYTES - CHECKSUM_BYTES || !rest.starts_with(&MAGIC) || sum != checksum(rest) {
            return Ok(None);
        }
        let (version, rest) = rest[MAGIC.len()..].split_at(4);
        if version != VERSION.to_be_bytes() {
            return Err(Foreign::Version);
        }
        let (numbers, _) = rest.as_chunks::<8>();
        let number = |index: usize| u64::from_be_bytes(numbers[index]);
        if number(0) != store_id {
            return Err(Foreign::Store);
        }
        let (first, previous) = (Lsn(number(3)), Lsn(number(4)));
        Ok(Some(Self { store_id, epoch: number(1), bytes: number(2), first, previous }))
    }
}

/// Why a segment is not ours to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    /// Not the version that this code writes.
    #[error("has another version than {VERSION}")]
    Version,
    /// Written by another store.
    #[error("belongs to another store")]
    Store,
}

/// The segments of a disk by number, which says nothing of their order in the log.
pub(super) fn files<D: Disk>(disk: &D) -> Result<Vec<(u64, String)>, Failure> {
    let names = disk.list()?.into_iter();
    let mut files: Vec<_> = names.filter_map(|name| Some((number_of(&name)?, name))).collect();
    files.sort();
    Ok(files)
}

/// Makes a file of `bytes` zeros, durable under the name of `number`.
pub(super) fn create<D: Disk>(disk: &D, number: u64, bytes: u64) -> Result<Segment, Failure> {
    clear_unfinished(disk)?;
    let name = format!("{PREFIX}{number:06}");
    if let Err(error) = fill(disk, bytes) {
        // The disk may be full: what was taken is given back, if that still works.
        let _ = disk.remove(NEW_FILE);
        return Err(error.into());
    }
    disk.rename(NEW_FILE, &name)?;
    Ok(Segment { name, bytes, epoch: 0, records: None })
}

/// Removes a file whose making was cut short.
pub(super) fn clear_unfinished<D: Disk>(disk: &D) -> Result<(), Failure> {
    if disk.exists(NEW_FILE)? {
        disk.remove(NEW_FILE)?;
    }
    Ok(())
}

fn fill<D: Disk>(disk: &D, bytes: u64) -> io::Result<()> {
    let file = disk.open_log(NEW_FILE)?;
    file.set_len(bytes)?;
    let zeros = Blocks::zeroed(FILL_BYTES);
    let mut offset = 0;
    while offset < bytes {
        let length = usize::try_from(bytes - offset).map_or(FILL_BYTES, |rest| rest.min(FILL_BYTES));
        file.write(offset, &zeros[..length])?;
        offset += length as u64;
    }
    file.sync_data()
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    sum
}

const PREFIX: &str = "log-";
const NEW_FILE: &str = "log.new";
/// Zeros are written so many at a time.
const FILL_BYTES: usize = 1 << 20;
const MAGIC: [u8; 8] = *b"SHOALLOG";
const VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { store_id: 7, epoch: 3, bytes: 65_536, first: Lsn(11), previous: Lsn(10) };

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_passes() {
        let mut block = HEADER.encode();
        assert_eq!(Header::decode(&block, 7), Ok(Some(HEADER)));
        assert_eq!(Header::decode(&block[..100], 7), Ok(None));
        for bit in 0..BLOCK_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&block, 7), Ok(None), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_header_of_another_store_or_version_is_refused() {
        assert_eq!(Header::decode(&HEADER.encode(), 8), Err(Foreign::Store));
        let mut block = HEADER.encode();
        block[CHECKSUM_BYTES + MAGIC.len() + 3] = 2;
        let sum = checksum(&block[CHECKSUM_BYTES..]);
        block[..CHECKSUM_BYTES].copy_from_slice(&sum);
        assert_eq!(Header::decode(&block, 7), Err(Foreign::Version));
    }

    #[test]
    fn all_that_a_header_says_lies_in_one_sector() {
        assert!(HEADER.encode()[512..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn only_segments_have_a_segments_name() {
        assert_eq!(number_of("log-000001"), Some(1));
        assert_eq!(number_of("log-1234567"), Some(1_234_567));
        for name in ["log-00001", "log-00000x", "log.new", "rows.redb", "log-", "log-99999999999999999999"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
