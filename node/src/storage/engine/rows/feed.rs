//! The change feed: which rows of a partition changed, in the order of their lsns.
//!
//! Shape: partition (5), lsn (8, big-endian) -> sealed: version (1), the row key behind its partition. Appended by every
//! chunk; an entry is stale once its row has another lsn. Beyond twice the rows (and a slack, so that a handful of busy rows
//! keeps some history) the head is cut off and the floor rises to the last entry cut: appending costs what it appends.
//! Invariants: every row whose lsn is above the floor has an entry. An entry that cannot be read is a hole: a reader is told
//! a floor above it, as if everything up to there had been cut off.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use redb::ReadableTable;
use shoal_protocol::id::{Lsn, Partition};

use crate::storage::effect::Failure;
use crate::storage::engine::failed;
use crate::storage::key::{PARTITION_BYTES, RowKey, encode_partition};
use crate::storage::row::{Kind, Row, seal, unseal};
use crate::storage::rowset::{FeedRow, FeedRows};

use super::counts::Counts;
use super::snapshot::Snapshot;
use super::sorted::{self, Pair, write_sorted};
use super::with_range;

/// One entry on its way into the feed.
pub(super) struct FeedEntry {
    key: [u8; KEY_BYTES],
    value: Vec<u8>,
}

impl FeedEntry {
    pub(super) fn new(row: &RowKey, lsn: Lsn) -> Self {
        let key = feed_key(row.partition(), lsn);
        Self { key, value: seal(Kind::Feed, &key, &[&[VERSION], &row.as_bytes()[PARTITION_BYTES..]]) }
    }
}

