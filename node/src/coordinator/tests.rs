//! Golden traces of the coordinator: what it asks, of whom, and what it answers, as text to be read in a diff.

use shoal_protocol::address::{KeyspaceName, Place};
use shoal_protocol::causality::{Context, ContextKey, Dot, EncodedContext};
use shoal_protocol::client::{self, ClientResponse, Get, KeyspaceInfo, KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_protocol::id::{Class, Lsn, RefillCount, ViewId};
use shoal_protocol::layout::{Intent, Layout, NodeRole, StoreMark};
use shoal_protocol::object::{Conflict, Mint, Object, Operation, Value, bind};
use shoal_protocol::peer::{Applied, Custody, Refusal};
use shoal_protocol::repair::RepairAsk;
use shoal_protocol::time::{Hlc, WallTime};

use super::*;

mod owing;

/// A coordinator on node 1 of three, and what it said.
struct Scene {
    coordinator: Coordinator<u8>,
    rings: Rings,
    alive: BTreeSet<NodeId>,
    suspects: BTreeSet<NodeId>,
    replaced: BTreeMap<NodeId, Custody>,
    keyspaces: BTreeMap<KeyspaceId, KeyspaceInfo>,
    keys: ContextKeys,
    digest_key: DigestKey,
    now: Now,
    asks: Vec<(RequestId, NodeId)>,
    trace: String,
}

impl Scene {
    fn new() -> Self {
        let nodes = (1..=3).map(|n| (NodeId(n), NodeRole::active("z"))).collect();
        let stores = (1..=3).map(|n| (NodeId(n), StoreMark::first(Actor::incarnation(n)))).collect();
        let spec = KeyspaceSpec {
            class: CLASS,
            layout: KeyspaceLayout::Collection,
            conflict: Conflict::Siblings,
            quorum: QuorumMode::Strict,
            ttl_s: None,
        };
        let info = KeyspaceInfo { id: KeyspaceId(7), name: KeyspaceName::new("app").unwrap(), spec };
        Self {
            coordinator: Coordinator::new(0),
            rings: Rings::new(&[Layout::new(Intent { nodes }, stores)], None).unwrap(),
            alive: (1..=3).map(NodeId).collect(),
            suspects: BTreeSet::new(),
            replaced: BTreeMap::new(),
            keyspaces: BTreeMap::from([(info.id, info)]),
            keys: ContextKeys(vec![ContextKey { id: 1, key: [1; 32] }]),
            digest_key: DigestKey([2; 32]),
            now: Now { instant: Instant(0), wall: WallTime(1_000_000) },
            asks: Vec::new(),
            trace: String::new(),
        }
    }

    fn run(&mut self, act: impl FnOnce(&mut Coordinator<u8>, Surroundings<'_>, &mut Vec<Effect<u8>>)) {
        let around = Surroundings {
            now: self.now,
            me: NodeId(1),
            rings: &self.rings,
            view: ViewId(0),
            alive: &self.alive,
            suspects: &self.suspects,
            replaced: &self.replaced,
            keyspaces: &self.keyspaces,
            context_keys: &self.keys,
            digest_key: &self.digest_key,
        };
        let mut out = Vec::new();
        act(&mut self.coordinator, around, &mut out);
        for effect in out {
            self.trace.push_str(&match effect {
                Effect::Ask { to, ask, request, .. } => {
                    self.asks.push((ask, to));
                    format!("ask {} {}\n", to.0, word(&request))
                }
                Effect::Answer { to, result } => format!("answer {to} {}\n", verdict(&result)),
                Effect::Owe(Owing { target, by, .. }) => format!("{} owes it to {}\n", by.0, target.0),
                Effect::Exchange { with } => format!("exchange {}\n", with.0),
            });
        }
    }

    fn start(&mut self, request: ClientRequest) {
        let deadline = self.now.instant + Duration::from_secs(1);
        self.run(|c, around, out| c.start(around, 9, Call { session: SESSION, deadline, request }, out));
    }

    /// The newest question to `node` is answered.
    fn answer(&mut self, node: u64, response: PeerResponse) {
        let ask = self.asks.iter().rev().find(|(_, to)| to.0 == node).expect("it was asked").0;
        self.trace.push_str(&format!("  {node} says {}\n", said(&response)));
        self.run(|c, around, out| c.answered(around, ask, response, out));
    }

    fn down(&mut self, node: u64) {
        self.alive.remove(&NodeId(node));
        self.trace.push_str(&format!("  {node} is down\n"));
        self.run(|c, around, out| c.peer_down(around, NodeId(node), out));
    }

    fn wait(&mut self, ms: u64) {
        self.now.instant = self.now.instant + Duration::from_millis(ms);
        self.trace.push_str(&format!("  {ms} ms later\n"));
        self.run(|c, around, out| c.tick(around, out));
    }

    fn state(&self, object: &Object) -> PeerResponse {
        PeerResponse::State { object: object.encode(), digest: object.digest(&self.digest_key, &place()) }
    }
}

fn word(request: &PeerRequest) -> String {
    match request {
        PeerRequest::Apply { cause, .. } => format!("apply ({cause:?})"),
        PeerRequest::Get { have, .. } => if have.is_some() { "get, have" } else { "get" }.into(),
        PeerRequest::Scan(scan) => format!("scan up to {}", scan.rows_max),
        PeerRequest::Admit { .. } => "admit".into(),
        PeerRequest::Mint { .. } => "mint".into(),
        PeerRequest::CompareSystem { .. } | PeerRequest::System { .. } => "system".into(),
        PeerRequest::ConfirmLeases { .. } => "leases".into(),
        PeerRequest::Members => "members".into(),
        PeerRequest::Repair(RepairAsk::Hold { target, .. }) => format!("hold for {}", target.0),
        PeerRequest::Repair(_) => "repair".into(),
    }
}

fn said(response: &PeerResponse) -> String {
    match response {
        PeerResponse::Refused(refusal) => format!("refused: {refusal}"),
        PeerResponse::Applied(_) => "applied".into(),
        PeerResponse::Admitted => "admitted".into(),
        PeerResponse::Minted { .. } => "minted".into(),
        PeerResponse::Same => "same".into(),
        PeerResponse::State { object, .. } if Object::decode(object).unwrap().is_vacant() => "nothing".into(),
        PeerResponse::State { .. } => "an object".into(),
        PeerResponse::Rows { rows, finished } => format!("{} rows{}", rows.len(), if *finished { ", all" } else { "" }),
        PeerResponse::System { .. } => "system".into(),
        PeerResponse::Leases { .. } => "leases".into(),
        PeerResponse::Members(_) => "members".into(),
        PeerResponse::Repair(_) => "repair".into(),
    }
}

fn verdict(result: &Result<ClientResponse, RequestError>) -> String {
    match result {
        Ok(ClientResponse::Got(got)) => format!("got from {}{}", got.replies, if got.weak { ", weak" } else { "" }),
        Ok(ClientResponse::Written(w)) if w.fallbacks > 0 => {
            format!("written with {}, {} by fallbacks", w.acks, w.fallbacks)
        }
        Ok(ClientResponse::Written(w)) => format!("written with {}{}", w.acks, if w.weak { ", weak" } else { "" }),
        Ok(ClientResponse::Page(page)) => format!("{} rows, complete {}", page.rows.len(), page.complete),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("{}: {error}", error.code()),
    }
}

fn place() -> Place {
    Place { keyspace: KeyspaceId(7), collection: "c".into(), key: "k".into() }
}

fn put(n: u64) -> Object {
    let mint = Mint { dot: Dot { actor: SESSION, n }, prev: n - 1, hlc: Hlc(1), total: None };
    bind(&Operation::AddSibling { value: Value::json("1") }, &mint, &Object::default()).unwrap()
}

fn write(w: Option<u8>) -> ClientRequest {
    ClientRequest::Write(client::Write {
        place: place(),
        delta: put(1).encode(),
        contexts: Vec::new(),
        w,
        quorum: None,
    })
}

fn get(r: Option<u8>) -> ClientRequest {
    ClientRequest::Get(Get { place: place(), r, min_ctx: None })
}

fn applied() -> PeerResponse {
    applied_under(0, &[])
}

/// An ack of a node's store of this generation, which knows the stores of these others.
fn applied_under(generation: u64, known: &[(u64, u64)]) -> PeerResponse {
    let known = known.iter().map(|&(node, generation)| (NodeId(node), custody(generation))).collect();
    PeerResponse::Applied(Applied { custody: custody(generation), lsn: Lsn(1), known })
}

fn custody(generation: u64) -> Custody {
    Custody { generation, incarnation: Actor::incarnation(1), refill: RefillCount::default() }
}

const CLASS: Class = Class { n: 3, r: 0, w: 0 };
const SESSION: Actor = Actor::session(20_000, 1);

#[test]
fn a_write_passes_one_door_and_answers_with_w_acks() {
    let mut scene = Scene::new();
    scene.start(write(None));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(3, applied());
    scene.answer(1, applied());
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn a_refusal_is_a_verdict_only_while_no_replica_can_have_accepted() {
    let mut scene = Scene::new();
    scene.start(write(None));
    scene.answer(1, PeerResponse::Refused(Refusal::Request(RequestError::ForgedContext)));
    scene.start(write(None));
    scene.down(1);
    scene.answer(2, PeerResponse::Refused(Refusal::Request(RequestError::ForgedContext)));
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn a_lost_ack_makes_the_outcome_unknown_at_the_deadline() {
    let mut scene = Scene::new();
    scene.start(write(Some(3)));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(1, applied());
    scene.answer(2, applied());
    scene.wait(1_000);
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn a_mint_is_never_tried_at_a_second_replica() {
    let mut scene = Scene::new();
    let operation = Operation::CounterAdd { by: 1 };
    scene.start(ClientRequest::Operate(client::Operate {
        place: place(),
        operation,
        context: None,
        w: None,
        quorum: None,
    }));
    scene.down(1);
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn a_stale_replica_is_repaired_after_the_answer() {
    let mut scene = Scene::new();
    scene.start(get(None));
    let fresh = scene.state(&put(1));
    scene.answer(1, fresh);
    let nothing = scene.state(&Object::default());
    scene.answer(2, nothing);
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn a_suspect_is_not_read_from_while_another_can_be() {
    for (suspect, other) in [(2, 3), (3, 2)] {
        let mut scene = Scene::new();
        scene.suspects.insert(NodeId(suspect));
        scene.start(get(None));
        let fresh = scene.state(&put(1));
        scene.answer(1, fresh);
        let asked = |node| scene.asks.iter().any(|(_, asked)| *asked == NodeId(node));
        assert!(asked(other) && !asked(suspect), "{:?}", scene.asks);
    }
}

#[test]
fn a_slow_replica_is_hedged_and_its_late_answer_is_repaired_too() {
    let mut scene = Scene::new();
    scene.start(get(None));
    let fresh = scene.state(&put(1));
    scene.answer(1, fresh);
    scene.wait(50);
    scene.answer(3, PeerResponse::Same);
    let nothing = scene.state(&Object::default());
    scene.answer(2, nothing);
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn what_cannot_reach_its_quorum_is_refused_before_anything_is_sent() {
    let mut scene = Scene::new();
    scene.down(2);
    scene.down(3);
    scene.start(write(None));
    scene.start(get(None));
    scene.start(get(Some(1)));
    scene.start(get(Some(4)));
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn a_batch_answers_once_with_every_verdict() {
    let mut scene = Scene::new();
    scene.start(ClientRequest::Batch(vec![get(Some(1)), get(Some(4))]));
    let nothing = scene.state(&Object::default());
    scene.answer(1, nothing);
    assert_eq!(scene.trace.matches("answer 9").count(), 1);
    assert!(scene.trace.contains("TooFewNodes { asked: 4, nodes: 3 }"));
    assert_eq!(scene.coordinator.in_flight(), 0);
}

#[test]
fn an_ack_of_a_store_that_another_acker_knows_to_be_replaced_does_not_count() {
    let mut scene = Scene::new();
    scene.start(write(None));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(1, applied());
    scene.answer(2, applied_under(0, &[(1, 1)]));
    scene.answer(3, applied_under(0, &[(1, 1)]));
    // The write stays open while only one ack counts, and no third replica can make up for the one that does not.
    scene.start(write(Some(3)));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(1, applied());
    scene.answer(2, applied_under(0, &[(1, 1)]));
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn this_node_s_own_view_voids_acks_too_and_the_new_store_s_acks_count() {
    let mut scene = Scene::new();
    scene.replaced.insert(NodeId(2), custody(1));
    scene.start(write(None));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(2, applied());
    scene.answer(1, applied());
    scene.answer(3, applied());
    scene.start(write(None));
    scene.answer(1, PeerResponse::Admitted);
    scene.answer(2, applied_under(1, &[]));
    scene.answer(1, applied_under(0, &[(2, 1)]));
    insta::assert_snapshot!(scene.trace);
}

#[test]
fn reads_scans_and_doors_pass_by_a_replica_that_is_catching_up() {
    let mut scene = Scene::new();
    scene.replaced.insert(NodeId(1), custody(1));
    scene.start(get(None));
    let fresh = scene.state(&put(1));
    scene.answer(2, fresh.clone());
    scene.answer(3, fresh.clone());
    scene.start(get(Some(3)));
    scene.start(write(None));
    scene.answer(2, PeerResponse::Refused(Refusal::Overloaded));
    scene.answer(3, PeerResponse::Refused(Refusal::Overloaded));
    // It learns what this node does not know yet: the answer of the third does not become "absent".
    scene.replaced.clear();
    scene.start(get(None));
    scene.answer(1, PeerResponse::Refused(Refusal::NotSynced));
    scene.answer(2, fresh);
    scene.answer(3, PeerResponse::Refused(Refusal::NotSynced));
    insta::assert_snapshot!(scene.trace);
}

/// The codes with which this is refused; nothing may be asked of any replica.
fn refused(request: ClientRequest) -> String {
    let mut scene = Scene::new();
    scene.start(request);
    assert!(scene.asks.is_empty(), "{}", scene.trace);
    scene.trace.trim_start_matches("answer 9 ").split(':').next().unwrap_or_default().to_owned()
}

#[test]
fn bad_contexts_and_forged_deltas_stop_at_the_door() {
    let scene = Scene::new();
    let seen = put(1).context().clone();
    let elsewhere = Place { key: "other".into(), ..place() };
    let foreign = EncodedContext::seal(&scene.keys, &elsewhere, &seen);
    let unknown_key = ContextKeys(vec![ContextKey { id: 9, key: [9; 32] }]);
    let made_up = EncodedContext::seal(&unknown_key, &place(), &seen);
    let reading = |context| ClientRequest::Get(Get { place: place(), r: None, min_ctx: Some(context) });
    assert_eq!(refused(reading(foreign)), "context_mismatch");
    assert_eq!(refused(reading(made_up)), "context_invalid");

    let other = Actor::session(20_000, 2);
    let covers_other = |contexts| {
        let mut context = Context::default();
        context.insert_range(other, 0, 7);
        let mint = Mint { dot: Dot { actor: SESSION, n: 1 }, prev: 0, hlc: Hlc(1), total: None };
        let delta = bind(&Operation::Delete, &mint, &Object::of_context(context)).unwrap().encode();
        ClientRequest::Write(client::Write { place: place(), delta, contexts, w: None, quorum: None })
    };
    assert_eq!(refused(covers_other(Vec::new())), "forged_context");
    let mint = Mint { dot: Dot { actor: other, n: 1 }, prev: 0, hlc: Hlc(1), total: None };
    let delta = bind(&Operation::Enable, &mint, &Object::default()).unwrap().encode();
    let write = |delta| {
        ClientRequest::Write(client::Write { place: place(), delta, contexts: Vec::new(), w: None, quorum: None })
    };
    assert_eq!(refused(write(delta)), "foreign_session");
    let mint = Mint { dot: Dot { actor: SESSION, n: 1 }, prev: 0, hlc: Hlc(u64::MAX), total: None };
    let operation = Operation::AddSibling { value: Value::json("1") };
    let delta = bind(&operation, &mint, &Object::default()).unwrap().encode();
    assert_eq!(refused(write(delta)), "clock_skew");
    assert_eq!(refused(write("no delta".into())), "bad_request");
}
