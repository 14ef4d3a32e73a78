//! What repair lives on: a change feed that misses nothing, digests that describe the rows, the bulk path.

use std::collections::BTreeMap;

use shoal_node::storage::{FeedId, FeedPage, FeedRequest, IngestId, RowKey, StoreEvent};
use shoal_protocol::id::Lsn;
use shoal_protocol::object::Object;
use shoal_tests::sim::disk::{SimDisk, Survival};

use super::rig::{DIGEST_KEY, History, KEYS_COUNT, Rig, below, key, partition, random, verify};

/// A follower of a change feed.
#[derive(Default)]
struct Follower {
    objects: BTreeMap<RowKey, Object>,
    after: Lsn,
}

impl Follower {
    /// Reads one page and says whether it was the last for now.
    fn read(&mut self, rig: &mut Rig, rows_max: usize, bytes_max: usize) -> bool {
        let request = FeedRequest { id: FeedId(0), partition: partition(), after: self.after, rows_max, bytes_max };
        let wanted = rig.store.feed(request, &mut rig.out);
        rig.settle();
        let page = page(rig, wanted);
        assert!(page.floor <= self.after, "the feed was trimmed before its follower");
        assert!(page.changes.len() <= rows_max && page.damaged.is_empty());
        for change in page.changes {
            assert!(change.lsn > self.after && change.lsn <= rig.store.synced(), "{:?}", change.lsn);
            self.after = change.lsn;
            let change_object = Object::decode(&change.object).unwrap();
            self.objects.entry(change.key).or_default().merge_into(&change_object);
        }
        assert!(page.next >= self.after, "a page goes back");
        self.after = page.next;
        page.finished
    }
}

fn page(rig: &mut Rig, wanted: FeedId) -> FeedPage {
    let at = rig.events.iter().position(|event| matches!(event, StoreEvent::Feed { id, .. } if *id == wanted));
    match rig.events.swap_remove(at.expect("a feed is answered")) {
        StoreEvent::Feed { page, .. } => page,
        other => unreachable!("{other:?} is a page"),
    }
}

fn ingest(rig: &mut Rig, rows: BTreeMap<RowKey, Object>) -> IngestId {
    let rows = rows.into_iter().map(|(key, object)| (key, object.encode())).collect();
    let wanted = rig.store.ingest(rows, &mut rig.out).expect("the store serves");
    rig.settle();
    assert!(rig.events.iter().any(|event| matches!(event, StoreEvent::Ingested { id } if *id == wanted)));
    wanted
}

#[test]
fn whoever_follows_the_feed_has_every_object_as_it_is() {
    let (mut pages, mut ingested) = (0, 0);
    for seed in 0..40 {
        let (mut rig, mut history, mut random) =
            (Rig::open(&SimDisk::default()).unwrap(), History::default(), random(seed));
        let mut follower = Follower::default();
        for _ in 0..200 {
            match below(&mut random, 10) {
                0 => rig.store.flush(&mut rig.out),
                1 => {
                    // What another replica holds of two keys, written there.
                    let mut rows = BTreeMap::new();
                    for _ in 0..2 {
                        let (key, delta) = history.next_delta(&mut random);
                        history.note_applied(key.clone(), delta.clone(), Lsn(0));
                        rows.entry(key).or_insert_with(Object::default).merge_into(&delta);
                    }
                    ingest(&mut rig, rows);
                    ingested += 1;
                }
                2 | 3 => {
                    let (rows_max, bytes_max) =
                        (1 + below(&mut random, 4) as usize, [1, 1 << 20][below(&mut random, 2) as usize]);
                    follower.read(&mut rig, rows_max, bytes_max);
                    pages += 1;
                }
                4 => rig.turn(),
                _ => {
                    let (key, delta) = history.next_delta(&mut random);
                    history.apply(&mut rig, key, delta);
                }
            }
        }
        rig.settle();
        while !follower.read(&mut rig, 3, 1 << 20) {}
        for key in (0..KEYS_COUNT).map(key) {
            let visible = rig.read(&key).unwrap();
            assert_eq!(follower.objects.remove(&key).unwrap_or_default(), visible, "seed {seed}, {key:?}");
            assert_eq!(history.objects(history.applied.len()).remove(&key).unwrap_or_default(), visible);
        }
    }
    assert!(pages > 1_000 && ingested > 500, "{pages} pages, {ingested} loads");
}

