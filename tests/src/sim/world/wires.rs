//! Messages: between nodes, and between clients and nodes. All of them travel as the bytes of the real codec.

use std::time::Duration;

use shoal_node::node::{ConnectionId, Input, LinkId, Parcel as GossipParcel};
use shoal_protocol::address::Place;
use shoal_protocol::causality::Dot;
use shoal_protocol::client::{ClientCall, ClientHello, ClientResponse, PROTOCOL_VERSIONS, SessionGrant};
use shoal_protocol::codec;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, Lsn, NodeId, RefillCount, RequestId};
use shoal_protocol::object::{Object, admit};
use shoal_protocol::peer::{Applied, ApplyCause, Custody, PeerCall, PeerRequest, PeerResponse, Refusal};

use super::host::wall;
use super::{ClientAsk, Event, Letter, Outcome, Outside, Pair, Parcel, SEED_ADDRESS, World};
use crate::sim::mutant::Mutant;

impl World {
    /// A client asks a node. The answer comes from `next`, if it comes. Whether anything left the client.
    pub fn ask(&mut self, client: usize, node: usize, attempt: u64, ask: ClientAsk) -> bool {
        let pair = (self.hosts.len() + client, node);
        if !self.is_running(node) || !self.network.passes(pair) && self.dice.percent(50) {
            let after = self.dice.millis((0, 20));
            self.tell(after, client, attempt, Outcome::NotSent);
            return false;
        }
        if let Some(after) = self.network.delay(&mut self.dice, pair) {
            self.agenda.plan(self.now + after, Event::Client(Box::new(Letter { client, node, attempt, ask })));
        }
        true
    }

    /// Asks a node's replica for an object, past all coordinators.
    pub fn probe(&mut self, node: usize, place: &Place) -> RequestId {
        self.probes_count += 1;
        let request = RequestId(self.probes_count);
        if let Some(process) = &self.hosts[node].process {
            let view = Some(process.node.hello().view);
            let ask = PeerRequest::Get { place: place.clone(), have: None };
            let call = PeerCall { deadline_ms: 10_000, view, request: ask };
            self.feed(node, Input::PeerCall { link: PROBE, from: NodeId(0), request, call });
        }
        request
    }

    /// The answer to a probe, once it is there.
    pub fn probed(&mut self, request: RequestId) -> Option<PeerResponse> {
        self.probes.remove(&request)
    }

    /// Plans the end of an attempt.
    fn tell(&mut self, after: Duration, client: usize, attempt: u64, outcome: Outcome) {
        let outcome = Box::new(outcome);
        self.agenda.plan(self.now + after, Event::Outside(Outside::Answer { client, attempt, outcome }));
    }

    /// A client learns that its connection is gone, sooner or later.
    pub(super) fn lose(&mut self, client: usize, attempt: u64) {
        let after = self.dice.millis((1, 300));
        self.tell(after, client, attempt, Outcome::Lost);
    }

    pub(super) fn deliver_letter(&mut self, letter: Letter) {
        let Letter { client, node, attempt, ask } = letter;
        let now = self.clock(node);
        let Some(process) = &mut self.hosts[node].process else {
            self.lose(client, attempt);
            return;
        };
        let grant = match &ask {
            ClientAsk::Hello => None,
            ClientAsk::Call(grant, _) => Some(*grant),
        };
        let open = grant.and_then(|grant| process.door.connection(client, grant.actor));
        let connection = if let Some(open) = open {
            open
        } else {
            let hello =
                ClientHello { versions: PROTOCOL_VERSIONS, session: grant, access_token: None, software: "sim".into() };
            match process.node.welcome(now, &hello) {
                Ok(welcome) if grant.is_none() => {
                    return self.post(node, client, attempt, Outcome::Welcome(welcome));
                }
                Ok(welcome) => process.door.open(client, welcome.session.actor),
                Err(error) => return self.post(node, client, attempt, Outcome::Answer(Err(error))),
            }
        };
        if let ClientAsk::Call(grant, call) = ask {
            self.deliver_call((client, node, attempt), (connection, grant), &call);
        }
    }

