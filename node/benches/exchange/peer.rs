//! Two nodes' stores, rooms and servers, tied together without a network.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use shoal_node::host::disk::DirectoryDisk;
use shoal_node::repair::{
    Asked, Held, Holding, KEYS_BYTES_MAX, QuestionId, Repair, RepairConfig, RepairEffect, RepairInput, ServeEffect,
    Server,
};
use shoal_node::replica::{Question, Replica, ReplicaEffect};
use shoal_node::storage::engine::log::LogOptions;
use shoal_node::storage::engine::{Doubt, Engine, OpenOptions};
use shoal_node::storage::{
    Budget, CellId, CellPlace, IngestId, KeysId, KeysRequest, RowKey, Store, StoreDone, StoreEffect, StoreEvent,
};
use shoal_protocol::codec;
use shoal_protocol::id::{Actor, KeyspaceId, Lsn, NodeId, PARTITIONS_COUNT, Partition, RefillCount, RequestId};
use shoal_protocol::object::{DigestKey, Limits, Object};
use shoal_protocol::peer::{Applied, Custody, PeerRequest, PeerResponse};
use shoal_protocol::repair::RepairAsk;
use shoal_protocol::time::{Instant, Now, WallTime};

use crate::{CLASS, Outcome};

/// What passed between the nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes: u64,
    /// Of answers and questions that carry objects.
    pub(crate) objects_bytes: u64,
    pub(crate) messages: u64,
}

/// Two nodes.
pub(crate) struct Pair {
    sides: [Side; 2],
    now: Instant,
    todo: VecDeque<(usize, Todo)>,
    traffic: Traffic,
    _directories: [tempfile::TempDir; 2],
}

struct Side {
    replica: Replica<Asker>,
    engine: Engine<DirectoryDisk>,
    repair: Repair,
    server: Server<Asker>,
    flushes: BTreeMap<QuestionId, Lsn>,
    ingests: BTreeMap<IngestId, RequestId>,
}

/// Which node's room asks, and its name for it.
type Asker = (usize, RequestId);

enum Todo {
    Repair(RepairInput),
    Stored(StoreDone),
    Serve(ServeEffect<Asker>),
    Replica(ReplicaEffect<Asker>),
}

impl Pair {
    pub(crate) fn open() -> Outcome<Self> {
        let directories = [tempfile::tempdir()?, tempfile::tempdir()?];
        let mut todo = VecDeque::new();
        let first = Side::open(0, &directories[0], &mut todo)?;
        let second = Side::open(1, &directories[1], &mut todo)?;
        let now = Instant(1_000_000);
        let mut pair =
            Self { sides: [first, second], now, todo, traffic: Traffic::default(), _directories: directories };
        for index in 0..2 {
            let holding = Holding { others: [node(1 - index)].into(), heal_count: 1 };
            let partitions = (0..PARTITIONS_COUNT).map(|index| (Partition { class: CLASS, index }, holding.clone()));
            let held = Held { partitions: partitions.collect(), keyspaces: [(CLASS, [KeyspaceId(1)].into())].into() };
            pair.todo.push_back((index, Todo::Repair(RepairInput::Held(held))));
        }
        pair.run()?;
        Ok(pair)
    }

    /// Puts rows into both, past their logs.
    pub(crate) fn load(&mut self, rows: &[(RowKey, Bytes)]) -> Outcome<()> {
        for index in 0..2 {
            let mut effects = Vec::new();
            self.sides[index].replica.store_mut().ingest(rows.to_vec(), &mut effects).ok_or("no store")?;
            self.perform(index, effects);
        }
        self.run()
    }

    /// Overwrites keys at the second node only.
    pub(crate) fn overwrite(&mut self, changes: &[(RowKey, Object)]) -> Outcome<()> {
        for (key, object) in changes {
            let mut effects = Vec::new();
            self.sides[1].replica.store_mut().apply(key, object, object.encode(), &mut effects);
            self.perform(1, effects);
            self.run()?;
        }
        let mut effects = Vec::new();
        self.sides[1].replica.store_mut().flush_all(&mut effects);
        self.perform(1, effects);
        self.run()
    }

    /// One exchange of the first node with the second, until nothing is left of it.
    pub(crate) fn exchange(&mut self) -> Outcome<Traffic> {
        self.traffic = Traffic::default();
        let before = self.sides[0].repair.figures().exchanges_count;
        self.todo.push_back((0, Todo::Repair(RepairInput::PeerDown(node(1)))));
        self.todo.push_back((0, Todo::Repair(RepairInput::PeerUp(node(1)))));
        while self.sides[0].repair.figures().exchanges_count == before {
            self.run()?;
            let next = self.sides[0].repair.next_deadline().ok_or("nothing is due")?;
            self.now = self.now.max(next);
            self.todo.push_back((0, Todo::Repair(RepairInput::Tick)));
        }
        Ok(self.traffic)
    }