#[test]
fn what_is_ingested_is_seen_at_once_and_after_a_crash_and_is_in_digests_and_feed() {
    let disk = SimDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    let (mut history, mut random) = (History::default(), random(1));
    let (first, delta) = history.next_delta(&mut random);
    assert_eq!(rig.read(&first).as_ref(), Some(&Object::default()), "known to be absent");
    ingest(&mut rig, BTreeMap::from([(first.clone(), delta.clone())]));
    assert_eq!(rig.read(&first).as_ref(), Some(&delta), "and no longer");
    drop(rig);
    let image = disk.crash(Survival::Nothing, 1);
    verify(&image, "after a crash");
    let mut rig = Rig::open(&image).unwrap();
    assert_eq!(rig.read(&first).as_ref(), Some(&delta));
    rig.store.read_digests(partition(), &mut rig.out);
    rig.settle();
    let digests = rig.events.iter().find_map(|event| match event {
        StoreEvent::Digests { digests, .. } => Some(digests.clone()),
        _ => None,
    });
    let digests = digests.expect("digests are answered");
    let sums: Vec<u128> = digests.buckets.iter().map(|(_, bucket)| bucket.sum).collect();
    assert_eq!((digests.rows_count, sums), (1, vec![delta.digest(&DIGEST_KEY, &first.place()).0]));
    let mut follower = Follower::default();
    assert!(follower.read(&mut rig, 10, 1 << 20));
    assert_eq!(follower.objects, BTreeMap::from([(first, delta)]));
}

#[test]
fn a_load_that_a_crash_cut_short_is_done_again_with_the_same_outcome() {
    let rows = || {
        let (mut history, mut random, mut rows) = (History::default(), random(3), BTreeMap::new());
        for _ in 0..30 {
            let (key, delta) = history.next_delta(&mut random);
            history.note_applied(key.clone(), delta.clone(), Lsn(0));
            rows.entry(key).or_insert_with(Object::default).merge_into(&delta);
        }
        rows
    };
    let whole = SimDisk::default();
    let mut rig = Rig::open(&whole).unwrap();
    rig.settle();
    let before = whole.operations();
    ingest(&mut rig, rows());
    let expected: Vec<_> = rows().keys().map(|key| rig.read(key).unwrap()).collect();
    let operations = whole.operations() - before;
    assert!(operations > 3, "{operations} operations");
    for point in 1..=operations {
        for survival in Survival::ALL {
            let what = format!("crash at {point} of {operations}, {survival:?}");
            let disk = SimDisk::default();
            let mut rig = Rig::open(&disk).unwrap();
            rig.settle();
            disk.crash_at(disk.operations() + point);
            let encoded = rows().into_iter().map(|(key, object)| (key, object.encode())).collect();
            rig.store.ingest(encoded, &mut rig.out);
            rig.settle();
            let image = disk.crash(survival, point);
            verify(&image, &what);
            let mut rig = Rig::open(&image).unwrap();
            ingest(&mut rig, rows());
            let found: Vec<_> = rows().keys().map(|key| rig.read(key).unwrap()).collect();
            assert_eq!(found, expected, "{what}");
            drop(rig);
            verify(&image, &what);
        }
    }
}

#[test]
fn wrong_digests_are_found_by_a_verification_and_made_anew() {
    let disk = SimDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    let (mut history, mut random) = (History::default(), random(5));
    for _ in 0..10 {
        let (key, delta) = history.next_delta(&mut random);
        history.apply(&mut rig, key, delta);
    }
    rig.settle();
    rig.store.flush(&mut rig.out);
    rig.settle();
    drop(rig);
    // Another store's digests under these rows: sealed, and wrong.
    let file = redb::Database::builder();
    let digests: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("digests");
    {
        use redb::ReadableTable as _;
        use shoal_node::storage::engine::Disk as _;
        let database = file.create_with_backend(disk.open("rows.redb").unwrap()).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(digests).unwrap();
            let first = table.first().unwrap().map(|(key, _)| key.value().to_vec()).unwrap();
            table.remove(first.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    let mut rig = Rig::open(&disk).unwrap();
    for is_wrong in [true, false] {
        rig.events.clear();
        rig.store.verify(partition(), &mut rig.out);
        rig.settle();
        let report = rig.events.iter().find_map(|event| match event {
            StoreEvent::Verified { report, .. } => Some(report),
            _ => None,
        });
        assert_eq!(!report.expect("a verification is answered").digests_wrong.is_empty(), is_wrong);
    }
}
