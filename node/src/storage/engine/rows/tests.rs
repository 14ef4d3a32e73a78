//! The rows file against a naive reading of it.
//!
//! Judged by what stands in the table `rows` itself: digests, counts and feed must describe exactly that after any
//! sequence of flushes, repeated and cut-short ones, loads, healing and damage. Damage is a flipped bit of a stored value.

mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proptest::prelude::*;
use redb::ReadableTable;
use redb::backends::InMemoryBackend;
use shoal_protocol::address::Place;
use shoal_protocol::causality::Dot;
use shoal_protocol::id::{Actor, Class, Lsn, Partition};
use shoal_protocol::object::{Element, Mint, Object, Operation, Value, bind};
use shoal_protocol::time::Hlc;

use super::*;
use crate::storage::dropping::{DropId, DropRows};
use crate::storage::effect::{Flush, ScanId, ScanRequest, StoreDone};
use crate::storage::key::{Extent, RowKey, RowRange, decode_partition, encode_partition};
use crate::storage::memtable::{Delta, Memtable};
use crate::storage::row::Row;
use crate::storage::rowset::{BucketDigest, FeedRows, IngestRow, RowRead, VerifyReport, Written};

const LWW: KeyspaceId = KeyspaceId(2);
const DIGEST_KEY: DigestKey = DigestKey([7; 32]);
const KEYS_COUNT: usize = 12;