    /// Both hold the same now.
    pub(crate) fn check(&mut self) -> Outcome<()> {
        let silent = self.exchange()?;
        if silent.objects_bytes > 0 { Err("an exchange left something that differs".into()) } else { Ok(()) }
    }

    fn run(&mut self) -> Outcome<()> {
        while let Some((index, todo)) = self.todo.pop_front() {
            match todo {
                Todo::Repair(input) => {
                    let mut effects = Vec::new();
                    self.sides[index].repair.handle(self.now, input, &mut effects);
                    for effect in effects {
                        self.repair(index, effect)?;
                    }
                }
                Todo::Stored(done) => {
                    let (now, mut effects) = (self.clock(), Vec::new());
                    self.sides[index].replica.stored(now, done, &mut effects);
                    self.todo.extend(effects.into_iter().map(|effect| (index, Todo::Replica(effect))));
                }
                Todo::Serve(effect) => self.serve(index, effect),
                Todo::Replica(effect) => self.replica(index, effect)?,
            }
        }
        Ok(())
    }

    fn clock(&self) -> Now {
        Now { instant: self.now, wall: WallTime(1_800_000_000_000) }
    }

    fn perform(&mut self, index: usize, effects: Vec<StoreEffect>) {
        let done = self.sides[index].engine.perform(effects);
        self.todo.extend(done.into_iter().map(|done| (index, Todo::Stored(done))));
    }

    fn repair(&mut self, index: usize, effect: RepairEffect) -> Outcome<()> {
        match effect {
            RepairEffect::Ask { to, ask, request, deadline } => {
                let at = usize::from(to == node(1));
                if at != index {
                    self.count(codec::encode(&request).len(), matches!(request, PeerRequest::Apply { .. }));
                }
                self.ask(at, (index, ask), (deadline, request));
            }
            RepairEffect::Ingest { ask, rows, .. } => {
                let mut effects = Vec::new();
                let id = self.sides[index].replica.store_mut().ingest(rows, &mut effects).ok_or("no store")?;
                self.sides[index].ingests.insert(id, ask);
                self.perform(index, effects);
            }
            RepairEffect::Verify(_)
            | RepairEffect::Pulled { .. }
            | RepairEffect::Heal { .. }
            | RepairEffect::Refill(_) => {}
        }
        Ok(())
    }

    fn ask(&mut self, at: usize, from: Asker, (deadline, request): (Instant, PeerRequest)) {
        let side = &mut self.sides[at];
        let asked = match request {
            PeerRequest::Repair(RepairAsk::Roots { partitions, .. }) => {
                Asked::Roots(partitions.into_iter().map(|partition| (partition, true)).collect())
            }
            PeerRequest::Repair(RepairAsk::Nodes { partition, level, nodes, .. }) => {
                Asked::Nodes { partition, level, nodes }
            }
            PeerRequest::Repair(RepairAsk::Keys { partition, buckets, .. }) => Asked::Keys { partition, buckets },
            request => {
                let partition = match &request {
                    PeerRequest::Apply { place, .. } | PeerRequest::Get { place, .. } => place.partition(CLASS),
                    PeerRequest::Scan(scan) => scan.partition,
                    other => panic!("{other:?}"),
                };
                let (now, mut effects) = (Now { instant: self.now, wall: WallTime(1_800_000_000_000) }, Vec::new());
                side.replica.ask(now, Question { from, deadline, partition, request }, &mut effects);
                return self.todo.extend(effects.into_iter().map(|effect| (at, Todo::Replica(effect))));
            }
        };
        let mut effects = Vec::new();
        side.server.ask(from, asked, &mut effects);
        self.todo.extend(effects.into_iter().map(|effect| (at, Todo::Serve(effect))));
    }

    fn serve(&mut self, index: usize, effect: ServeEffect<Asker>) {
        let (side, mut effects) = (&mut self.sides[index], Vec::new());
        match effect {
            ServeEffect::Answer { to, response } => return self.answer(index, to, response),
            ServeEffect::Flush { question, .. } => {
                let lsn = side.replica.store_mut().flush_all(&mut effects);
                side.flushes.insert(question, lsn);
            }
            ServeEffect::List(_) => side.replica.store().list_partitions(&mut effects),
            ServeEffect::Digests(partition) => side.replica.store().read_digests(partition, &mut effects),
            ServeEffect::Keys { question, partition, buckets } => {
                let id = KeysId(question);
                let request = KeysRequest { id, partition, buckets, bytes_max: KEYS_BYTES_MAX };
                side.replica.store().list_keys(request, &mut effects);
            }
        }
        self.perform(index, effects);
        self.finish_flushes(index);
    }

