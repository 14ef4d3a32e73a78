//! The administrator: makes keyspaces, meddles with them, and asks plain questions with plain waiting.
//!
//! Rules: of two keyspaces made under one name at once at most one exists; a dropped one never comes back; one made again
//! under the same name has another id and is empty; all nodes end with the same list.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use shoal_protocol::address::{KeyspaceName, Place};
use shoal_protocol::client::{
    ClientCall, ClientRequest, ClientResponse, Get, KeyspaceInfo, KeyspaceLayout, KeyspaceSpec, Operate, SessionGrant,
};
use shoal_protocol::cluster::{LayoutChange, LayoutNode, RoleChange};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{KeyspaceId, NodeId};
use shoal_protocol::layout::NodeState;
use shoal_protocol::object::{Object, Operation, Value};

use super::Sim;
use super::scenario::COLLECTION;
use super::world::{ClientAsk, Outcome};

/// What the administrator knows.
#[derive(Debug)]
pub(super) struct Admin {
    index: usize,
    grant: Option<SessionGrant>,
    next: u64,
    inbox: BTreeMap<u64, Outcome>,
    /// Nodes that were asked to leave.
    leaving: BTreeSet<usize>,
    /// Keyspaces known to be dropped.
    pub(super) dropped: Vec<KeyspaceId>,
}

impl Admin {
    pub(super) fn new(index: usize) -> Self {
        Self { index, grant: None, next: 0, inbox: BTreeMap::new(), leaving: BTreeSet::new(), dropped: Vec::new() }
    }

    pub(super) fn answered(&mut self, attempt: u64, outcome: Outcome) {
        self.inbox.insert(attempt, outcome);
    }

    /// The next question asks for a session first.
    pub(super) fn forget_session(&mut self) {
        self.grant = None;
    }
}

impl Sim {
    /// Makes all keyspaces, trying again and again; whether they exist in the end.
    pub(super) fn set_up(&mut self) -> bool {
        let until = self.world.now + SET_UP_MAX;
        while self.history.spaces.len() < self.scenario.keyspaces.len() {
            if self.world.now > until {
                return false;
            }
            let (name, spec) = self.scenario.keyspaces[self.history.spaces.len()].clone();
            if let Some(info) = self.make(&name, spec) {
                if info.spec != spec {
                    self.world.find("keyspaces", format!("`{name}` was made otherwise than asked"));
                }
                self.history.add_space(&self.scenario, (name, info.id, spec));
            }
        }
        true
    }

    /// One try to make a keyspace, or to see that it exists.
    fn make(&mut self, name: &KeyspaceName, spec: KeyspaceSpec) -> Option<KeyspaceInfo> {
        let node = self.world.dice.index(self.world.nodes());
        let create = ClientRequest::CreateKeyspace { name: name.clone(), spec };
        match self.ask(node, create, Duration::from_secs(3)) {
            Some(Ok(ClientResponse::Keyspace(info))) => {
                self.use_elsewhere(&info);
                Some(info)
            }
            Some(Ok(other)) => {
                self.world.find("honest answers", format!("{other:?} to a creation"));
                None
            }
            Some(Err(RequestError::KeyspaceExists { .. } | RequestError::Unknown { .. })) | None => {
                match self.ask(node, ClientRequest::ShowKeyspace { name: name.clone() }, Duration::from_secs(1)) {
                    Some(Ok(ClientResponse::Keyspace(info))) => Some(info),
                    Some(_) | None => None,
                }
            }
            Some(Err(_)) => {
                self.run_for(Duration::from_millis(100));
                None
            }
        }
    }

    /// A keyspace that was made just now is there for whoever asks, at every node.
    fn use_elsewhere(&mut self, info: &KeyspaceInfo) {
        let node = self.world.dice.index(self.world.nodes());
        let by_name = ClientRequest::ShowKeyspace { name: info.name.clone() };
        let collection = match info.spec.layout {
            KeyspaceLayout::Collection => COLLECTION.into(),
            KeyspaceLayout::Key => Bytes::new(),
        };
        let place = Place { keyspace: info.id, collection, key: Bytes::from_static(b"nothing") };
        let by_id = ClientRequest::Get(Get { place, r: None, min_ctx: None });
        for request in [by_name, by_id] {
            let answer = self.ask(node, request, Duration::from_secs(1));
            if let Some(Err(error @ (RequestError::UnknownKeyspace { .. } | RequestError::KeyspaceGone { .. }))) =
                answer
            {
                self.world.find("keyspaces", format!("`{}` was made and node {node} says: {error}", info.name));
            }
        }
    }

