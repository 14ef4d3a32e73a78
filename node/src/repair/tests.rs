//! Two nodes in memory, each with the room and its server over a map of objects, that are made equal.

use std::collections::VecDeque;

use proptest::prelude::*;
use shoal_protocol::address::Place;
use shoal_protocol::id::{Actor, RefillCount};
use shoal_protocol::object::{Digest, DigestKey, Element, Mint, Operation, bind, merge};
use shoal_protocol::peer::{Applied, Custody, Refusal};
use shoal_protocol::repair::{RepairAsk, bucket_of};
use shoal_protocol::time::Hlc;

use bytes::Bytes;
use shoal_protocol::id::{Class, KeyspaceId};

use super::*;
use crate::storage::{BucketDigest, BucketKeys, PartitionDigests};

const CLASS: Class = Class { n: 2, r: 0, w: 0 };
const KEYSPACES: [KeyspaceId; 2] = [KeyspaceId(1), KeyspaceId(9)];
const NODES: [NodeId; 2] = [NodeId(1), NodeId(2)];

type Objects = BTreeMap<RowKey, Object>;

/// One node: all of its state is in its rows, all of it synced.
struct Side {
    repair: Repair,
    server: Server<(usize, RequestId)>,
    objects: Objects,
    pulled: Vec<(Partition, NodeId)>,
    is_synced: bool,
}

struct Rig {
    sides: [Side; 2],
    now: Instant,
    /// Who is told what next.
    inputs: VecDeque<(usize, RepairInput)>,
    bytes: u64,
    /// Every such answer from the second node gets lost.
    lost: Option<fn(&PeerResponse) -> bool>,
    losses: usize,
}

fn place(number: u32) -> Place {
    let keyspace = KEYSPACES[number as usize % 2];
    Place { keyspace, collection: Bytes::new(), key: number.to_string().into_bytes().into() }
}

fn key(number: u32) -> RowKey {
    RowKey::new(place(number).partition(CLASS), &place(number))
}

/// An object in which these dots of one actor added an element each.
fn object(dots: impl IntoIterator<Item = u64>) -> Object {
    let mut object = Object::default();
    for n in dots {
        let dot = shoal_protocol::causality::Dot { actor: Actor(7), n };
        let mint = Mint { dot, prev: n - 1, hlc: Hlc::default(), total: None };
        let operation = Operation::SetAdd { element: Element::Int(i64::try_from(n).unwrap()) };
        object.merge_into(&bind(&operation, &mint, &Object::default()).unwrap());
    }
    object
}

const DIGEST_KEY: DigestKey = DigestKey([3; 32]);

impl Side {
    fn new(index: usize, objects: Objects) -> Self {
        let config = RepairConfig { bytes_per_s: 1 << 40, objects_per_s: 1 << 40, ..RepairConfig::default() };
        let repair = Repair::new(NODES[index], config, [index as u8; 32]);
        Self { repair, server: Server::new(1), objects, pulled: Vec::new(), is_synced: true }
    }

    fn digests(&self, partition: Partition) -> PartitionDigests {
        let mut buckets: BTreeMap<u16, BucketDigest> = BTreeMap::new();
        for (key, object) in self.objects.iter().filter(|(key, _)| key.partition() == partition) {
            let bucket = buckets.entry(bucket_of(&key.place())).or_default();
            bucket.count += 1;
            bucket.sum = bucket.sum.wrapping_add(object.digest(&DIGEST_KEY, &key.place()).0);
        }
        let rows_count = self.objects.len() as u64;
        PartitionDigests {
            buckets: buckets.into_iter().collect(),
            rows_count,
            recomputed: false,
            at: Default::default(),
        }
    }

