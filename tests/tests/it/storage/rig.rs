//! A store, its engine and what was done with them.
//!
//! `Rig` runs one open store; `History` survives it and knows what must be found again; `workload` makes both from a seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_node::storage::engine::inspect::StoppedStore;
use shoal_node::storage::engine::log::LogOptions;
use shoal_node::storage::engine::{Doubt, Engine, OpenError, OpenOptions};
use shoal_node::storage::{
    Budget, CellPlace, Failure, PersistTicket, Recovered, RowKey, ScanPage, Store, StoreDone, StoreEffect, StoreEvent,
    Visible,
};
use shoal_protocol::address::Place;
use shoal_protocol::causality::Dot;
use shoal_protocol::id::{Actor, Class, KeyspaceId, Lsn, NodeId, Partition};
use shoal_protocol::object::{DigestKey, Element, Mint, Object, Operation, Value, bind};
use shoal_protocol::peer::PeerScan;
use shoal_protocol::time::Hlc;
use shoal_tests::sim::disk::SimDisk;

pub(super) const DIGEST_KEY: DigestKey = DigestKey([7; 32]);
pub(super) const SIBLINGS: KeyspaceId = KeyspaceId(1);
pub(super) const LWW: KeyspaceId = KeyspaceId(2);
const SESSION: Actor = Actor::session(30_000, 1);

/// Small enough that a workload of a hundred deltas flushes several times.
pub(super) const BUDGET: Budget = Budget { bytes: 16 << 10, log_bytes: 256 << 10 };

pub(super) fn options() -> OpenOptions {
    OpenOptions {
        node: NodeId(5),
        cluster: None,
        place: CellPlace::ALONE,
        incarnation: Actor::incarnation(77),
        cache_bytes: 1 << 20,
        log: LogOptions { segment_bytes: 32 << 10 },
        reserve_bytes: 0,
        doubt: Doubt::Nothing,
    }
}

pub(super) const fn partition() -> Partition {
    Partition { class: Class { n: 3, r: 0, w: 0 }, index: 9 }
}

/// Twelve keys in two keyspaces; in the first, two collections.
pub(super) fn key(number: u64) -> RowKey {
    let keyspace = if number % 3 == 2 { LWW } else { SIBLINGS };
    let collection = if number % 3 == 1 { "rooms" } else { "" };
    let place = Place { keyspace, collection: collection.into(), key: format!("key-{number:02}").into() };
    RowKey::new(partition(), &place)
}

pub(super) const KEYS_COUNT: u64 = 12;

/// A store with its engine.
pub(super) struct Rig {
    pub(super) store: Store,
    pub(super) engine: Engine<SimDisk>,
    pub(super) recovered: Recovered,
    pub(super) out: Vec<StoreEffect>,
    pub(super) events: Vec<StoreEvent>,
}

impl Rig {
    pub(super) fn open(disk: &SimDisk) -> Result<Self, OpenError> {
        Self::open_with(disk, &options())
    }

    pub(super) fn open_with(disk: &SimDisk, options: &OpenOptions) -> Result<Self, OpenError> {
        let (engine, recovered) = Engine::open(disk, options)?;
        let mut out = Vec::new();
        let mut store = Store::new(BUDGET, recovered.clone(), &mut out);
        store.set_lww(BTreeSet::from([LWW]));
        store.set_digest_key(DIGEST_KEY, &mut out);
        Ok(Self { store, engine, recovered, out, events: Vec::new() })
    }

    /// Performs everything asked so far.
    pub(super) fn turn(&mut self) {
        let effects = std::mem::take(&mut self.out);
        for done in self.engine.perform(effects) {
            self.take_in(done);
        }
    }

    pub(super) fn take_in(&mut self, done: StoreDone) {
        self.store.handle(done, &mut self.out, &mut self.events);
        // Nobody else has this store.
        if let Some(lease) = self.store.lease_to_confirm() {
            self.store.confirm_lease(lease);
        }
    }

    /// Performs until nothing is asked any more.
    pub(super) fn settle(&mut self) {
        while !self.out.is_empty() && !self.engine.is_dead() {
            self.turn();
        }
    }

    /// The object of `key`, read from disk if need be; `None` if it is damaged or the engine died.
    pub(super) fn read(&mut self, key: &RowKey) -> Option<Object> {
        loop {
            match self.store.visible(key, &mut self.out) {
                Visible::Ready(visible) => return Some(visible.object.clone()),
                Visible::Damaged | Visible::Failed => return None,
                Visible::Loading => self.settle(),
            }
        }
    }

