//! Bucket digests: what the rows of a partition add up to.
//!
//! Shape: a partition has 1,024 buckets (the top 10 bits of a place's row hash), packed 64 to a group: one sealed value
//! under partition (5), group (1). Body = version (1), bitmap of the buckets that are not empty (8), then for each of those
//! its rows (4) and the sum of their digests modulo 2^128 (16), big-endian. Empty groups are absent.
//! Invariants: an unreadable row counts and adds nothing. What does not add up is never written on: the partition is
//! rebuilt from its rows; a reader adds the rows up itself. Source: DESIGN §7, notes/model.md §4.2.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use redb::ReadableTable;
use shoal_protocol::id::Partition;
use shoal_protocol::object::Digest;

use crate::storage::effect::Failure;
use crate::storage::engine::failed;
use crate::storage::key::{PARTITION_BYTES, RowKey, encode_partition};
use crate::storage::row::{Kind, Row, seal, unseal};
use crate::storage::rowset::{BucketDigest, PartitionDigests};

use super::counts::Counts;
use super::join::{Before, Change};
use super::snapshot::Snapshot;
use super::sorted::Bytes;
use super::with_range;

pub(super) use shoal_protocol::repair::bucket_of;

/// Buckets of a partition.
pub(super) const BUCKETS_COUNT: usize = shoal_protocol::repair::BUCKETS_COUNT as usize;

/// All buckets of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums(Vec<BucketDigest>);

impl Default for Sums {
    fn default() -> Self {
        Self(vec![BucketDigest::default(); BUCKETS_COUNT])
    }
}

impl Sums {
    /// Adds up the rows of `partition`.
    pub(super) fn of_rows(
        rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
        partition: Partition,
    ) -> Result<Self, Failure> {
        let mut sums = Self::default();
        let rows = with_range(&encode_partition(partition), |range| rows.range::<&[u8]>(range)).map_err(failed)?;
        for row in rows {
            let (key, value) = row.map_err(failed)?;
            if let Some(key) = RowKey::decode(bytes::Bytes::copy_from_slice(key.value())) {
                sums.add(&key, Row::decode(key.as_bytes(), value.value()).as_ref());
            }
        }
        Ok(sums)
    }