    fn finish_flushes(&mut self, index: usize) {
        let (side, mut effects) = (&mut self.sides[index], Vec::new());
        let through = side.replica.store().flushed_through();
        let done: Vec<_> = side.flushes.extract_if(.., |_, lsn| *lsn <= through).collect();
        done.into_iter().for_each(|(question, _)| side.server.flushed(question, &mut effects));
        self.todo.extend(effects.into_iter().map(|effect| (index, Todo::Serve(effect))));
    }

    fn replica(&mut self, index: usize, effect: ReplicaEffect<Asker>) -> Outcome<()> {
        match effect {
            ReplicaEffect::Answer { to, response } => self.answer(index, to, response),
            ReplicaEffect::Ack { to, lsn, .. } => {
                let custody = Custody { generation: 0, incarnation: Actor(1), refill: RefillCount(0) };
                let applied = Applied { custody, lsn, known: Vec::new() };
                self.answer(index, to, PeerResponse::Applied(applied));
            }
            ReplicaEffect::Store(effect) => self.perform(index, vec![effect]),
            ReplicaEffect::Failed(failure) => return Err(failure.into()),
            ReplicaEffect::Repair(event) => self.stored(index, event),
            ReplicaEffect::Persisted(_)
            | ReplicaEffect::Leased
            | ReplicaEffect::Reopened { .. }
            | ReplicaEffect::Damaged(_)
            | ReplicaEffect::Refilled => {}
        }
        Ok(())
    }

    fn stored(&mut self, index: usize, event: StoreEvent) {
        let (side, mut effects) = (&mut self.sides[index], Vec::new());
        match event {
            StoreEvent::Digests { partition, digests } => side.server.digests_read(partition, &digests, &mut effects),
            StoreEvent::Partitions { partitions } => side.server.listed(CellId::HOME, partitions, &mut effects),
            StoreEvent::Keys { id, keys } => side.server.keys_read(id.0, keys, &mut effects),
            StoreEvent::Flushed => {
                side.server.changed(CellId::HOME);
                self.finish_flushes(index);
            }
            StoreEvent::Ingested { id } => {
                side.server.changed(CellId::HOME);
                if let Some(ask) = side.ingests.remove(&id) {
                    self.todo.push_back((index, Todo::Repair(RepairInput::Ingested { ask })));
                }
            }
            other => panic!("{other:?} is not for repair"),
        }
        self.todo.extend(effects.into_iter().map(|effect| (index, Todo::Serve(effect))));
    }

    fn answer(&mut self, at: usize, (index, ask): Asker, response: PeerResponse) {
        if at != index {
            let has_objects = matches!(response, PeerResponse::State { .. } | PeerResponse::Rows { .. });
            self.count(codec::encode(&response).len(), has_objects);
        }
        self.todo.push_back((index, Todo::Repair(RepairInput::Answered { ask, response })));
    }

    fn count(&mut self, bytes: usize, has_objects: bool) {
        self.traffic.bytes += bytes as u64;
        self.traffic.objects_bytes += if has_objects { bytes as u64 } else { 0 };
        self.traffic.messages += 1;
    }
}

impl Side {
    fn open(index: usize, directory: &tempfile::TempDir, todo: &mut VecDeque<(usize, Todo)>) -> Outcome<Self> {
        let options = OpenOptions {
            node: node(index),
            cluster: None,
            place: CellPlace::ALONE,
            incarnation: Actor::incarnation(index as u64 + 1),
            cache_bytes: 64 << 20,
            log: LogOptions::default(),
            reserve_bytes: 0,
            doubt: Doubt::Nothing,
        };
        let (mut engine, recovered) = Engine::open(&DirectoryDisk::open(directory.path())?, &options)?;
        let mut effects = Vec::new();
        let mut store = Store::new(Budget::default(), recovered, &mut effects);
        store.set_digest_key(DigestKey([7; 32]), &mut effects);
        todo.extend(engine.perform(effects).into_iter().map(|done| (index, Todo::Stored(done))));
        let config = RepairConfig {
            bytes_per_s: 1 << 50,
            objects_per_s: 1 << 40,
            scrub_period_s: 1 << 30,
            ..RepairConfig::default()
        };
        Ok(Self {
            replica: Replica::new(store, Limits::default(), None)?,
            engine,
            repair: Repair::new(node(index), config, [index as u8; 32]),
            server: Server::new(1),
            flushes: BTreeMap::new(),
            ingests: BTreeMap::new(),
        })
    }
}

fn node(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}