    /// All rows of a keyspace in one page; an empty page if the engine died.
    pub(super) fn scan_all(&mut self, keyspace: KeyspaceId) -> ScanPage {
        let scan = PeerScan {
            partition: partition(),
            keyspace,
            collection: None,
            prefix: Bytes::new(),
            after: None,
            reverse: false,
            rows_max: 1_000,
            bytes_max: u32::MAX,
        };
        let wanted = self.store.scan(&scan, &mut self.out);
        self.settle();
        let page = self.events.iter().find_map(|event| match event {
            StoreEvent::Scanned { id, page } if *id == wanted => Some(page.clone()),
            _ => None,
        });
        page.unwrap_or_default()
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.events.iter().find_map(|event| match event {
            StoreEvent::Failed(failure) => Some(failure.clone()),
            _ => None,
        })
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure().is_some()
    }
}

/// One applied delta.
pub(super) struct Applied {
    pub(super) key: RowKey,
    pub(super) delta: Object,
    pub(super) lsn: Lsn,
}

/// What was done, and what of it was called done.
#[derive(Default)]
pub(super) struct History {
    pub(super) applied: Vec<Applied>,
    /// The first so many of `applied` were called synced.
    pub(super) synced_count: usize,
    pub(super) dots: BTreeSet<u64>,
    pub(super) blobs_asked: u64,
    pub(super) blobs_persisted: u64,
    /// Of the store now open.
    tickets: BTreeMap<PersistTicket, u64>,
    previous: BTreeMap<RowKey, u64>,
    session_dot: u64,
}

impl History {
    /// The visible objects after the first `count` deltas.
    pub(super) fn objects(&self, count: usize) -> BTreeMap<RowKey, Object> {
        let mut objects: BTreeMap<RowKey, Object> = BTreeMap::new();
        for Applied { key, delta, .. } in &self.applied[..count] {
            let object = objects.entry(key.clone()).or_default();
            object.merge_into(delta);
            if key.keyspace() == LWW {
                object.prune_lww();
            }
        }
        objects
    }

    /// A random operation on a random key, bound to what was applied there so far.
    pub(super) fn next_delta(&mut self, random: &mut ChaCha8Rng) -> (RowKey, Object) {
        let key = key(below(random, KEYS_COUNT));
        let length = if below(random, 12) == 0 { 3_000 } else { below(random, 200) };
        let text = format!("\"{}-{}\"", self.session_dot, "x".repeat(usize::try_from(length).unwrap()));
        let value = Value::json(text);
        let element = Element::Int(i64::try_from(below(random, 5)).unwrap());
        let operation = match below(random, 6) {
            0 => Operation::Put { value },
            1 => Operation::Replace { value },
            2 => Operation::AddSibling { value },
            3 => Operation::SetAdd { element },
            4 => Operation::SetRemove { element },
            _ => Operation::Delete,
        };
        let delta = self.delta(&key, operation);
        (key, delta)
    }

    /// An operation of the next dot, bound to what was applied to `key` so far.
    pub(super) fn delta(&mut self, key: &RowKey, operation: Operation) -> Object {
        let observed = self.objects(self.applied.len()).remove(key).unwrap_or_default();
        self.session_dot += 1;
        let dot = Dot { actor: SESSION, n: self.session_dot };
        let prev = self.previous.insert(key.clone(), dot.n).unwrap_or(0);
        let mint = Mint { dot, prev, hlc: Hlc(dot.n), total: None };
        bind(&operation, &mint, &observed).unwrap()
    }

    pub(super) fn apply(&mut self, rig: &mut Rig, key: RowKey, delta: Object) -> Lsn {
        let lsn = rig.store.apply(&key, &delta, delta.encode(), &mut rig.out);
        self.note_applied(key, delta, lsn);
        lsn
    }

    /// Works for so many turns, or until the store fails.
    pub(super) fn go_on(&mut self, rig: &mut Rig, random: &mut ChaCha8Rng, turns: usize) {
        for _ in 0..turns {
            if rig.has_failed() {
                break;
            }
            for _ in 0..=below(random, 6) {
                let (key, delta) = self.next_delta(random);
                self.apply(rig, key, delta);
            }
            match below(random, 6) {
                0 => rig.store.flush(&mut rig.out),
                1 => {
                    self.blobs_asked += 1;
                    let blob = Bytes::copy_from_slice(&self.blobs_asked.to_be_bytes());
                    let ticket = rig.store.persist("state", blob, &mut rig.out);
                    self.tickets.insert(ticket, self.blobs_asked);
                }
                2 => self.dots.extend(rig.store.mint(&mut rig.out)),
                3 => {
                    rig.store.visible(&key(below(random, KEYS_COUNT)), &mut rig.out);
                }
                _ => {}
            }
            rig.turn();
            self.note(rig);
        }
    }