    /// Adds one row, `None` if it is unreadable.
    pub(super) fn add(&mut self, key: &RowKey, row: Option<&Row<'_>>) {
        let bucket = &mut self.0[usize::from(bucket_of(&key.place()))];
        bucket.count += 1;
        bucket.sum = bucket.sum.wrapping_add(row.map_or(0, |row| row.digest.0));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &BucketDigest> {
        self.0.iter()
    }

    pub(super) fn rows_count(&self) -> u64 {
        self.0.iter().map(|bucket| u64::from(bucket.count)).sum()
    }

    /// Buckets that are not empty.
    pub(super) fn sparse(&self) -> Vec<(u16, BucketDigest)> {
        (0..).zip(&self.0).filter(|(_, bucket)| bucket.count > 0).map(|(index, bucket)| (index, *bucket)).collect()
    }

    /// Writes every group of `partition`, and says how many bytes.
    pub(super) fn write(&self, table: &mut Bytes<'_>, partition: Partition) -> Result<u64, Failure> {
        let mut bytes = 0;
        for (group, buckets) in (0..).zip(self.0.chunks_exact(GROUP_BUCKETS)) {
            let mut full = Group::default();
            full.0.copy_from_slice(buckets);
            bytes += full.write(table, &group_key(partition, group))?;
        }
        Ok(bytes)
    }

    /// What stands in `table`, and the groups in it that are damaged (and empty here).
    pub(super) fn read(
        table: &impl ReadableTable<&'static [u8], &'static [u8]>,
        partition: Partition,
    ) -> Result<(Self, Vec<u8>), Failure> {
        let (mut sums, mut damaged) = (Self::default(), Vec::new());
        for (group, buckets) in (0u8..).zip(sums.0.chunks_exact_mut(GROUP_BUCKETS)) {
            let key = group_key(partition, group);
            if let Some(sealed) = table.get(key.as_slice()).map_err(failed)? {
                match Group::decode(&key, sealed.value()) {
                    Some(read) => buckets.copy_from_slice(&read.0),
                    None => damaged.push(group),
                }
            }
        }
        Ok((sums, damaged))
    }
}

/// Carries `changes`, all of `partition`, over into its digests and says how many bytes that took; `None` if they do not fit
/// what stands there, which is then half done and to be rebuilt.
pub(super) fn update(
    table: &mut Bytes<'_>,
    partition: Partition,
    changes: &[Change<'_>],
) -> Result<Option<u64>, Failure> {
    change_buckets(table, partition, changes.iter().map(|change| (change.bucket, |to: &mut _| carry(to, change))))
}

/// Takes rows that are gone, each with its bucket and its digest if that is known, out of the digests of `partition` and says
/// how many bytes that took; `None` if they do not fit what stands there, which is then half done and to be rebuilt.
pub(super) fn remove(
    table: &mut Bytes<'_>,
    partition: Partition,
    gone: &[(u16, Option<Digest>)],
) -> Result<Option<u64>, Failure> {
    change_buckets(table, partition, gone.iter().map(|(bucket, digest)| (*bucket, |to: &mut _| give_up(to, *digest))))
}

/// Changes buckets, each by what comes with it, until something does not fit.
fn change_buckets(
    table: &mut Bytes<'_>,
    partition: Partition,
    changes: impl Iterator<Item = (u16, impl FnOnce(&mut BucketDigest) -> bool)>,
) -> Result<Option<u64>, Failure> {
    let mut groups: BTreeMap<u8, Group> = BTreeMap::new();
    for (bucket, change) in changes {
        let (index, bucket) = (usize::from(bucket) / GROUP_BUCKETS, usize::from(bucket) % GROUP_BUCKETS);
        let index = u8::try_from(index).expect("a bucket is one of 1,024, a group one of 16");
        let group = match groups.entry(index) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => {
                let key = group_key(partition, index);
                let sealed = table.get(key.as_slice()).map_err(failed)?;
                let group = sealed.map_or(Some(Group::default()), |sealed| Group::decode(&key, sealed.value()));
                let Some(group) = group else { return Ok(None) };
                unread.insert(group)
            }
        };
        if !change(&mut group.0[bucket]) {
            return Ok(None);
        }
    }
    let mut bytes = 0;
    for (index, group) in groups {
        bytes += group.write(table, &group_key(partition, index))?;
    }
    Ok(Some(bytes))
}

/// Whether a row of this digest can have been in a bucket; then it is not any more. Nobody knows what a row without one added.
fn give_up(bucket: &mut BucketDigest, digest: Option<Digest>) -> bool {
    let Some(digest) = digest.filter(|_| bucket.count > 0) else { return false };
    bucket.count -= 1;
    bucket.sum = bucket.sum.wrapping_sub(digest.0);
    bucket.count > 0 || bucket.sum == 0
}

/// Whether `change` fits a bucket.
fn carry(bucket: &mut BucketDigest, change: &Change<'_>) -> bool {
    match change.before {
        Before::Absent => bucket.count += 1,
        Before::Row(digest) if bucket.count > 0 => bucket.sum = bucket.sum.wrapping_sub(digest.0),
        Before::Row(_) | Before::Unreadable => return false,
    }
    bucket.sum = bucket.sum.wrapping_add(change.digest.0);
    true
}

impl Snapshot {
    /// The digests of `partition`, from its rows if what is written of them is damaged.
    pub(in crate::storage) fn digests(&self, partition: Partition) -> Result<PartitionDigests, Failure> {
        let key = encode_partition(partition);
        let counts = self.counts.get(key.as_slice()).map_err(failed)?;
        let counts = counts.map_or(Some(Counts::default()), |sealed| Counts::decode(&key, sealed.value()));
        let (mut sums, damaged) = Sums::read(&self.digests, partition)?;
        let recomputed = !damaged.is_empty() || counts.is_none_or(|counts| counts.rows != sums.rows_count());
        if recomputed {
            sums = Sums::of_rows(&self.rows, partition)?;
        }
        Ok(PartitionDigests { buckets: sums.sparse(), rows_count: sums.rows_count(), recomputed, at: self.at })
    }
}

/// The buckets of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group([BucketDigest; GROUP_BUCKETS]);

impl Default for Group {
    fn default() -> Self {
        Self([BucketDigest::default(); GROUP_BUCKETS])
    }
}

impl Group {
    fn write(&self, table: &mut Bytes<'_>, key: &[u8]) -> Result<u64, Failure> {
        if self.0.iter().all(|bucket| bucket.count == 0) {
            table.remove(key).map_err(failed)?;
            return Ok(0);
        }
        let sealed = self.encode(key);
        table.insert(key, sealed.as_slice()).map_err(failed)?;
        Ok((key.len() + sealed.len()) as u64)
    }

    fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEAD_BYTES + GROUP_BUCKETS * BUCKET_BYTES);
        let present = |(bit, bucket): (u32, &BucketDigest)| u64::from(bucket.count > 0) << bit;
        let bitmap: u64 = (0..).zip(&self.0).map(present).sum();
        body.push(VERSION);
        body.extend_from_slice(&bitmap.to_be_bytes());
        for bucket in self.0.iter().filter(|bucket| bucket.count > 0) {
            body.extend_from_slice(&bucket.count.to_be_bytes());
            body.extend_from_slice(&bucket.sum.to_be_bytes());
        }
        seal(Kind::Digests, key, &[&body])
    }

    /// `None` if it is damaged.
    fn decode(key: &[u8], sealed: &[u8]) -> Option<Self> {
        let (&version, body) = unseal(Kind::Digests, key, sealed)?.split_first()?;
        let (bitmap, body) = body.split_first_chunk::<8>()?;
        let bitmap = u64::from_be_bytes(*bitmap);
        let (buckets, rest) = body.as_chunks::<BUCKET_BYTES>();
        if version != VERSION || !rest.is_empty() || buckets.len() != bitmap.count_ones() as usize {
            return None;
        }
        let mut group = Self::default();
        let present = (0..).zip(&mut group.0).filter(|(bit, _)| bitmap >> bit & 1 == 1);
        for ((_, bucket), bytes) in present.zip(buckets) {
            let (count, sum) = bytes.split_first_chunk::<4>()?;
            *bucket = BucketDigest { count: u32::from_be_bytes(*count), sum: u128::from_be_bytes(*sum.first_chunk()?) };
        }
        Some(group)
    }
}

fn group_key(partition: Partition, group: u8) -> [u8; PARTITION_BYTES + 1] {
    let [n, r, w, high, low] = encode_partition(partition);
    [n, r, w, high, low, group]
}

const GROUP_BUCKETS: usize = 64;
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8;
const BUCKET_BYTES: usize = 4 + 16;
