//! Completions that come late and in any order, pages that race with flushes, engines that die in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_chacha::ChaCha8Rng;
use shoal_node::storage::engine::Engine;
use shoal_node::storage::{Failure, RowKey, ScanId, ScanPage, StoreDone, StoreEffect, StoreEvent, Visible};
use shoal_protocol::id::Lsn;
use shoal_protocol::object::Object;
use shoal_protocol::peer::PeerScan;
use shoal_tests::sim::disk::{SimDisk, Survival};

use super::rig::{History, KEYS_COUNT, LWW, Rig, SIBLINGS, below, key, options, partition, random};

/// A scan under way: what it asks, what it has seen, what it must see.
struct Walk {
    scan: PeerScan,
    rows: Vec<RowKey>,
    expected: BTreeSet<RowKey>,
}

/// A store whose engine works when it likes, and whose answers arrive when they like.
struct World {
    disk: SimDisk,
    rig: Rig,
    history: History,
    random: ChaCha8Rng,
    logs: VecDeque<StoreEffect>,
    rows: VecDeque<StoreEffect>,
    reads: VecDeque<StoreEffect>,
    /// By kind: within one the order holds.
    done: BTreeMap<u8, VecDeque<StoreDone>>,
    /// Records that the engine has made durable.
    logged: Lsn,
    walks: BTreeMap<ScanId, Walk>,
    walks_finished: usize,
    failures: usize,
    /// What was answered to deltas that came while there was no engine.
    refused: Vec<Lsn>,
}

