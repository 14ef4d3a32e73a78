//! Lasting faults: one node of three stays away for good, and the two others must go on.
//!
//! Rule: whatever needs two replicas succeeds on both of them, within `TOGETHER_MAX` and `TRIES_MAX` tries; what needs the
//! third is never said to have happened. Faults that all end never show a system that waits for ever.
//! Units: virtual time. Source: notes/reliability.md §1 (VOPR's liveness mode).

use std::time::Duration;

use shoal_protocol::address::{KeyspaceName, Place};
use shoal_protocol::client::{ClientRequest, ClientResponse, Get, KeyspaceInfo, KeyspaceSpec, Operate};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::Class;
use shoal_protocol::object::Operation;

use super::Sim;
use super::faults::{Act, DiskAct};
use super::scenario::COLLECTION;

impl Sim {
    /// Everything heals but one node. Between the storm and this lies no good weather, or little.
    pub(super) fn demand_progress_of_two(&mut self) {
        let third = self.world.dice.index(3);
        self.calm();
        if self.world.dice.percent(50) {
            self.run_for(Duration::from_millis(500));
        }
        let is_gone = self.take_away(third);
        self.run_for(TOGETHER_MAX);
        let well = [(third + 1) % 3, (third + 2) % 3];
        for node in well {
            self.admin.forget_session();
            self.demand_reads(node);
            let Some(info) = self.demand_keyspace(node) else { return };
            let place = Place { keyspace: info.id, collection: COLLECTION.into(), key: "key".into() };
            let operation = Operation::CounterAdd { by: 1 };
            let operate = Operate { place: place.clone(), operation, context: None, w: None, quorum: None };
            self.demand(node, &ClientRequest::Operate(operate.clone()));
            self.demand(node, &ClientRequest::Get(Get { place: place.clone(), r: None, min_ctx: None }));
            if is_gone {
                self.demand_honesty(node, &ClientRequest::Operate(Operate { w: Some(3), ..operate }));
                self.demand_honesty(node, &ClientRequest::Get(Get { place, r: Some(3), min_ctx: None }));
            }
        }
    }

    /// Begins the fault; whether nothing can be learnt from the third any more.
    fn take_away(&mut self, third: usize) -> bool {
        let nodes = [0, 1, 2];
        let (to, from) = (nodes.map(|node| (node, third)), nodes.map(|node| (third, node)));
        let (what, act) = match self.world.dice.index(6) {
            0 => ("third dead", Act::Lose(third)),
            1 => ("third apart", Act::Stop([to, from].concat())),
            2 => ("third deaf", Act::Stop(to.to_vec())),
            3 => ("third mute", Act::Stop(from.to_vec())),
            4 => ("third's disk hangs", Act::Disk(third, DiskAct::Slow(u32::MAX))),
            _ => ("third's disk is full", Act::Disk(third, DiskAct::Full)),
        };
        self.world.count(what);
        let is_gone = matches!(act, Act::Lose(_) | Act::Stop(_));
        self.world.act(act);
        is_gone
    }

    /// Every key that two replicas may answer for can be read.
    fn demand_reads(&mut self, node: usize) {
        for key in 0..self.history.keys.len() {
            let space = self.history.space_of(key);
            if space.n < 3 || space.r > 2 {
                continue;
            }
            let get = Get { place: self.history.keys[key].place.clone(), r: None, min_ctx: None };
            let floor = self.history.floor(key, None);
            if let Some(ClientResponse::Got(got)) = self.demand(node, &ClientRequest::Get(get.clone())) {
                self.history.got(&mut self.world, key, (&get, &floor), &got);
            }
        }
    }

    /// A keyspace can be made, once for both.
    pub(super) fn demand_keyspace(&mut self, node: usize) -> Option<KeyspaceInfo> {
        let name = KeyspaceName::new("lasting").expect("a name");
        let spec = KeyspaceSpec { class: Class { n: 3, r: 0, w: 0 }, ..self.scenario.keyspaces[0].1 };
        let create = ClientRequest::CreateKeyspace { name: name.clone(), spec };
        let made = match self.insist(node, &create) {
            Some(Err(RequestError::KeyspaceExists { .. })) => {
                self.demand(node, &ClientRequest::ShowKeyspace { name: name.clone() })
            }
            answer => self.judge_demand(node, &create, answer),
        };
        match made {
            Some(ClientResponse::Keyspace(info)) => Some(info),
            Some(_) | None => None,
        }
    }

    /// Asks until it is done; a finding if it cannot be done.
    fn demand(&mut self, node: usize, request: &ClientRequest) -> Option<ClientResponse> {
        let answer = self.insist(node, request);
        self.judge_demand(node, request, answer)
    }

    fn judge_demand(&mut self, node: usize, request: &ClientRequest, answer: Answer) -> Option<ClientResponse> {
        match answer {
            Some(Ok(response)) => Some(response),
            Some(Err(_)) | None => {
                let text = format!("two nodes of three do not suffice for {request:?} at node {node}: {answer:?}");
                self.world.find("progress", text);
                None
            }
        }
    }

    /// Asks until there is an answer that another try would not change; else the last one.
    pub(super) fn insist(&mut self, node: usize, request: &ClientRequest) -> Answer {
        let mut last = None;
        for _ in 0..TRIES_MAX {
            last = self.ask(node, request.clone(), Duration::from_secs(2));
            match &last {
                Some(Err(error)) if error.is_retryable() => {}
                None => {}
                Some(_) => return last,
            }
        }
        last
    }

    /// What needs the third does not succeed without it.
    fn demand_honesty(&mut self, node: usize, request: &ClientRequest) {
        if let Some(Ok(response)) = self.ask(node, request.clone(), Duration::from_secs(1)) {
            let text = format!("node {node} answers {response:?} to {request:?} without the third");
            self.world.find("honest answers", text);
        }
    }
}

/// What a node said, if it said anything.
type Answer = Option<Result<ClientResponse, RequestError>>;

/// Two nodes serve so long after everything but the third is well again: messages, disks and repeated openings of the
/// storm may take three seconds each, then each node lets a peer confirm its lease.
const TOGETHER_MAX: Duration = Duration::from_secs(8);
/// Tries of one request, each with a deadline of its own.
const TRIES_MAX: usize = 4;