    /// What its replica answers.
    fn answer(&mut self, request: &PeerRequest) -> PeerResponse {
        match request {
            PeerRequest::Get { place, have } => {
                let object = self.objects.get(&RowKey::new(place.partition(CLASS), place)).cloned().unwrap_or_default();
                let digest = object.digest(&DIGEST_KEY, place);
                if *have == Some(digest) {
                    PeerResponse::Same
                } else {
                    PeerResponse::State { object: object.encode(), digest }
                }
            }
            PeerRequest::Apply { place, delta, .. } => {
                let key = RowKey::new(place.partition(CLASS), place);
                self.objects.entry(key).or_default().merge_into(&Object::decode(delta).unwrap());
                self.server.changed(crate::storage::CellId::HOME);
                let custody = Custody { generation: 0, incarnation: Actor(1), refill: RefillCount(0) };
                PeerResponse::Applied(Applied { custody, lsn: Default::default(), known: Vec::new() })
            }
            PeerRequest::Scan(scan) => {
                let after = scan.after.as_ref().map(|(collection, key)| {
                    let place = Place { keyspace: scan.keyspace, collection: collection.clone(), key: key.clone() };
                    RowKey::new(scan.partition, &place)
                });
                let of = |key: &RowKey| key.partition() == scan.partition && key.keyspace() == scan.keyspace;
                let rows = self.objects.iter().filter(|(key, _)| of(key) && Some(*key) > after.as_ref());
                let mut rows: Vec<_> =
                    rows.map(|(key, object)| (key.place().collection, key.place().key, object.encode())).collect();
                // Small pages, so that there are several.
                let finished = rows.len() <= 2;
                rows.truncate(2);
                PeerResponse::Rows { rows, finished }
            }
            PeerRequest::Admit { .. }
            | PeerRequest::Mint { .. }
            | PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. }
            | PeerRequest::ConfirmLeases { .. }
            | PeerRequest::Members
            | PeerRequest::Repair(_) => panic!("repair asks no replica for {request:?}"),
        }
    }
}

impl Rig {
    fn new(objects: [Objects; 2]) -> Self {
        let [first, second] = objects;
        let partitions: BTreeSet<Partition> = (0..400).map(|number| key(number).partition()).collect();
        let mut rig = Self {
            sides: [Side::new(0, first), Side::new(1, second)],
            now: Instant(1_000_000_000),
            inputs: VecDeque::new(),
            bytes: 0,
            lost: None,
            losses: 0,
        };
        for index in 0..2 {
            let holding = Holding { others: [NODES[1 - index]].into(), heal_count: 1 };
            let held = Held {
                partitions: partitions.iter().map(|partition| (*partition, holding.clone())).collect(),
                keyspaces: [(CLASS, KEYSPACES.into())].into(),
            };
            rig.inputs.push_back((index, RepairInput::Held(held)));
        }
        rig
    }

    fn come(&mut self, index: usize) {
        self.inputs.push_back((index, RepairInput::PeerUp(NODES[1 - index])));
        self.run();
    }

    /// Lets time pass until nothing is due for a while.
    fn run(&mut self) {
        let until = self.now + Duration::from_secs(60);
        loop {
            while let Some((index, input)) = self.inputs.pop_front() {
                let mut effects = Vec::new();
                self.sides[index].repair.handle(self.now, input, &mut effects);
                effects.into_iter().for_each(|effect| self.perform(index, effect));
            }
            let next = (0..2).filter_map(|index| Some((self.sides[index].repair.next_deadline()?, index))).min();
            let Some((at, index)) = next.filter(|(at, _)| *at < until) else { return };
            self.now = self.now.max(at);
            self.inputs.push_back((index, RepairInput::Tick));
        }
    }

    fn perform(&mut self, index: usize, effect: RepairEffect) {
        match effect {
            RepairEffect::Ask { to, ask, request, .. } => {
                let at = NODES.iter().position(|node| *node == to).unwrap();
                if let PeerRequest::Repair(question) = request {
                    self.serve(at, (index, ask), question);
                } else {
                    let is_shown = at == index || self.sides[at].is_synced;
                    let refused = PeerResponse::Refused(Refusal::NotSynced);
                    let response = if is_shown { self.sides[at].answer(&request) } else { refused };
                    self.tell(at, (index, ask), response);
                }
            }
            RepairEffect::Ingest { ask, rows, .. } => {
                assert!(rows.is_sorted_by(|a, b| a.0 < b.0) && !rows.is_empty());
                for (key, bytes) in rows {
                    let object = Object::decode(&bytes).unwrap();
                    self.sides[index].objects.entry(key).or_default().merge_into(&object);
                }
                self.sides[index].server.changed(crate::storage::CellId::HOME);
                self.inputs.push_back((index, RepairInput::Ingested { ask }));
            }
            RepairEffect::Heal { ask, key, object } => {
                let place = key.place();
                let delta = object.encode();
                let cause = shoal_protocol::peer::ApplyCause::Exchange;
                let applied = self.sides[index].answer(&PeerRequest::Apply { place, delta, cause, compact_epoch: 0 });
                self.inputs.push_back((index, RepairInput::Answered { ask, response: applied }));
            }
            RepairEffect::Verify(partition) => {
                self.inputs.push_back((index, RepairInput::Verified { partition, report: Box::default() }));
            }
            RepairEffect::Refill(_) => self.inputs.push_back((index, RepairInput::Refilled)),
            RepairEffect::Pulled { partition, from } => self.sides[index].pulled.push((partition, from)),
        }
    }

