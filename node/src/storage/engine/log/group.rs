//! Groups: the records of one sync.
//!
//! Shape: whole blocks: checksum (16), magic (4), length of the whole group (4), epoch of the segment (8), record count (4),
//! bytes of records (4), lsn of the first record (8), of the last (8), of the last before the group (8); then the records;
//! zeros up to the block's edge. Record = lsn (8), flags (1; bit 0: heals), row key length (4), delta length (4), row key,
//! delta. Integers big-endian. A closing group has no records; its three lsns are the same.
//! Invariants: the checksum (blake3, first 16 bytes) covers the store's id, the group's offset in its file and every byte
//! behind the checksum, padding too: a group is nothing anywhere but where it was written, and no flipped bit passes. No
//! claimed length or count is believed before it fits what is there.

use bytes::Bytes;
use shoal_protocol::id::Lsn;

use crate::storage::effect::Record;
use crate::storage::key::RowKey;

use super::block::{BLOCK_BYTES, whole_blocks};

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) store_id: u64,
    pub(super) epoch: u64,
    /// In the segment's file.
    pub(super) offset: u64,
}

/// A group whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub(super) epoch: u64,
    /// The whole group, as it stands.
    pub(super) whole: &'a [u8],
    pub(super) records_count: u32,
    pub(super) first: Lsn,
    pub(super) last: Lsn,
    /// The last record before this group.
    pub(super) previous: Lsn,
    body: &'a [u8],
}

impl<'a> Group<'a> {
    /// The group at `offset` of the file of `bytes`; `None` if there is none, or none that can be trusted.
    pub(super) fn read(bytes: &'a [u8], store_id: u64, offset: usize) -> Option<Self> {
        let rest = bytes.get(offset..)?;
        let mut fields = Fields(rest.get(..HEAD_BYTES)?);
        let sum = fields.take::<CHECKSUM_BYTES>()?;
        let magic = fields.take::<4>()?;
        let whole = rest.get(..fields.length()?)?;
        if magic != MAGIC || whole.len() < HEAD_BYTES || !whole.len().is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        let epoch = fields.number()?;
        if sum != checksum(store_id, offset as u64, &whole[CHECKSUM_BYTES..]) {
            return None;
        }
        let records_count = u32::from_be_bytes(fields.take()?);
        let body = whole[HEAD_BYTES..].get(..fields.length()?)?;
        let [first, last, previous] = [fields.lsn()?, fields.lsn()?, fields.lsn()?];
        Some(Self { epoch, whole, records_count, first, last, previous, body })
    }

    /// The records; `None` if they are not what a writer of this version writes.
    pub(super) fn records(&self) -> Option<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        let mut body = Fields(self.body);
        let mut previous = self.previous;
        for _ in 0..self.records_count {
            let record = body.record()?;
            if record.lsn <= previous {
                return None;
            }
            previous = record.lsn;
            records.push(record);
        }
        let first = records.first().map_or(self.previous, |record| record.lsn);
        (body.0.is_empty() && first == self.first && previous == self.last).then_some(records)
    }
}

/// Bytes of a group of `records`.
pub(super) fn group_bytes(records: &[Record]) -> usize {
    whole_blocks(HEAD_BYTES + records.iter().map(record_bytes).sum::<usize>())
}

/// How many of `records`, from the first on, make a group that fits into `room` bytes.
pub(super) fn fitting(records: &[Record], room: u64) -> usize {
    let mut bytes = HEAD_BYTES;
    let mut count = 0;
    for record in records {
        bytes += record_bytes(record);
        if whole_blocks(bytes) as u64 > room || (count > 0 && bytes > GROUP_BYTES_MAX) {
            break;
        }
        count += 1;
    }
    count
}

/// Writes the group of `records`, which follow the record `previous`, over the whole of `out`.
pub(super) fn write(out: &mut [u8], place: Place, previous: Lsn, records: &[Record]) {
    let body_bytes: usize = records.iter().map(record_bytes).sum();
    let first = records.first().map_or(previous, |record| record.lsn);
    let last = records.last().map_or(previous, |record| record.lsn);
    let mut writer = Writer { out, at: CHECKSUM_BYTES };
    writer.put(&MAGIC);
    writer.put_length(writer.out.len());
    writer.put(&place.epoch.to_be_bytes());
    writer.put_length(records.len());
    writer.put_length(body_bytes);
    for lsn in [first, last, previous] {
        writer.put(&lsn.0.to_be_bytes());
    }
    for record in records {
        writer.put(&record.lsn.0.to_be_bytes());
        writer.put(&[u8::from(record.heals)]);
        writer.put_length(record.key.as_bytes().len());
        writer.put_length(record.delta.len());
        writer.put(record.key.as_bytes());
        writer.put(&record.delta);
    }
    let end = writer.at;
    out[end..].fill(0);
    let (sum, rest) = out.split_at_mut(CHECKSUM_BYTES);
    sum.copy_from_slice(&checksum(place.store_id, place.offset, rest));
}

fn record_bytes(record: &Record) -> usize {
    RECORD_HEAD_BYTES + record.key.as_bytes().len() + record.delta.len()
}