    /// Asks one node once. `None`: no answer.
    pub(super) fn ask(
        &mut self,
        node: usize,
        request: ClientRequest,
        wait: Duration,
    ) -> Option<Result<ClientResponse, RequestError>> {
        let grant = match self.admin.grant {
            Some(grant) => grant,
            None => match self.attempt(node, ClientAsk::Hello, wait)? {
                Outcome::Welcome(welcome) => *self.admin.grant.insert(welcome.session),
                Outcome::Answer(Err(error)) => return Some(Err(error)),
                Outcome::Answer(Ok(_)) | Outcome::NotSent | Outcome::Lost => return None,
            },
        };
        let deadline_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        match self.attempt(node, ClientAsk::Call(grant, Box::new(ClientCall { deadline_ms, request })), wait)? {
            Outcome::Answer(answer) => Some(answer),
            Outcome::Welcome(_) | Outcome::NotSent | Outcome::Lost => None,
        }
    }

    fn attempt(&mut self, node: usize, ask: ClientAsk, wait: Duration) -> Option<Outcome> {
        let attempt = self.send(node, ask);
        let until = self.world.now + wait + Duration::from_millis(100);
        self.run_until(until, |sim| sim.admin.inbox.contains_key(&attempt));
        self.admin.inbox.remove(&attempt)
    }

    fn send(&mut self, node: usize, ask: ClientAsk) -> u64 {
        self.admin.next += 1;
        let attempt = (self.admin.index as u64) << 32 | self.admin.next;
        self.world.ask(self.admin.index, node, attempt, ask);
        attempt
    }

    /// Some node is to give everything away; whether that is known to be stored.
    pub(super) fn let_leave(&mut self, node: usize) -> bool {
        let role = RoleChange { leaving: Some(true), ..RoleChange::default() };
        let change = LayoutChange::Set { node: self.world.id(node), role, staged: false };
        let asked = self.world.dice.index(self.world.nodes());
        // Clients count on three replicas.
        let Some(Ok(ClientResponse::Layouts(now))) = self.ask(asked, ClientRequest::Layouts, Duration::from_secs(2))
        else {
            return false;
        };
        let leaves: Vec<NodeId> = self.admin.leaving.iter().chain([&node]).map(|node| self.world.id(*node)).collect();
        let stays = |known: &&LayoutNode| {
            !leaves.contains(&known.node) && known.role.as_ref().is_some_and(|role| role.state == NodeState::Active)
        };
        if now.nodes.iter().filter(stays).count() < 3 {
            return false;
        }
        self.admin.leaving.insert(node);
        match self.ask(asked, ClientRequest::ChangeLayout(change), Duration::from_secs(2)) {
            Some(Ok(ClientResponse::Layouts(_))) => {
                self.world.count("leaves");
                true
            }
            Some(Err(RequestError::LayoutRefused { reason })) if reason.contains("too many") => {
                self.world.count("layouts at the limit");
                false
            }
            Some(_) | None => false,
        }
    }

    /// Something with a keyspace that no client uses.
    pub(super) fn meddle(&mut self) {
        if self.world.dice.percent(50) { self.rivals() } else { self.drop_and_make_again() }
    }