    /// A question for a server: what it needs is at hand.
    fn serve(&mut self, at: usize, from: (usize, RequestId), ask: RepairAsk) {
        let side = &mut self.sides[at];
        let is_shown = from.0 == at || side.is_synced;
        let asked = match ask {
            RepairAsk::Roots { partitions, .. } => {
                Asked::Roots(partitions.into_iter().map(|partition| (partition, is_shown)).collect())
            }
            RepairAsk::Nodes { partition, level, nodes, .. } => Asked::Nodes { partition, level, nodes },
            RepairAsk::Keys { partition, buckets, .. } => Asked::Keys { partition, buckets },
            RepairAsk::Hold { .. } | RepairAsk::Owe { .. } => panic!("these are not for comparing"),
        };
        let mut effects = Vec::new();
        side.server.ask(from, asked, &mut effects);
        while let Some(effect) = effects.pop() {
            match effect {
                ServeEffect::Answer { to, response } => self.tell(at, to, response),
                ServeEffect::Flush { question, .. } => self.sides[at].server.flushed(question, &mut effects),
                ServeEffect::List(cell) => {
                    let filled = self.sides[at].objects.keys().map(RowKey::partition).collect();
                    self.sides[at].server.listed(cell, filled, &mut effects);
                }
                ServeEffect::Digests(partition) => {
                    let digests = self.sides[at].digests(partition);
                    self.sides[at].server.digests_read(partition, &digests, &mut effects);
                }
                ServeEffect::Keys { question, partition, buckets } => {
                    // A list that ends early, as a long one would.
                    let through = *buckets.iter().nth(buckets.len() / 2).unwrap();
                    let of = |key: &RowKey| {
                        let bucket = bucket_of(&key.place());
                        key.partition() == partition && bucket <= through && buckets.contains(&bucket)
                    };
                    let listed = self.sides[at].objects.iter().filter(|(key, _)| of(key));
                    let digest = |(key, object): (&RowKey, &Object)| -> (RowKey, Digest) {
                        (key.clone(), object.digest(&DIGEST_KEY, &key.place()))
                    };
                    let keys = BucketKeys { keys: listed.map(digest).collect(), damaged: Vec::new(), through };
                    self.sides[at].server.keys_read(question, keys, &mut effects);
                }
            }
        }
    }

    fn tell(&mut self, at: usize, (index, ask): (usize, RequestId), response: PeerResponse) {
        if at != index {
            self.bytes += shoal_protocol::codec::encode(&response).len() as u64;
            if at == 1 && self.lost.is_some_and(|lost| lost(&response)) {
                self.losses += 1;
                return;
            }
        }
        self.inputs.push_back((index, RepairInput::Answered { ask, response }));
    }

    fn joined(&self) -> Objects {
        let mut joined = self.sides[0].objects.clone();
        for (key, object) in &self.sides[1].objects {
            let held = joined.entry(key.clone()).or_default();
            *held = merge(held, object);
        }
        joined
    }
}