    fn deliver_call(
        &mut self,
        (client, node, attempt): (usize, usize, u64),
        (connection, session): (ConnectionId, SessionGrant),
        call: &ClientCall,
    ) {
        let bytes = codec::encode(call);
        self.trace.note(self.now, (node, "asked"), &bytes, || format!("by client {client} as {attempt}: {call:?}"));
        let call: ClientCall = codec::decode(&bytes).expect("a call survives the codec");
        let request = RequestId(attempt);
        let due = self.now + Duration::from_millis(u64::from(call.deadline_ms)) + ANSWER_SLACK;
        let boot = self.hosts[node].boot;
        if let Some(process) = &mut self.hosts[node].process {
            process.door.ask(connection, request, due);
        }
        if !self.calm && self.dice.permille(5) {
            let at = self.now + self.dice.millis((0, 100));
            self.agenda.plan(at, Event::Gone { node, boot, client, session });
        }
        if self.mutant == Some(Mutant::NeverAnswer) && self.dice.permille(20) {
            return;
        }
        self.feed(node, Input::ClientCall { connection, request, session: session.actor, call });
    }

    /// A client's connection ends; the client hears of it later.
    pub(super) fn hang_up(&mut self, node: usize, boot: u32, (client, session): (usize, SessionGrant)) {
        let Some(process) = self.process(node, boot) else { return };
        let Some(connection) = process.door.connection(client, session.actor) else { return };
        for request in process.door.close(connection) {
            self.lose(client, request.0);
        }
        self.feed(node, Input::ClientGone { connection });
    }

    pub(super) fn answer_client(
        &mut self,
        node: usize,
        (connection, request): (ConnectionId, RequestId),
        result: Result<ClientResponse, RequestError>,
    ) {
        let bytes = codec::encode(&result);
        self.trace.note(self.now, (node, "answers"), &bytes, || format!("{}: {result:?}", request.0));
        let result = codec::decode(&bytes).expect("an answer survives the codec");
        let Some(process) = &mut self.hosts[node].process else { return };
        let mut answered = process.door.answer(connection, request);
        if self.mutant == Some(Mutant::AnswerTwice) && request.0.is_multiple_of(50) {
            answered = process.door.answer(connection, request);
        }
        match answered {
            Ok(Some(client)) => self.post(node, client, request.0, Outcome::Answer(result)),
            Ok(None) => {}
            Err(()) => {
                self.find("one answer by the deadline", format!("node {node} answers {} again", request.0));
            }
        }
    }

    /// Sends something to a client.
    fn post(&mut self, node: usize, client: usize, attempt: u64, outcome: Outcome) {
        if let Some(after) = self.network.delay(&mut self.dice, (node, self.hosts.len() + client)) {
            self.tell(after, client, attempt, outcome);
        }
    }

    pub(super) fn plan_pulse(&mut self, pair: Pair) {
        let after = self.dice.millis(PULSE_MS);
        self.agenda.plan(self.now + after, Event::Pulse { pair });
    }

    /// A host looks after its connection to another node.
    pub(super) fn pulse(&mut self, pair: Pair) {
        self.plan_pulse(pair);
        let (from, to) = pair;
        if !self.is_running(from) {
            return;
        }
        if from == to {
            if from == 0 && self.hosts.len() > 1 {
                let node = self.hosts[0].config.node;
                self.feed(0, Input::SeedFound { seed: SEED_ADDRESS.into(), node });
            }
        } else if self.network.connections.contains_key(&pair) {
            let running = self.hosts[to].running();
            if self.network.is_broken(self.now, pair, running) {
                self.network.connections.remove(&pair);
                self.trace.note(self.now, (from, "peer down"), &to.to_le_bytes(), || to.to_string());
                self.count("connections lost");
                let node = self.hosts[to].config.node;
                self.feed(from, Input::PeerDown { node });
            }
        } else if self.network.passes(pair) && self.network.passes((to, from)) {
            self.dial(pair);
        }
    }