    /// Forgets what was applied but did not survive, as found in a store just opened.
    pub(super) fn forget_lost(&mut self, rig: &mut Rig, what: &str) {
        rig.settle();
        self.tickets.clear();
        self.applied.truncate(check_objects(rig, self, what));
    }

    pub(super) fn note_applied(&mut self, key: RowKey, delta: Object, lsn: Lsn) {
        self.applied.push(Applied { key, delta, lsn });
    }

    pub(super) fn note_synced(&mut self, synced: Lsn) {
        self.synced_count = self.applied.iter().take_while(|applied| applied.lsn <= synced).count();
    }

    pub(super) fn note(&mut self, rig: &Rig) {
        self.note_synced(rig.store.synced());
        for event in &rig.events {
            if let StoreEvent::Persisted { ticket } = event {
                self.blobs_persisted = self.blobs_persisted.max(self.tickets.get(ticket).copied().unwrap_or(0));
            }
        }
    }
}

/// Opens the disk, works for so many turns, stops early when the disk does.
pub(super) fn workload(disk: &SimDisk, seed: u64, turns: usize) -> History {
    let mut history = History::default();
    if let Ok(mut rig) = Rig::open(disk) {
        rig.turn();
        history.go_on(&mut rig, &mut random(seed), turns);
    }
    history
}

/// Opens what a crash has left and checks it against what was done before.
pub(super) fn check(image: &SimDisk, history: &History, what: &str) {
    let mut rig = Rig::open(image).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    assert_eq!(rig.recovered.damaged_records, 0, "{what}");
    // As the crash left them, nothing flushed since.
    drop(rig);
    verify(image, what);
    rig = Rig::open(image).unwrap_or_else(|error| panic!("{what}: does not open twice: {error}"));
    rig.settle();
    check_objects(&mut rig, history, what);
    let minted = rig.store.mint(&mut rig.out).unwrap_or_else(|| panic!("{what}: cannot mint"));
    assert!(history.dots.iter().all(|dot| *dot < minted), "{what}: dot {minted} may be a second one");
    let blob = rig.recovered.blobs.get("state").map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
    assert!((history.blobs_persisted..=history.blobs_asked).contains(&blob), "{what}: blob {blob}");
    // And it goes on: everything into the rows, nothing left in the log, all of it found again.
    rig.store.flush(&mut rig.out);
    rig.settle();
    assert!(!rig.has_failed(), "{what}");
    drop(rig);
    let mut rig = Rig::open(image).unwrap_or_else(|error| panic!("{what}: does not open again: {error}"));
    assert!(rig.recovered.memtable.is_empty(), "{what}: the log was not trimmed");
    check_objects(&mut rig, history, what);
    drop(rig);
    verify(image, what);
}

/// Digests, change feeds and checksums are those of the rows, recomputed.
pub(super) fn verify(image: &SimDisk, what: &str) {
    let store = StoppedStore::open(image).unwrap_or_else(|error| panic!("{what}: does not open for looking: {error}"));
    let found = store.verify(Some(&DIGEST_KEY), &mut |_, _| {}).unwrap();
    assert_eq!(found.first_damage(), None, "{what}: {found:?}");
}

/// The visible objects are those after some prefix of what was applied that holds everything synced. Returns its length.
fn check_objects(rig: &mut Rig, history: &History, what: &str) -> usize {
    let found: BTreeMap<RowKey, Object> = (0..KEYS_COUNT)
        .map(key)
        .map(|key| {
            let object = rig.read(&key).unwrap_or_else(|| panic!("{what}: {key:?} cannot be read"));
            let digest = object.digest(&DIGEST_KEY, &key.place());
            assert_eq!(rig.store.digest(&key), Some(digest), "{what}: digest of {key:?}");
            (key, object)
        })
        .collect();
    let matches = |count: &usize| {
        let objects = history.objects(*count);
        found.iter().all(|(key, object)| *object == objects.get(key).cloned().unwrap_or_default())
    };
    let (synced, applied) = (history.synced_count, history.applied.len());
    let prefix = (synced..=applied).find(matches);
    prefix.unwrap_or_else(|| panic!("{what}: no prefix of {synced}..={applied} deltas"))
}

pub(super) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(super) fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    random.next_u64() % bound
}