impl Pair for FeedEntry {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Lists the rows with these lsns, counts them, and says how many bytes that took.
pub(super) fn append(
    feed: &mut sorted::Bytes<'_>,
    counts: &mut Counts,
    mut entries: Vec<FeedEntry>,
) -> Result<u64, Failure> {
    entries.sort_by_key(|entry| entry.key);
    let mut bytes = 0;
    write_sorted(feed, &entries, usize::MAX, |entry, old| {
        match old {
            Some(old) if old == entry.value => return Ok(None),
            Some(old) if unseal(Kind::Feed, &entry.key, old).is_some() => return Err(claimed_twice()),
            Some(_) => {}
            None => counts.entries += 1,
        }
        bytes += (entry.key.len() + entry.value.len()) as u64;
        Ok(Some(Cow::Borrowed(&*entry.value)))
    })?;
    Ok(bytes)
}

/// Two rows in one place of the feed: one of them would never be listed.
pub(super) fn claimed_twice() -> Failure {
    Failure::Damaged { reason: "two rows have one lsn".into() }
}

/// Cuts off what is beyond two entries per row and `slack` more.
pub(super) fn trim(
    feed: &mut sorted::Bytes<'_>,
    counts: &mut Counts,
    partition: Partition,
    slack: u64,
) -> Result<(), Failure> {
    let surplus = counts.entries.saturating_sub(2 * counts.rows + slack);
    if surplus == 0 {
        return Ok(());
    }
    let (mut last, mut cut) = (None, 0);
    for entry in with_range(&encode_partition(partition), |range| feed.range::<&[u8]>(range)).map_err(failed)? {
        if cut == surplus {
            break;
        }
        last = Some(entry.map_err(failed)?.0.value().to_vec());
        cut += 1;
    }
    if let Some(last) = last {
        let range = (Bound::Included(&encode_partition(partition)[..]), Bound::Included(last.as_slice()));
        feed.retain_in::<&[u8], _>(range, |_, _| false).map_err(failed)?;
        // A key that is none was damaged: the floor stays, and the hole shows when the feed is verified.
        counts.floor = lsn_of(&last).map_or(counts.floor, |lsn| counts.floor.max(lsn));
    }
    // What is counted but not there was lost: verifying says so. Nothing is cut twice for it.
    counts.entries -= surplus;
    Ok(())
}

/// Cuts off everything through an lsn, though it may not be stale.
pub(super) fn cut(
    feed: &mut sorted::Bytes<'_>,
    counts: &mut Counts,
    partition: Partition,
    through: Lsn,
) -> Result<(), Failure> {
    let (from, to) = (encode_partition(partition), feed_key(partition, through));
    let mut cut = 0;
    let range = (Bound::Included(from.as_slice()), Bound::Included(to.as_slice()));
    feed.retain_in::<&[u8], _>(range, |_, _| {
        cut += 1;
        false
    })
    .map_err(failed)?;
    counts.entries = counts.entries.saturating_sub(cut);
    counts.floor = counts.floor.max(through);
    Ok(())
}

impl Snapshot {
    /// The rows of `partition` that changed after `after`, in order: at most `rows_max` of them, ending with the row that
    /// reaches `bytes_max` bytes of objects; one at least.
    pub(in crate::storage) fn feed(
        &self,
        partition: Partition,
        after: Lsn,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<FeedRows, Failure> {
        let (rows_max, bytes_max) = (rows_max.max(1), bytes_max.max(1));
        let mut page = self.empty_page(partition, after)?;
        let (from, to) = (feed_key(partition, after), feed_key(partition, Lsn(u64::MAX)));
        let range = (Bound::Excluded(from.as_slice()), Bound::Included(to.as_slice()));
        let (mut bytes, mut damaged) = (0, BTreeSet::new());
        for (examined, entry) in self.feed.range::<&[u8]>(range).map_err(failed)?.enumerate() {
            if page.rows.len() >= rows_max || bytes >= bytes_max || examined >= EXAMINED_MAX {
                page.finished = false;
                break;
            }
            let (key, value) = entry.map_err(failed)?;
            let Some(lsn) = lsn_of(key.value()) else { continue };
            page.through = lsn;
            let Some(row) = row_key(key.value(), value.value()) else {
                page.floor = page.floor.max(lsn);
                continue;
            };
            match self.listed(row, lsn)? {
                Listed::Stale => {}
                Listed::Row(row) => {
                    bytes += row.object.len();
                    page.rows.push(row);
                }
                Listed::Damaged(key) => {
                    damaged.insert(key);
                }
            }
        }
        page.damaged = damaged.into_iter().collect();
        Ok(page)
    }

    /// Nothing yet, above the floor of `partition`. Without its counts nobody knows that, and the feed says nothing.
    fn empty_page(&self, partition: Partition, after: Lsn) -> Result<FeedRows, Failure> {
        let key = encode_partition(partition);
        let counts = self.counts.get(key.as_slice()).map_err(failed)?;
        let counts = counts.map_or(Some(Counts::default()), |sealed| Counts::decode(&key, sealed.value()));
        Ok(FeedRows {
            rows: Vec::new(),
            damaged: Vec::new(),
            floor: counts.map_or(Lsn(u64::MAX), |counts| counts.floor),
            through: after,
            finished: true,
            at: self.at,
        })
    }

    /// The row that an entry at `lsn` lists.
    fn listed(&self, key: RowKey, lsn: Lsn) -> Result<Listed, Failure> {
        let value = self.rows.get(key.as_bytes()).map_err(failed)?;
        let row = value.as_ref().and_then(|value| Row::decode(key.as_bytes(), value.value()));
        Ok(match row {
            Some(row) if row.lsn != lsn => Listed::Stale,
            Some(row) if !row.partial => Listed::Row(FeedRow { object: Bytes::copy_from_slice(row.object), lsn, key }),
            // Unreadable in part or whole, or gone, though nothing above the floor was dropped.
            Some(_) | None => Listed::Damaged(key),
        })
    }
}

enum Listed {
    Stale,
    Row(FeedRow),
    Damaged(RowKey),
}

/// The row that an entry names; `None` if it is damaged.
pub(super) fn row_key(key: &[u8], sealed: &[u8]) -> Option<RowKey> {
    let (&version, rest) = unseal(Kind::Feed, key, sealed)?.split_first()?;
    let partition = key.get(..PARTITION_BYTES)?;
    (version == VERSION).then(|| RowKey::decode([partition, rest].concat().into()))?
}

/// The lsn in an entry's key.
pub(super) fn lsn_of(key: &[u8]) -> Option<Lsn> {
    let lsn = key.get(PARTITION_BYTES..)?.try_into().ok()?;
    Some(Lsn(u64::from_be_bytes(lsn)))
}

fn feed_key(partition: Partition, lsn: Lsn) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..PARTITION_BYTES].copy_from_slice(&encode_partition(partition));
    key[PARTITION_BYTES..].copy_from_slice(&lsn.0.to_be_bytes());
    key
}

const KEY_BYTES: usize = PARTITION_BYTES + 8;
const VERSION: u8 = 1;
/// Entries looked at for one page, so that a stretch of stale ones does not hold the reader: 65,536 take about 0.1 s.
const EXAMINED_MAX: usize = 1 << 16;