    fn dial(&mut self, (from, to): Pair) {
        let Some(callee) = &self.hosts[to].process else { return };
        let hello = callee.node.hello();
        let boot = self.hosts[to].boot;
        let Some(caller) = &self.hosts[from].process else { return };
        if let Err(error) = caller.node.check_peer(&hello) {
            self.find("progress", format!("node {from} refuses node {to}: {error}"));
            return;
        }
        self.network.connect((from, to), boot);
        self.trace.note(self.now, (from, "peer up"), &to.to_le_bytes(), || to.to_string());
        let node = hello.member.node;
        self.feed(from, Input::PeerUp { hello });
        if to == 0 {
            self.feed(from, Input::SeedFound { seed: SEED_ADDRESS.into(), node });
        }
    }

    pub(super) fn send_call(&mut self, from: usize, to: NodeId, (request, call): (RequestId, PeerCall)) {
        let Some(to) = self.node_index(to) else { return };
        let Some(connection) = self.network.connections.get(&(from, to)).copied() else { return };
        let (epoch, boot) = (connection.epoch, connection.boot);
        if self.mutant == Some(Mutant::QuorumOfOne) && matches!(call.request, PeerRequest::Get { have: Some(_), .. }) {
            let bytes = codec::encode(&PeerResponse::Same).freeze();
            let boot = self.hosts[from].boot;
            let forged = Parcel { from: to, to: from, boot, epoch, request, is_answer: true, bytes };
            self.agenda.plan(self.now, Event::Peer(Box::new(forged)));
            return;
        }
        // Streams deliver a call once or not at all, and two kinds rely on it: a mint would count twice, and a refusal at the
        // door is final only if no copy can be admitted afterwards.
        let once = matches!(call.request, PeerRequest::Mint { .. } | PeerRequest::Admit { .. });
        let bytes = codec::encode(&call).freeze();
        self.trace.note(self.now, (from, "calls"), &bytes, || format!("{to} {}: {:?}", request.0, call.request));
        self.send(Parcel { from, to, boot, epoch, request, is_answer: false, bytes }, once);
    }

    /// Gossip needs no connection that stands, and is never repeated.
    pub(super) fn send_gossip(&mut self, from: usize, to: NodeId, parcel: GossipParcel) {
        let Some(to) = self.node_index(to) else { return };
        if let Some(after) = self.network.delay(&mut self.dice, (from, to)) {
            self.agenda.plan(self.now + after, Event::Gossip { from, to, parcel });
        }
    }

    pub(super) fn send_answer(&mut self, node: usize, (link, request): (LinkId, RequestId), response: PeerResponse) {
        if link == PROBE {
            self.probes.insert(request, response);
            return;
        }
        let Some((caller, callee)) = self.network.pair_of(link.0) else { return };
        if callee != node {
            self.find("progress", format!("node {node} answers on a link of {callee}"));
            return;
        }
        if self.mutant == Some(Mutant::WaitForAll)
            && matches!(response, PeerResponse::Applied(_))
            && !(self.network.is_whole() && self.hosts.iter().all(|host| host.process.is_some()))
        {
            return;
        }
        let response = self.compared.answered((caller, node), (link.0, request), self.mutant, response);
        let admitted = self.mutant == Some(Mutant::AdmittedIsAck) && matches!(response, PeerResponse::Admitted);
        let bytes = codec::encode(&if admitted { applied() } else { response.clone() }).freeze();
        self.trace.note(self.now, (node, "replies"), &bytes, || format!("{caller} {}: {response:?}", request.0));
        let boot = self.hosts[caller].boot;
        self.send(Parcel { from: node, to: caller, boot, epoch: link.0, request, is_answer: true, bytes }, false);
    }

    fn send(&mut self, parcel: Parcel, once: bool) {
        let pair = (parcel.from, parcel.to);
        let copies = if !once && self.network.duplicates(&mut self.dice) { 2 } else { 1 };
        for _ in 0..copies {
            if let Some(after) = self.network.delay(&mut self.dice, pair) {
                self.agenda.plan(self.now + after, Event::Peer(Box::new(parcel.clone())));
            } else {
                self.count("messages lost");
            }
        }
    }