/// One step of a history. Rows are named by number, damage by a bit.
#[derive(Clone, Debug)]
enum Step {
    Flush(Vec<(usize, u8)>),
    /// The last flush once more: its outcome was not known.
    Again,
    /// A flush that stops behind so many chunks, then the same from its beginning.
    CutShort(Vec<(usize, u8)>, usize),
    Ingest(Vec<(usize, u8)>),
    /// Each row's whole state, as gathered elsewhere.
    Heal(BTreeSet<usize>),
    /// What stands in one keyspace of a partition, or in all of it, but for the last so many lsns; first cut short.
    Drop(u16, Option<bool>, u64, usize),
    SpoilRow(usize, usize),
    SpoilDigests(u8, usize),
    SpoilCounts(u8, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = || proptest::collection::vec((0..KEYS_COUNT, any::<u8>()), 0..10);
    let step = prop_oneof![
        6 => writes().prop_map(Step::Flush),
        2 => Just(Step::Again),
        3 => (writes(), 0..4usize).prop_map(|(writes, chunks)| Step::CutShort(writes, chunks)),
        3 => writes().prop_map(Step::Ingest),
        1 => proptest::collection::btree_set(0..KEYS_COUNT, 1..3).prop_map(Step::Heal),
        2 => (0..2u16, any::<Option<bool>>(), 0..8u64, 0..3usize).prop_map(|(at, lww, kept, chunks)| Step::Drop(at, lww, kept, chunks)),
        1 => (0..KEYS_COUNT, any::<usize>()).prop_map(|(row, bit)| Step::SpoilRow(row, bit)),
        1 => (any::<u8>(), any::<usize>()).prop_map(|(which, bit)| Step::SpoilDigests(which, bit)),
        1 => (any::<u8>(), any::<usize>()).prop_map(|(which, bit)| Step::SpoilCounts(which, bit)),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #[test]
    fn digests_counts_and_feed_describe_exactly_the_rows(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        for partition in world.partitions() {
            world.writer.rebuild(partition).unwrap();
        }
        world.spoiled.clear();
        world.check();
    }
}

/// Small, so that chunks end and feeds are cut in short histories.
const BOUNDS: Bounds = Bounds { rows_max: 3, bytes_max: 600, feed_slack: 4 };

struct World {
    writer: RowsWriter,
    /// What rows should hold, the damaged ones aside.
    model: BTreeMap<RowKey, Object>,
    /// Rows whose whole state is not in the file.
    damaged: BTreeSet<RowKey>,
    /// Partitions in which more than rows was damaged.
    spoiled: BTreeSet<Partition>,
    last_flush: Option<Flush>,
    dots: u64,
    lsn: u64,
}

impl World {
    fn new() -> Self {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        begin(&database, 1).unwrap();
        let mut writer = RowsWriter::open(database, 1, 0).unwrap();
        writer.bounds = BOUNDS;
        let (model, damaged, spoiled) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { writer, model, damaged, spoiled, last_flush: None, dots: 0, lsn: 0 }
    }

    /// Every row written once.
    fn flushed() -> Self {
        let mut world = Self::new();
        world.step(Step::Flush((0..KEYS_COUNT).map(|row| (row, 3)).collect()));
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Flush(writes) => {
                let work = self.work(&writes);
                self.flush(work);
            }
            Step::Again => {
                if let Some(work) = self.last_flush.clone() {
                    // A whole state makes up for what was damaged since it was flushed.
                    let healed = work.rows.iter().filter(|(_, entry)| entry.heals);
                    healed.for_each(|(key, _)| _ = self.damaged.remove(key));
                    self.flush(work);
                }
            }
            Step::CutShort(writes, chunks) => {
                let work = self.work(&writes);
                let mut left = chunks;
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    self.writer.flush(&work, &mut |_| {
                        // resume_unwind prints nothing.
                        left = left.checked_sub(1).unwrap_or_else(|| std::panic::resume_unwind(Box::new(())));
                    })
                }));
                self.check_rows();
                self.check_replay_from(&work);
                self.flush(work);
            }
            Step::Ingest(writes) => {
                let rows = self.rows(&writes);
                // Behind this a whole state that was flushed before is not whole any more.
                let heals = |work: &Flush| work.rows.iter().any(|(_, entry)| entry.heals);
                self.last_flush.take_if(|work| heals(work));
                self.ingest(&rows);
            }
            Step::Heal(rows) => self.heal(&rows),
            Step::Drop(at, lww, kept, chunks) => {
                let keyspace = lww.map(|lww| if lww { LWW } else { KeyspaceId(1) });
                self.drop_rows(Extent { partition: partition(at), keyspace }, kept, chunks);
            }
            Step::SpoilRow(row, bit) => {
                if self.spoil(ROWS, row_key(row).as_bytes(), bit) {
                    self.damaged.insert(row_key(row));
                }
            }
            Step::SpoilDigests(which, bit) => self.spoil_any(DIGESTS, which, bit),
            Step::SpoilCounts(which, bit) => self.spoil_any(COUNTS, which, bit),
        }
    }

    fn flush(&mut self, work: Flush) {
        let written = self.writer.flush(&work, &mut |_| ()).unwrap();
        assert_eq!(written.rows, work.rows.iter().len() as u64);
        assert_eq!(Some(self.writer.reader().at().replay_from), work.replay_from);
        self.last_flush = Some(work);
    }

    fn drop_rows(&mut self, extent: Extent, kept: u64, chunks: usize) {
        let work = DropRows { id: DropId(0), extent, through: Lsn(self.lsn.saturating_sub(kept)) };
        let gone: Vec<_> = self
            .pairs(ROWS)
            .into_iter()
            .filter(|(key, value)| {
                let is_old = Row::decode(key, value).is_none_or(|row| row.lsn <= work.through);
                key.starts_with(&extent.prefix()) && is_old
            })
            .collect();
        for (key, _) in gone {
            let key = RowKey::decode(key.into()).unwrap();
            self.model.remove(&key);
            self.damaged.remove(&key);
        }
        let mut left = chunks;
        let _ = catch_unwind(AssertUnwindSafe(|| {
            self.writer.drop_rows(&work, &mut |_| {
                left = left.checked_sub(1).unwrap_or_else(|| std::panic::resume_unwind(Box::new(())));
            })
        }));
        self.check_rows();
        let before = self.writer.reader().at().drops;
        self.writer.drop_rows(&work, &mut |_| ()).unwrap();
        assert_eq!(self.writer.reader().at().drops, before + 1);
        assert!(self.feed(extent.partition, 1).floor >= work.through);
        // What is flushed once more would be back.
        self.last_flush = None;
    }

    fn ingest(&mut self, rows: &[IngestRow]) -> Written {
        let rules = Rules { lww: &BTreeSet::from([LWW]), digest_key: &DIGEST_KEY };
        self.writer.ingest(rows, rules, &mut |_| ()).unwrap()
    }

    /// The log of `work` is forgotten only if all of it is in the rows.
    fn check_replay_from(&self, work: &Flush) {
        if Some(self.writer.reader().at().replay_from) < work.replay_from {
            return;
        }
        let rows: BTreeMap<_, _> = self.pairs(ROWS).into_iter().collect();
        for (key, entry) in work.rows.iter() {
            let row = Row::decode(key.as_bytes(), &rows[key.as_bytes()]).unwrap();
            assert!(row.lsn >= entry.lsn, "{key:?} is not flushed");
        }
    }

    fn heal(&mut self, rows: &BTreeSet<usize>) {
        let mut frozen = Memtable::default();
        for row in rows {
            let (key, lsn) = (row_key(*row), self.next_lsn());
            let whole = self.model.entry(key.clone()).or_default();
            frozen.join(&key, Delta { object: whole, bytes: &whole.encode(), lsn, heals: true });
            self.damaged.remove(&key);
        }
        let work = self.frozen(frozen);
        self.flush(work);
    }

    /// A memtable of operations, each bound to what was there.
    fn work(&mut self, writes: &[(usize, u8)]) -> Flush {
        let mut frozen = Memtable::default();
        for (row, operation) in writes {
            let (key, delta) = self.write(*row, *operation);
            let lsn = self.next_lsn();
            frozen.join(&key, Delta { object: &delta, bytes: &delta.encode(), lsn, heals: false });
        }
        self.frozen(frozen)
    }

    fn frozen(&mut self, frozen: Memtable) -> Flush {
        Flush {
            rows: Arc::new(frozen),
            replay_from: Some(Lsn(self.lsn)),
            is_first: true,
            lww: Arc::new(BTreeSet::from([LWW])),
            digest_key: DIGEST_KEY,
        }
    }

    /// What another replica holds after operations of its own.
    fn rows(&mut self, writes: &[(usize, u8)]) -> Vec<IngestRow> {
        let mut rows = BTreeMap::new();
        for (row, operation) in writes {
            let (key, _) = self.write(*row, *operation);
            rows.insert(key.clone(), self.model[&key].encode());
        }
        let rows = rows.into_iter().map(|(key, object)| IngestRow { key, object, lsn: self.next_lsn() });
        rows.collect()
    }

    fn write(&mut self, row: usize, operation: u8) -> (RowKey, Object) {
        let key = row_key(row);
        let text = format!("\"{}\"", "x".repeat(usize::from(operation) * 3));
        let (value, element) = (Value::json(text), Element::Int(i64::from(operation % 7)));
        let operation = match operation % 5 {
            0 => Operation::Delete,
            1 => Operation::AddSibling { value },
            2 => Operation::SetAdd { element },
            3 => Operation::SetClear,
            _ => Operation::Replace { value },
        };
        self.dots += 1;
        let mint = Mint { dot: Dot { actor: Actor(1), n: self.dots }, prev: 0, hlc: Hlc(self.dots), total: None };
        let object = self.model.entry(key.clone()).or_default();
        let delta = bind(&operation, &mint, object).unwrap();
        object.merge_into(&delta);
        if key.keyspace() == LWW {
            object.prune_lww();
        }
        (key, delta)
    }

    fn next_lsn(&mut self) -> Lsn {
        self.lsn += 1;
        Lsn(self.lsn)
    }

    fn reader(&self) -> Arc<Snapshot> {
        self.writer.reader().snapshot()
    }

    fn feed(&self, partition: Partition, rows_max: usize) -> FeedRows {
        self.reader().feed(partition, Lsn(0), rows_max, usize::MAX).unwrap()
    }

    fn partitions(&self) -> BTreeSet<Partition> {
        self.reader().partitions().unwrap()
    }

    fn verified(&self) -> VerifyReport {
        let mut report = VerifyReport::default();
        for partition in self.partitions() {
            self.reader().verify(partition, Some(&DIGEST_KEY), &mut report).unwrap();
        }
        report
    }

    fn check(&mut self) {
        self.check_rows();
        for (key, object) in &self.model {
            let StoreDone::Loaded { rows, .. } = self.reader().load(vec![key.clone()]).unwrap() else {
                panic!("a load answers with rows");
            };
            match &rows[0].row {
                RowRead::Found(stored) => assert_eq!(&stored.object, object),
                RowRead::Damaged { .. } => assert!(self.damaged.contains(key)),
                RowRead::Absent => panic!("{key:?} is gone"),
            }
        }
        let report = self.verified();
        let sound = |partition: &Partition| !self.spoiled.contains(partition);
        assert_eq!(report.digests_wrong.iter().filter(|(partition, _)| sound(partition)).count(), 0, "{report:?}");
        assert_eq!(report.counts_wrong.iter().filter(|partition| sound(partition)).count(), 0, "{report:?}");
        assert_eq!(BTreeSet::from_iter(report.damaged_rows), self.damaged);
        if self.spoiled.is_empty() {
            assert_eq!((report.feed_missing, report.feed_damaged, report.nameless_count), (0, 0, 0));
        }
    }

    /// Digests and feed against the table of rows.
    fn check_rows(&self) {
        let mut sums: BTreeMap<(Partition, u16), Option<BucketDigest>> = BTreeMap::new();
        let (mut listed, mut unlisted) = (BTreeMap::new(), BTreeSet::new());
        for (key, value) in self.pairs(ROWS) {
            let key = RowKey::decode(key.into()).unwrap();
            let bucket = u16::try_from(key.place().row_hash() >> 54).unwrap();
            let sum = sums.entry((key.partition(), bucket)).or_insert_with(|| Some(BucketDigest::default()));
            let Some(row) = Row::decode(key.as_bytes(), &value) else {
                *sum = None;
                unlisted.insert(key);
                continue;
            };
            let object = Object::decode(row.object).unwrap();
            *sum = sum.map(|sum| BucketDigest {
                sum: sum.sum.wrapping_add(object.digest(&DIGEST_KEY, &key.place()).0),
                count: sum.count + 1,
            });
            if row.partial {
                unlisted.insert(key);
            } else {
                listed.insert((key.partition(), row.lsn), (key, Bytes::copy_from_slice(row.object)));
            }
        }
        for partition in self.partitions() {
            let digests = self.reader().digests(partition).unwrap();
            let expected: BTreeMap<_, _> =
                sums.iter().filter(|((at, _), _)| *at == partition).map(|((_, bucket), sum)| (*bucket, *sum)).collect();
            assert_eq!(digests.buckets.len(), expected.len());
            for (bucket, digest) in digests.buckets {
                assert!(expected[&bucket].is_none_or(|expected| expected == digest));
            }
            self.check_feed(partition, &listed, &unlisted);
        }
        self.check_scan(false);
        self.check_scan(true);
    }

    /// Pages of a scan against the table of rows.
    fn check_scan(&self, reverse: bool) {
        let range = RowRange { keyspace: LWW, from: Unbounded, to: Unbounded, key_prefix: Bytes::new() };
        let mut request = ScanRequest { id: ScanId(1), range, reverse, rows_max: 3, bytes_max: 400 };
        let mut found = Vec::new();
        loop {
            let page = self.reader().scan(&request).unwrap();
            assert!(page.finished || !page.rows.is_empty());
            if let Some(last) = page.rows.last() {
                let last = Excluded(Bytes::copy_from_slice(last.key.as_bytes()));
                *(if reverse { &mut request.range.to } else { &mut request.range.from }) = last;
            }
            found.extend(page.rows.into_iter().map(|row| (row.key, row.object, row.damaged)));
            if page.finished {
                break;
            }
        }
        if reverse {
            found.reverse();
        }
        let rows = self.pairs(ROWS).into_iter().map(|(key, value)| {
            let row = Row::decode(&key, &value);
            let object = row.map(|row| (Bytes::copy_from_slice(row.object), row.lsn));
            (RowKey::decode(key.into()).unwrap(), object, row.is_none_or(|row| row.partial))
        });
        assert_eq!(found, rows.collect::<Vec<_>>());
    }

    fn check_feed(
        &self,
        partition: Partition,
        listed: &BTreeMap<(Partition, Lsn), (RowKey, Bytes)>,
        unlisted: &BTreeSet<RowKey>,
    ) {
        let (mut after, mut floor, mut found) = (Lsn(0), Lsn(0), Vec::new());
        loop {
            let page = self.reader().feed(partition, after, 2, 300).unwrap();
            assert!(page.damaged.iter().all(|key| unlisted.contains(key)));
            assert!(page.rows.iter().all(|row| after < row.lsn && row.lsn <= page.through));
            assert!(page.finished || after < page.through);
            found.extend(page.rows);
            (after, floor) = (page.through, floor.max(page.floor));
            if page.finished {
                break;
            }
        }
        let expected: Vec<_> = listed.range((partition, Lsn(0))..=(partition, Lsn(u64::MAX))).collect();
        let expected = expected.into_iter().filter(|((_, lsn), _)| *lsn > floor || floor == Lsn(u64::MAX));
        let expected: Vec<_> = expected.map(|((_, lsn), (key, object))| (lsn, key, object)).collect();
        let found: Vec<_> = found.iter().map(|row| (&row.lsn, &row.key, &row.object)).collect();
        if floor == Lsn(u64::MAX) {
            assert!(found.iter().all(|row| expected.contains(row)));
        } else {
            assert_eq!(found, expected);
        }
    }

    fn pairs(&self, table: Pairs) -> Vec<(Vec<u8>, Vec<u8>)> {
        let pairs = self.writer.commit(|transaction| {
            let table = transaction.open_table(table).unwrap();
            let pairs = table.iter().unwrap().map(Result::unwrap);
            Ok(pairs.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect())
        });
        pairs.unwrap()
    }

    fn every_pair(&self) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
        [ROWS, DIGESTS, FEED, COUNTS].map(|table| self.pairs(table)).to_vec()
    }

    fn put(&self, table: Pairs, key: &[u8], value: &[u8]) {
        let put = self.writer.commit(|transaction| {
            transaction.open_table(table).unwrap().insert(key, value).unwrap();
            Ok(())
        });
        put.unwrap();
    }

    fn remove(&self, table: Pairs, key: &[u8]) {
        let removed = self.writer.commit(|transaction| {
            transaction.open_table(table).unwrap().remove(key).unwrap();
            Ok(())
        });
        removed.unwrap();
    }

    /// Flips a bit of the value at `key`, if there is one.
    fn spoil(&self, table: Pairs, key: &[u8], bit: usize) -> bool {
        let value = self.pairs(table).into_iter().find(|(found, _)| found == key);
        if let Some((_, value)) = &value {
            self.put(table, key, &flipped(value, bit % (value.len() * 8)));
        }
        value.is_some()
    }

    fn spoil_any(&mut self, table: Pairs, which: u8, bit: usize) {
        let pairs = self.pairs(table);
        if pairs.is_empty() {
            return;
        }
        let (key, _) = &pairs[usize::from(which) % pairs.len()];
        self.spoil(table, key, bit);
        let found = decode_partition(*key.first_chunk().unwrap());
        self.spoiled.insert(found);
    }
}

fn partition(index: u16) -> Partition {
    Partition { class: Class { n: 3, r: 0, w: 0 }, index }
}

/// Rows in two partitions, every third in a keyspace that keeps only winners.
fn row_key(row: usize) -> RowKey {
    let keyspace = if row.is_multiple_of(3) { LWW } else { KeyspaceId(1) };
    let place = Place { keyspace, collection: "c".into(), key: format!("{row:02}").into() };
    RowKey::new(partition(u16::try_from(row % 2).unwrap()), &place)
}

fn flipped(value: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = value.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}
