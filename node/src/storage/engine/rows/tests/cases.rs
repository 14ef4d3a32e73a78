//! Single cases: what one flipped bit, one lost value or one load does.

use super::*;

#[test]
fn the_same_work_done_again_changes_no_byte() {
    let mut world = World::new();
    let writes: Vec<_> = (0..KEYS_COUNT).map(|row| (row, 3)).collect();
    world.step(Step::Flush(writes.clone()));
    let before = world.every_pair();
    world.step(Step::Again);
    assert_eq!(world.every_pair(), before);
    let rows = world.rows(&writes);
    world.ingest(&rows);
    let before = world.every_pair();
    let written = world.ingest(&rows);
    assert_eq!((written.rows, world.every_pair()), (0, before));
}

#[test]
fn no_flipped_bit_of_a_digest_is_returned_and_every_one_is_found() {
    let world = World::flushed();
    let partition = partition(0);
    let right = world.reader().digests(partition).unwrap();
    assert!(!right.recomputed);
    for (key, value) in world.pairs(DIGESTS) {
        for bit in 0..value.len() * 8 {
            world.put(DIGESTS, &key, &flipped(&value, bit));
            let read = world.reader().digests(partition).unwrap();
            assert_eq!((&read.buckets, read.rows_count), (&right.buckets, right.rows_count));
            assert!(!world.verified().digests_wrong.is_empty());
        }
        world.put(DIGESTS, &key, &value);
    }
    assert_eq!(world.verified().first_damage, None);
}

#[test]
fn a_group_of_digests_that_vanished_is_noticed_by_the_counts() {
    let world = World::flushed();
    let right = world.reader().digests(partition(0)).unwrap();
    let (key, _) = world.pairs(DIGESTS).remove(0);
    world.remove(DIGESTS, &key);
    let read = world.reader().digests(partition(0)).unwrap();
    assert_eq!((read.buckets, read.recomputed), (right.buckets, true));
    assert!(!world.verified().digests_wrong.is_empty());
}

#[test]
fn a_flipped_bit_of_the_feed_is_a_hole_that_its_reader_is_told() {
    let world = World::flushed();
    let partition = partition(0);
    for (key, value) in world.pairs(FEED).into_iter().filter(|(key, _)| key.starts_with(&encode_partition(partition))) {
        let lsn = feed::lsn_of(&key).unwrap();
        let right = world.feed(partition, 100);
        for bit in 0..value.len() * 8 {
            world.put(FEED, &key, &flipped(&value, bit));
            let read = world.feed(partition, 100);
            assert!(read.floor >= lsn, "the reader knows that it may have missed {lsn:?}");
            assert_eq!(read.rows, right.rows.iter().filter(|row| row.lsn != lsn).cloned().collect::<Vec<_>>());
            assert_eq!(world.verified().feed_damaged, 1);
        }
        world.put(FEED, &key, &value);
    }
    let (key, _) = world.pairs(FEED).remove(0);
    world.remove(FEED, &key);
    assert_eq!(world.verified().feed_missing, 1);
}

#[test]
fn without_its_counts_a_feed_promises_nothing_until_the_next_flush_makes_them_anew() {
    let mut world = World::flushed();
    let partition = partition(0);
    let key = encode_partition(partition);
    let value = world.pairs(COUNTS).into_iter().find(|(found, _)| *found == key).unwrap().1;
    for bit in 0..value.len() * 8 {
        world.put(COUNTS, &key, &flipped(&value, bit));
        assert_eq!(world.feed(partition, 1).floor, Lsn(u64::MAX));
        assert!(world.verified().counts_wrong.contains(&partition));
    }
    world.step(Step::Flush((0..KEYS_COUNT).map(|row| (row, 1)).collect()));
    world.check();
    assert_eq!(world.feed(partition, 100).floor, Lsn(0));
    world.remove(COUNTS, &key);
    world.step(Step::Flush(vec![(KEYS_COUNT, 1)]));
    world.check();
}

#[test]
fn a_busy_row_leaves_a_short_feed_and_a_floor() {
    let mut world = World::new();
    for _ in 0..50 {
        world.step(Step::Flush(vec![(0, 2)]));
    }
    let partition = row_key(0).partition();
    let (page, entries) = (world.feed(partition, 10), world.pairs(FEED).len() as u64);
    assert_eq!(entries, 2 + BOUNDS.feed_slack);
    assert_eq!((page.rows.len(), page.finished), (1, true));
    assert_eq!(page.floor, Lsn(page.rows[0].lsn.0 - entries));
    let behind = world.reader().feed(partition, Lsn(u64::MAX), 10, 10).unwrap();
    assert_eq!((behind.rows.len(), behind.through, behind.finished), (0, Lsn(u64::MAX), true));
}

#[test]
fn two_rows_with_one_lsn_are_refused() {
    let mut world = World::new();
    let object = Object::default().encode();
    let mut rows: Vec<_> = (0..4).map(|row| row_key(row * 2)).collect();
    rows.sort();
    let rows: Vec<_> = rows.into_iter().map(|key| IngestRow { key, object: object.clone(), lsn: Lsn(5) }).collect();
    let rules = Rules { lww: &BTreeSet::new(), digest_key: &DIGEST_KEY };
    let refused = world.writer.ingest(&rows, rules, &mut |_| ());
    assert!(matches!(refused, Err(Failure::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_load_into_an_empty_range_between_rows_keeps_the_order() {
    let mut world = World::new();
    world.step(Step::Flush(vec![(0, 3), (11, 3)]));
    world.writer.bounds = Bounds::default();
    let writes: Vec<_> = (0..KEYS_COUNT).map(|row| (row, 4)).collect();
    let rows = world.rows(&writes);
    let written = world.ingest(&rows);
    assert_eq!((written.chunks, written.rows), (1, KEYS_COUNT as u64));
    world.check();
}

#[test]
fn rows_of_another_store_are_refused() {
    let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    begin(&database, 1).unwrap();
    assert!(matches!(RowsWriter::open(database, 2, 0), Err(Failure::Damaged { .. })));
}