    pub(super) fn deliver(&mut self, parcel: Parcel) {
        let Parcel { from, to, boot, epoch, request, is_answer, bytes } = parcel;
        if self.hosts[to].running() != Some(boot) || !self.network.passes((from, to)) {
            return;
        }
        self.trace.note(self.now, (to, "hears"), &bytes, || format!("{from} {} {is_answer}", request.0));
        let node = self.hosts[from].config.node;
        if is_answer {
            if self.network.connections.get(&(to, from)).is_none_or(|open| open.epoch != epoch) {
                return;
            }
            let response = codec::decode(&bytes).expect("an answer survives the codec");
            self.feed(to, Input::PeerAnswer { from: node, request, response });
        } else {
            let mut call: PeerCall = codec::decode(&bytes).expect("a call survives the codec");
            self.compared.asked((to, epoch, request), self.mutant, &mut call.request);
            match self.mutated(to, &call.request) {
                Some(answer) => self.send_answer(to, (LinkId(epoch), request), answer),
                None => self.feed(to, Input::PeerCall { link: LinkId(epoch), from: node, request, call }),
            }
        }
    }

    /// What a mutant answers to this without doing it.
    fn mutated(&self, node: usize, request: &PeerRequest) -> Option<PeerResponse> {
        let (place, delta, cause) = match request {
            PeerRequest::Apply { place, delta, cause, .. } => (place, delta, Some(*cause)),
            PeerRequest::Admit { place, delta } => (place, delta, None),
            PeerRequest::Get { .. }
            | PeerRequest::Scan(_)
            | PeerRequest::Mint { .. }
            | PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. }
            | PeerRequest::ConfirmLeases { .. }
            | PeerRequest::Members => return None,
            PeerRequest::Repair(_) => {
                let refused = PeerResponse::Refused(Refusal::NotSynced);
                // What a comparison brings is joined by the node itself, past all of this.
                let is_deaf = matches!(self.mutant, Some(Mutant::NoRepair | Mutant::LimitInMerge));
                return is_deaf.then_some(refused);
            }
        };
        let held = || self.shadows.get(&(node, place.clone()));
        let delta = || Object::decode(delta).expect("nodes send canonical deltas");
        match self.mutant? {
            Mutant::NoRepair => (cause == Some(ApplyCause::ReadRepair)).then(applied),
            Mutant::HintForgotten => (cause == Some(ApplyCause::Handoff)).then(applied),
            Mutant::SkipCovered => {
                let delta = delta();
                let actor = delta.context().actors().filter(|actor| actor.is_session()).last()?;
                let dot = Dot { actor, n: delta.context().max(actor) };
                held()?.context().covers(dot).then(applied)
            }
            Mutant::LimitInMerge => {
                cause?;
                let over = admit(held()?, &delta(), &self.profile.limits, wall(self.now, 0)).err()?;
                let reason = over.to_string();
                Some(PeerResponse::Refused(Refusal::Request(RequestError::BadRequest { reason })))
            }
            Mutant::AckBeforeSync
            | Mutant::SkipLevel
            | Mutant::TruncatedRanges
            | Mutant::QuorumOfOne
            | Mutant::FreshDot
            | Mutant::AdmittedIsAck
            | Mutant::AnswerTwice
            | Mutant::NeverAnswer
            | Mutant::WaitForAll => None,
        }
    }
}

fn applied() -> PeerResponse {
    let custody = Custody { generation: 0, incarnation: Actor(1), refill: RefillCount(0) };
    PeerResponse::Applied(Applied { custody, lsn: Lsn(0), known: Vec::new() })
}

/// Where probes come from: no connection has this number.
const PROBE: LinkId = LinkId(u64::MAX);
/// How often a host looks after a connection, ms.
const PULSE_MS: (u64, u64) = (60, 240);
/// A tick may be late by so much.
const ANSWER_SLACK: Duration = Duration::from_millis(5);