fn checksum(store_id: u64, offset: u64, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&store_id.to_be_bytes());
    hasher.update(&offset.to_be_bytes());
    hasher.update(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    sum
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn put_length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("records came in frames, which are far below 4 GiB");
        self.put(&length.to_be_bytes());
    }
}

/// What is still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn lsn(&mut self) -> Option<Lsn> {
        self.number().map(Lsn)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.take()?)).ok()
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn record(&mut self) -> Option<Record> {
        let lsn = self.lsn()?;
        let [flags] = self.take()?;
        let (key_bytes, delta_bytes) = (self.length()?, self.length()?);
        let key = RowKey::decode(Bytes::copy_from_slice(self.bytes(key_bytes)?))?;
        let delta = Bytes::copy_from_slice(self.bytes(delta_bytes)?);
        (flags <= 1).then_some(Record { lsn, key, delta, heals: flags == 1 })
    }
}

/// Larger groups are made only of a single record: one buffer of this size is kept, and no sync waits for more.
pub(super) const GROUP_BYTES_MAX: usize = 4 << 20;
const MAGIC: [u8; 4] = *b"SGR1";
const CHECKSUM_BYTES: usize = 16;
const HEAD_BYTES: usize = CHECKSUM_BYTES + 4 + 4 + 8 + 4 + 4 + 3 * 8;
const RECORD_HEAD_BYTES: usize = 8 + 1 + 4 + 4;

#[cfg(test)]
mod tests {
    use shoal_protocol::address;
    use shoal_protocol::id::{Class, KeyspaceId, Partition};

    use super::*;

    const PLACE: Place = Place { store_id: 7, epoch: 3, offset: 4096 };

    fn record(lsn: u64, delta_bytes: usize) -> Record {
        let place = address::Place { keyspace: KeyspaceId(9), collection: "c".into(), key: format!("{lsn}").into() };
        let key = RowKey::new(Partition { class: Class { n: 3, r: 0, w: 0 }, index: 7 }, &place);
        Record { lsn: Lsn(lsn), key, delta: vec![b'd'; delta_bytes].into(), heals: lsn.is_multiple_of(2) }
    }

    /// A file with one group behind its first block.
    fn file(records: &[Record]) -> Vec<u8> {
        let mut file = vec![0; BLOCK_BYTES + group_bytes(records)];
        write(&mut file[BLOCK_BYTES..], PLACE, Lsn(4), records);
        file
    }

    #[test]
    fn a_group_comes_back_whole_at_its_own_place_only() {
        let records = [record(5, 100), record(8, 0), record(9, 5_000)];
        let file = file(&records);
        let group = Group::read(&file, 7, BLOCK_BYTES).unwrap();
        assert_eq!(group.records(), Some(records.to_vec()));
        assert_eq!((group.epoch, group.first, group.last, group.previous), (3, Lsn(5), Lsn(9), Lsn(4)));
        assert_eq!(group.whole, &file[BLOCK_BYTES..]);
        assert_eq!(Group::read(&file, 8, BLOCK_BYTES), None, "of another store");
        assert_eq!(Group::read(&file[BLOCK_BYTES..], 7, 0), None, "at another place");
        assert_eq!(Group::read(&file[..file.len() - BLOCK_BYTES], 7, BLOCK_BYTES), None, "cut short");
        assert_eq!(Group::read(&file, 7, file.len()), None, "behind the end");
        assert_eq!(Group::read(&[0; 8192], 7, 4096), None, "nothing");
    }

    #[test]
    fn no_flipped_bit_of_a_group_passes() {
        let mut file = file(&[record(5, 10), record(6, 20)]);
        for bit in BLOCK_BYTES * 8..file.len() * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Group::read(&file, 7, BLOCK_BYTES), None, "bit {bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(Group::read(&file, 7, BLOCK_BYTES).is_some());
    }

    #[test]
    fn a_closing_group_has_no_records() {
        let file = file(&[]);
        let group = Group::read(&file, 7, BLOCK_BYTES).unwrap();
        assert_eq!((group.records_count, group.first, group.last), (0, Lsn(4), Lsn(4)));
        assert_eq!(group.records(), Some(Vec::new()));
    }

    #[test]
    fn records_that_do_not_grow_are_not_believed() {
        let file = file(&[record(6, 1), record(5, 1)]);
        assert_eq!(Group::read(&file, 7, BLOCK_BYTES).unwrap().records(), None);
    }

    #[test]
    fn as_many_records_are_taken_as_fit() {
        let records: Vec<_> = (5..105).map(|lsn| record(lsn, 100)).collect();
        for blocks in 1..4 {
            let room = blocks * BLOCK_BYTES as u64;
            let count = fitting(&records, room);
            assert!(group_bytes(&records[..count]) as u64 <= room);
            assert!(group_bytes(&records[..=count]) as u64 > room);
        }
        assert_eq!(fitting(&records, 0), 0);
        let large = [record(5, GROUP_BYTES_MAX), record(6, 1)];
        assert_eq!(fitting(&large, u64::MAX), 1, "a large record is a group of its own");
    }
}