fn objects(sizes: impl IntoIterator<Item = (u32, u64)>) -> Objects {
    sizes.into_iter().map(|(number, dots)| (key(number), object(1..=dots))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_two_nodes_hold_one_exchange_makes_them_equal(
        shared in proptest::collection::btree_map(0..400u32, 1..4u64, 0..200),
        [first, second] in proptest::array::uniform2(proptest::collection::btree_map(0..400u32, 1..6u64, 0..60)),
    ) {
        let with = |own: &BTreeMap<u32, u64>| objects(shared.iter().chain(own).map(|(number, dots)| (*number, *dots)));
        let mut rig = Rig::new([with(&first), with(&second)]);
        let expected = rig.joined();
        rig.come(0);
        prop_assert_eq!(&rig.sides[0].objects, &expected);
        prop_assert_eq!(&rig.sides[1].objects, &expected);
        prop_assert_eq!(rig.sides[0].repair.figures().exchanges_count, 1);
        prop_assert!(rig.sides[0].repair.clean().all(|(_, _, clean)| clean.at.is_some()));
    }
}

#[test]
fn nodes_that_are_equal_tell_each_other_roots_and_nothing_else() {
    let same = || objects((0..300).map(|number| (number, 2)));
    let mut rig = Rig::new([same(), same()]);
    rig.come(0);
    let partitions = rig.sides[0].repair.clean().count() as u64;
    assert!(rig.bytes <= 9 * partitions + 32, "{} bytes for {partitions} partitions", rig.bytes);
}

#[test]
fn a_pull_of_everything_streams_it_and_is_told_once() {
    let mut rig = Rig::new([Objects::new(), objects((0..300).map(|number| (number, 2)))]);
    rig.come(0);
    assert_eq!(rig.sides[0].objects, rig.sides[1].objects);
    assert_eq!(rig.sides[0].repair.figures().streamed.objects, 300);
    let pulls: BTreeSet<_> = rig.joined().keys().map(|key| (key.partition(), NODES[1])).collect();
    for _ in 0..2 {
        rig.inputs.push_back((0, RepairInput::Wanted { pulls: pulls.clone() }));
        rig.run();
        assert_eq!(BTreeSet::from_iter(rig.sides[0].pulled.clone()), pulls);
        assert_eq!(rig.sides[0].pulled.len(), pulls.len(), "each is told once");
    }
    let progress = rig.sides[0].repair.pulls();
    assert_eq!((progress.wanted_count, progress.done_count), (pulls.len(), pulls.len()));
}

#[test]
fn a_source_that_is_catching_up_is_asked_again_later_and_never_believed() {
    let mut rig = Rig::new([Objects::new(), objects((0..50).map(|number| (number, 2)))]);
    rig.sides[1].is_synced = false;
    let pulls: BTreeSet<_> = rig.joined().keys().map(|key| (key.partition(), NODES[1])).collect();
    rig.inputs.push_back((0, RepairInput::Wanted { pulls: pulls.clone() }));
    rig.come(0);
    assert_eq!((rig.sides[0].objects.len(), rig.sides[0].pulled.len()), (0, 0));
    rig.sides[1].is_synced = true;
    rig.run();
    assert_eq!(rig.sides[0].pulled.len(), pulls.len());
    assert_eq!(rig.sides[0].objects, rig.sides[1].objects);
}

#[test]
fn what_gets_lost_is_asked_for_again_and_a_stream_goes_on_where_it_was() {
    fn is_later_page(response: &PeerResponse) -> bool {
        matches!(response, PeerResponse::Rows { rows, .. } if rows.iter().any(|(_, key, _)| key.ends_with(b"7")))
    }
    let mut rig = Rig::new([Objects::new(), objects((0..300).map(|number| (number, 2)))]);
    rig.lost = Some(is_later_page);
    rig.come(0);
    let before = rig.sides[0].repair.figures().streamed.objects;
    assert!(rig.losses > 0 && rig.sides[0].objects != rig.sides[1].objects);
    rig.lost = None;
    rig.inputs.push_back((0, RepairInput::PeerDown(NODES[1])));
    rig.come(0);
    assert_eq!(rig.sides[0].objects, rig.sides[1].objects);
    let streamed = rig.sides[0].repair.figures().streamed.objects;
    assert!(before > 0 && streamed <= 300, "{before}, then {streamed}: pages came twice");
}

#[test]
fn a_damaged_row_is_made_anew_from_the_others() {
    let whole = || objects([(5, 4)]);
    let mut rig = Rig::new([whole(), whole()]);
    rig.come(0);
    rig.sides[0].objects.clear();
    rig.inputs.push_back((0, RepairInput::Damaged { keys: vec![key(5)] }));
    rig.run();
    assert_eq!(rig.sides[0].objects, whole());
    let figures = rig.sides[0].repair.figures();
    assert_eq!((figures.damaged_count, figures.healed_count), (1, 1));
}