    /// Two nodes are asked at once for the same name.
    fn rivals(&mut self) {
        let Some(grant) = self.admin.grant else { return };
        self.world.count("rivals");
        let name = KeyspaceName::new(format!("rival-{}", self.history.fresh_value())).expect("a name");
        let spec = self.scenario.keyspaces[0].1;
        let call = |name: &KeyspaceName| ClientCall {
            deadline_ms: 3_000,
            request: ClientRequest::CreateKeyspace { name: name.clone(), spec },
        };
        let nodes = self.world.nodes();
        let attempts = [0, 1].map(|node| self.send(node % nodes, ClientAsk::Call(grant, Box::new(call(&name)))));
        self.run_for(Duration::from_millis(3_200));
        let mut made = Vec::new();
        for attempt in attempts {
            if let Some(Outcome::Answer(Ok(ClientResponse::Keyspace(info)))) = self.admin.inbox.remove(&attempt) {
                made.push(info.id);
            }
        }
        if made.len() == 2 && made[0] != made[1] {
            self.world.find("keyspaces", format!("`{name}` was made twice: {made:?}"));
        }
    }

    /// A keyspace is made, written, dropped and made again.
    fn drop_and_make_again(&mut self) {
        self.world.count("drops");
        let name = KeyspaceName::new(format!("temporary-{}", self.history.fresh_value())).expect("a name");
        let spec = self.scenario.keyspaces[0].1;
        let node = self.world.dice.index(self.world.nodes());
        let Some(first) = self.make(&name, spec) else { return };
        let place = |id| Place { keyspace: id, collection: COLLECTION.into(), key: Bytes::from_static(b"key") };
        let operation = Operation::AddSibling { value: Value::json("1") };
        let operate = Operate { place: place(first.id), operation, context: None, w: None, quorum: None };
        for _ in 0..3 {
            let other = self.world.dice.index(self.world.nodes());
            let done = self.ask(other, ClientRequest::Operate(operate.clone()), Duration::from_secs(1));
            if let Some(Err(error @ RequestError::KeyspaceGone { .. })) = done {
                self.world.find("honest answers", format!("node {other} of a keyspace just made: {error}"));
            }
        }
        let dropped = self.ask(node, ClientRequest::DropKeyspace { name: name.clone() }, Duration::from_secs(2));
        let Some(Ok(ClientResponse::Keyspace(info))) = dropped else { return };
        self.admin.dropped.push(info.id);
        // A node that has not heard of the drop yet still shows the first one.
        let Some(second) = self.make(&name, spec).filter(|second| second.id != first.id) else { return };
        let get = Get { place: place(second.id), r: None, min_ctx: None };
        if let Some(Ok(ClientResponse::Got(got))) = self.ask(node, ClientRequest::Get(get), Duration::from_secs(1)) {
            let object = Object::decode(&got.object).expect("nodes send canonical objects");
            if object != Object::default() {
                self.world.find("keyspaces", format!("`{name}` was made again and is not empty"));
            }
        }
    }

    /// In the end all nodes know the same keyspaces, and no dropped one.
    pub(super) fn check_keyspaces(&mut self) {
        let mut lists = Vec::new();
        for node in 0..self.world.nodes() {
            match self.ask(node, ClientRequest::ListKeyspaces, Duration::from_secs(2)) {
                Some(Ok(ClientResponse::Keyspaces(list))) => lists.push(list),
                other => self.world.find("progress", format!("node {node} does not list keyspaces: {other:?}")),
            }
        }
        if lists.windows(2).any(|pair| pair[0] != pair[1]) {
            self.world.find("keyspaces", format!("nodes know different ones: {lists:?}"));
        }
        let first = lists.into_iter().next().unwrap_or_default();
        let missing = self.history.spaces.iter().filter(|space| first.iter().all(|info| info.id != space.id));
        let missing: Vec<String> = missing.map(|space| space.name.to_string()).collect();
        let back: Vec<KeyspaceId> =
            first.iter().map(|info| info.id).filter(|id| self.admin.dropped.contains(id)).collect();
        if !missing.is_empty() || !back.is_empty() {
            self.world.find("keyspaces", format!("missing {missing:?}, dropped and back {back:?}"));
        }
        let names: Vec<&str> = first.iter().map(|info| info.name.as_str()).collect();
        if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
            self.world.find("keyspaces", format!("two of one name: {names:?}"));
        }
    }
}

/// Forming and making keyspaces must be done by then, in good weather.
const SET_UP_MAX: Duration = Duration::from_secs(90);