#[test]
fn whatever_the_order_of_completions_the_store_shows_what_was_applied_and_acknowledges_what_is_durable() {
    let (mut walks_finished, mut failures, mut synced) = (0, 0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..900 {
            world.step();
        }
        world.drain();
        synced += world.history.synced_count;
        walks_finished += world.walks_finished;
        failures += world.failures;
    }
    assert!(walks_finished > 500 && failures > 100 && synced > 5_000, "{walks_finished} {failures} {synced}");
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::default();
        let rig = Rig::open(&disk).unwrap();
        Self {
            disk,
            rig,
            history: History::default(),
            random: random(seed),
            logs: VecDeque::new(),
            rows: VecDeque::new(),
            reads: VecDeque::new(),
            done: BTreeMap::new(),
            logged: Lsn::default(),
            walks: BTreeMap::new(),
            walks_finished: 0,
            failures: 0,
            refused: Vec::new(),
        }
    }

    fn step(&mut self) {
        match below(&mut self.random, 100) {
            0 => self.fail_and_reopen(),
            1..25 => {
                let (key, delta) = self.history.next_delta(&mut self.random);
                self.history.apply(&mut self.rig, key, delta);
            }
            25..40 => self.look(),
            40..48 => self.begin_walk(),
            48..62 => self.log(),
            62..66 => self.write_rows(),
            66..80 => self.read(),
            _ => self.deliver(),
        }
        self.take_events();
        self.sort_effects();
        let synced = self.rig.store.synced();
        assert!(self.refused.iter().all(|lsn| *lsn > synced), "called synced what was never stored");
        assert!(synced <= self.logged, "called synced before it was durable");
        assert!(
            synced.0 == 0 || synced.0 < self.rig.store.leases().lsns_end,
            "called synced before its lease was durable"
        );
        self.history.note(&self.rig);
    }

    fn drain(&mut self) {
        while !(self.logs.is_empty()
            && self.rows.is_empty()
            && self.reads.is_empty()
            && self.done.values().all(VecDeque::is_empty))
        {
            self.log();
            self.write_rows();
            self.read();
            self.deliver();
            self.take_events();
            self.sort_effects();
        }
        self.history.note(&self.rig);
        assert_eq!(self.history.synced_count, self.history.applied.len(), "everything is synced in the end");
        assert!(self.walks.is_empty(), "every scan ends");
    }

    fn look(&mut self) {
        let key = key(below(&mut self.random, KEYS_COUNT));
        if let Visible::Ready(visible) = self.rig.store.visible(&key, &mut self.rig.out) {
            let objects = self.history.objects(self.history.applied.len());
            assert_eq!(visible.object, objects.get(&key).cloned().unwrap_or_default(), "{key:?}");
            let last = self.history.applied.iter().rev().find(|applied| applied.key == key);
            assert!(last.is_none_or(|applied| applied.lsn <= visible.lsn), "shown before it is synced: {key:?}");
        }
    }

    fn begin_walk(&mut self) {
        let random = &mut self.random;
        let scan = PeerScan {
            partition: partition(),
            keyspace: if below(random, 2) == 0 { SIBLINGS } else { LWW },
            collection: [None, Some("".into()), Some("rooms".into())][below(random, 3) as usize].clone(),
            prefix: ["", "key-0", "key-1"][below(random, 3) as usize].into(),
            after: None,
            reverse: below(random, 2) == 0,
            rows_max: 1 + below(random, 4) as u32,
            bytes_max: [100, 1 << 20][below(random, 2) as usize],
        };
        let expected = self.history.applied.iter().map(|applied| applied.key.clone()).filter(|key| covers(&scan, key));
        let walk = Walk { expected: expected.collect(), scan, rows: Vec::new() };
        self.ask(walk);
    }

    fn ask(&mut self, walk: Walk) {
        let id = self.rig.store.scan(&walk.scan, &mut self.rig.out);
        self.walks.insert(id, walk);
    }

    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.rig.events) {
            if let StoreEvent::Scanned { id, page } = event {
                let walk = self.walks.remove(&id).expect("a scan is answered once");
                self.page(walk, page);
            }
        }
    }

    fn page(&mut self, mut walk: Walk, page: ScanPage) {
        assert!(page.finished || !page.rows.is_empty(), "a page that leads nowhere");
        assert!(page.rows.len() <= walk.scan.rows_max as usize);
        for row in page.rows {
            assert!(row.lsn <= self.rig.store.synced(), "shown before it is synced");
            assert!(covers(&walk.scan, &row.key), "{:?} was not asked for", row.key);
            let versions = (0..=self.history.applied.len()).map(|count| self.history.objects(count));
            let mut versions = versions.map(|mut objects| objects.remove(&row.key).unwrap_or_default().encode());
            assert!(versions.any(|version| version == row.object), "{:?} never looked like this", row.key);
            walk.rows.push(row.key);
        }
        let in_order = |pair: &[RowKey]| if walk.scan.reverse { pair[0] > pair[1] } else { pair[0] < pair[1] };
        assert!(walk.rows.windows(2).all(in_order));
        if page.finished {
            let missing = walk.expected.difference(&walk.rows.iter().cloned().collect()).count();
            assert_eq!(missing, 0, "{:?} gave {:?}", walk.scan, walk.rows);
            self.walks_finished += 1;
        } else {
            let place = walk.rows.last().unwrap().place();
            walk.scan.after = Some((place.collection, place.key));
            self.ask(walk);
        }
    }

    fn sort_effects(&mut self) {
        for effect in std::mem::take(&mut self.rig.out) {
            match effect {
                StoreEffect::Log(_) | StoreEffect::Reopen => self.logs.push_back(effect),
                StoreEffect::Rows(_) => self.rows.push_back(effect),
                StoreEffect::Reads(_) => self.reads.push_back(effect),
            }
        }
    }

    fn log(&mut self) {
        let count = self.logs.len().min(1 + below(&mut self.random, 4) as usize);
        let effects = self.logs.drain(..count).collect();
        self.perform(effects);
    }

    fn write_rows(&mut self) {
        let effects = self.rows.pop_front().into_iter().collect();
        self.perform(effects);
    }

    fn read(&mut self) {
        let index = below(&mut self.random, self.reads.len().max(1) as u64) as usize;
        let effect = self.reads.remove(index);
        self.perform(effect.into_iter().collect());
    }

    fn perform(&mut self, effects: Vec<StoreEffect>) {
        for done in self.rig.engine.perform(effects) {
            if let StoreDone::Synced { through, .. } = &done {
                self.logged = *through;
            }
            let kind = match &done {
                StoreDone::Synced { .. } => 0,
                StoreDone::Loaded { .. } => 1,
                StoreDone::Scanned(_) => 2,
                StoreDone::Flushed { .. } => 3,
                StoreDone::Leased(_) => 4,
                StoreDone::Persisted { .. } => 5,
                StoreDone::FeedRead { .. } => 6,
                StoreDone::DigestsRead { .. } => 7,
                StoreDone::Ingested { .. } => 8,
                StoreDone::Verified { .. } => 9,
                StoreDone::Dropped { .. } => 11,
                StoreDone::Space(_) => 10,
                StoreDone::PartitionsRead { .. } => 11,
                StoreDone::KeysRead { .. } => 12,
                StoreDone::Failed(_) | StoreDone::Reopened(_) => unreachable!("this disk does not fail by itself"),
            };
            self.done.entry(kind).or_default().push_back(done);
        }
    }

    fn deliver(&mut self) {
        let kind = below(&mut self.random, 13) as u8;
        let done = self.done.get_mut(&kind).and_then(VecDeque::pop_front);
        if let Some(done) = done {
            self.rig.take_in(done);
        }
    }

    /// Power is lost between two calls of the engine; what it had done but not said is lost, reads under way come late.
    fn fail_and_reopen(&mut self) {
        self.failures += 1;
        self.rig.take_in(StoreDone::Failed(Failure::Io { reason: "power".into() }));
        assert!(matches!(self.rig.store.visible(&key(0), &mut self.rig.out), Visible::Failed));
        let nothing = Object::default();
        self.refused.push(self.rig.store.apply(&key(0), &nothing, nothing.encode(), &mut self.rig.out));
        self.disk = self.disk.crash(Survival::Nothing, 0);
        let (engine, recovered) = Engine::open(&self.disk, &options()).unwrap();
        self.rig.engine = engine;
        self.rig.out.clear();
        self.rig.events.clear();
        self.logs.clear();
        self.rows.clear();
        self.reads.clear();
        self.done.retain(|kind, _| *kind == 1 || *kind == 2);
        self.walks.clear();
        let survived = self.history.applied.iter().take_while(|applied| applied.lsn <= self.logged).count();
        assert!(survived >= self.history.synced_count);
        self.history.applied.truncate(survived);
        self.rig.take_in(StoreDone::Reopened(Box::new(recovered)));
        self.logged = self.logged.max(self.rig.store.synced());
    }
}

fn covers(scan: &PeerScan, key: &RowKey) -> bool {
    let place = key.place();
    place.keyspace == scan.keyspace
        && scan.collection.as_ref().is_none_or(|collection| *collection == place.collection)
        && place.key.starts_with(&scan.prefix)
}
