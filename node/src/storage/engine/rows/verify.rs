//! Verifying: every row of a partition read, and what is said about them added up again.
//!
//! Shape: one partition at a time, from one snapshot. Rows against their checksums, their objects and, when the digest key
//! is at hand, their digests; buckets and counts against the rows; the feed for an entry per row above its floor.
//! Invariant: a bucket with unreadable rows is compared by its count alone: what it should add up to is not known.
//! Memory: 24 bytes per row of the largest partition.

use std::collections::BTreeSet;

use bytes::Bytes;
use shoal_protocol::id::{Lsn, Partition};
use shoal_protocol::object::{Digest, DigestKey, Object};

use crate::storage::effect::Failure;
use crate::storage::engine::failed;
use crate::storage::key::{PARTITION_BYTES, RowKey, decode_partition, encode_partition, successor};
use crate::storage::row::Row;
use crate::storage::rowset::VerifyReport;

use super::counts::Counts;
use super::digests::{Sums, bucket_of};
use super::feed::{lsn_of, row_key};
use super::snapshot::{ReadBytes, Snapshot};
use super::with_range;

impl Snapshot {
    /// Every partition of which something stands in the file.
    pub(in crate::storage) fn partitions(&self) -> Result<BTreeSet<Partition>, Failure> {
        let mut found = BTreeSet::new();
        for table in [&self.rows, &self.digests, &self.feed, &self.counts] {
            let mut from = Some(Vec::new());
            while let Some(start) = from {
                let Some(pair) = table.range(start.as_slice()..).map_err(failed)?.next() else { break };
                let key = pair.map_err(failed)?.0.value().to_vec();
                from = match key.first_chunk::<PARTITION_BYTES>() {
                    Some(partition) => {
                        found.insert(decode_partition(*partition));
                        successor(partition.to_vec())
                    }
                    None => Some([&key[..], &[0]].concat()),
                };
            }
        }
        Ok(found)
    }

    /// Adds what there is to say about `partition` to `report`.
    pub(in crate::storage) fn verify(
        &self,
        partition: Partition,
        digest_key: Option<&DigestKey>,
        report: &mut VerifyReport,
    ) -> Result<(), Failure> {
        report.partitions += 1;
        let rows = self.verify_rows(partition, digest_key, report)?;
        self.verify_digests(partition, &rows, report)?;
        let (floor, entries) = self.verify_counts(partition, &rows, report)?;
        let found = self.verify_feed(partition, floor, rows.listed, report)?;
        if entries.is_some_and(|entries| entries != found) {
            note(report, || format!("the feed of {partition:?} has {found} entries, not what is counted"));
            report.counts_wrong.push(partition);
        }
        Ok(())
    }

    fn verify_rows(
        &self,
        partition: Partition,
        digest_key: Option<&DigestKey>,
        report: &mut VerifyReport,
    ) -> Result<Rows, Failure> {
        let mut rows = Rows::default();
        for row in range(&self.rows, partition)? {
            let (key, value) = row.map_err(failed)?;
            let Some(key) = RowKey::decode(Bytes::copy_from_slice(key.value())) else {
                note(report, || format!("a row of {partition:?} has no key"));
                report.nameless_count += 1;
                continue;
            };
            report.rows += 1;
            report.rows_bytes += (key.as_bytes().len() + value.value().len()) as u64;
            let row = Row::decode(key.as_bytes(), value.value());
            rows.sums.add(&key, row.as_ref());
            match &row {
                Some(row) => rows.listed.push((row.lsn, key.place().row_hash())),
                None => {
                    rows.unknown.insert(bucket_of(&key.place()));
                }
            }
            let sound = row.is_some_and(|row| {
                let digested = |key_: &DigestKey| Digest::of_encoded(key_, &key.place(), row.object) == row.digest;
                !row.partial && Object::decode(row.object).is_ok() && digest_key.is_none_or(digested)
            });
            if !sound {
                note(report, || format!("the row {key:?} is damaged"));
                report.damaged_rows.push(key);
            }
        }
        Ok(rows)
    }

    fn verify_digests(&self, partition: Partition, rows: &Rows, report: &mut VerifyReport) -> Result<(), Failure> {
        let (stored, damaged) = Sums::read(&self.digests, partition)?;
        for group in damaged {
            note(report, || format!("group {group} of the digests of {partition:?} is damaged"));
        }
        for (bucket, (added, said)) in (0..).zip(rows.sums.iter().zip(stored.iter())) {
            let comparable = !rows.unknown.contains(&bucket);
            if added.count != said.count || comparable && added.sum != said.sum {
                note(report, || format!("bucket {bucket} of {partition:?} is not what its rows add up to"));
                report.digests_wrong.push((partition, bucket));
            }
        }
        Ok(())
    }

    /// The floor of the feed and how many entries it is said to have.
    fn verify_counts(
        &self,
        partition: Partition,
        rows: &Rows,
        report: &mut VerifyReport,
    ) -> Result<(Lsn, Option<u64>), Failure> {
        let key = encode_partition(partition);
        let sealed = self.counts.get(key.as_slice()).map_err(failed)?;
        let counts = sealed.and_then(|sealed| Counts::decode(&key, sealed.value()));
        if counts.is_none_or(|counts| counts.rows != rows.sums.rows_count()) {
            note(report, || format!("the counts of {partition:?} are wrong or unreadable"));
            report.counts_wrong.push(partition);
            return Ok((counts.unwrap_or_default().floor, None));
        }
        Ok(counts.map_or((Lsn::default(), None), |counts| (counts.floor, Some(counts.entries))))
    }

    /// How many entries there are.
    fn verify_feed(
        &self,
        partition: Partition,
        floor: Lsn,
        mut listed: Vec<(Lsn, u64)>,
        report: &mut VerifyReport,
    ) -> Result<u64, Failure> {
        listed.retain(|(lsn, _)| *lsn > floor);
        listed.sort_unstable();
        let mut rows = listed.into_iter().peekable();
        let (mut found, mut missing) = (0, 0);
        for entry in range(&self.feed, partition)? {
            let (key, value) = entry.map_err(failed)?;
            found += 1;
            let row = row_key(key.value(), value.value()).map(|key| key.place().row_hash());
            let entry = lsn_of(key.value()).zip(row);
            let Some((lsn, row)) = entry else {
                note(report, || format!("an entry of the feed of {partition:?} is damaged"));
                report.feed_damaged += 1;
                continue;
            };
            while rows.next_if(|row| row.0 < lsn).is_some() {
                missing += 1;
            }
            rows.next_if_eq(&(lsn, row));
        }
        missing += rows.count() as u64;
        if missing > 0 {
            note(report, || format!("{missing} rows of {partition:?} are not in its feed"));
        }
        report.feed_entries += found;
        report.feed_missing += missing;
        Ok(found)
    }
}

/// What the rows of a partition say.
#[derive(Default)]
struct Rows {
    sums: Sums,
    /// Buckets with unreadable rows.
    unknown: BTreeSet<u16>,
    /// What the feed should list: lsn and row hash.
    listed: Vec<(Lsn, u64)>,
}

type Pairs = redb::Range<'static, &'static [u8], &'static [u8]>;

fn range(table: &ReadBytes, partition: Partition) -> Result<Pairs, Failure> {
    with_range(&encode_partition(partition), |range| table.range::<&[u8]>(range)).map_err(failed)
}

fn note(report: &mut VerifyReport, what: impl FnOnce() -> String) {
    report.first_damage.get_or_insert_with(what);
}
