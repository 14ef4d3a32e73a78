//! The exchange of system state with the other nodes.
//!
//! Glue between system state and host: a question of the system state becomes a peer call and its answer comes back, its blob
//! goes through the store.
//! Invariant: a change of the system state is followed at once by what derives from it (ring, digest key, lww keyspaces).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shoal_protocol::client::ClientResponse;
use shoal_protocol::id::{NodeId, RequestId};
use shoal_protocol::object::Conflict;
use shoal_protocol::peer::{PeerRequest, PeerResponse, Refusal};
use shoal_protocol::time::Now;

use super::{ClientTag, Effect, LinkId, Node, SYSTEM_BLOB, clients};
use crate::repair::RepairInput;
use crate::ring::Rings;
use crate::storage::{CellId, PersistTicket};
use crate::system::{SystemAnswer, SystemAsk, SystemEffect, SystemInput};

/// What the system state is waiting for.
#[derive(Debug, Default)]
pub(super) struct SystemCalls {
    /// Our questions to peers.
    asked: BTreeMap<RequestId, NodeId>,
    /// Peers' questions, by the name the system state knows them under.
    links: BTreeMap<RequestId, (LinkId, RequestId)>,
    /// Clients' changes, by the name the system state knows them under.
    pub(super) changes: BTreeMap<RequestId, ClientTag>,
    /// The write under way: ticket, version, bytes.
    persisting: Option<(PersistTicket, u64, bytes::Bytes)>,
    next_id: u64,
}

impl SystemCalls {
    pub(super) fn fresh(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(SYSTEM_ID_BIT | self.next_id)
    }

    /// A peer will not answer.
    pub(super) fn lose(&mut self, node: NodeId) {
        self.asked.retain(|_, to| *to != node);
    }
}

impl Node {
    /// A peer's answer: to the system state if it asked, else to the coordinator.
    pub(super) fn peer_answer(
        &mut self,
        now: Now,
        from: NodeId,
        (request, response): (RequestId, PeerResponse),
        out: &mut Vec<Effect>,
    ) {
        if request.0 & REPAIR_ID_BITS == REPAIR_ID_BITS {
            let ask = RequestId(request.0 & !REPAIR_ID_BITS);
            self.repair(now, RepairInput::Answered { ask, response }, out);
            return;
        }
        if request.0 & SYSTEM_ID_BIT == 0 {
            self.coordinate(now, out, |coordinator, around, effects| {
                coordinator.answered(around, request, response, effects);
            });
            return;
        }
        let answer = (request, &response);
        if self.look_up_answered(now, from, answer, out)
            || self.leases_answered(now, from, answer, out)
            || self.view_answered(now, from, answer, out)
            || self.handoff_answered(now, from, answer, out)
        {
            return;
        }
        if self.system_calls.asked.remove(&request) != Some(from) {
            return;
        }
        let answer = match response {
            PeerResponse::Same => SystemAnswer::Same,
            PeerResponse::System { state } => SystemAnswer::State(state),
            PeerResponse::Refused(_)
            | PeerResponse::Applied(_)
            | PeerResponse::Admitted
            | PeerResponse::Minted { .. }
            | PeerResponse::State { .. }
            | PeerResponse::Rows { .. }
            | PeerResponse::Leases { .. }
            | PeerResponse::Members(_)
            | PeerResponse::Repair(_) => SystemAnswer::Malformed,
        };
        self.tell_system(now, SystemInput::Answered { from, answer }, out);
    }

    /// A peer asks about system state.
    pub(super) fn system_asked(
        &mut self,
        now: Now,
        (link, from, request): (LinkId, NodeId, RequestId),
        ask: SystemAsk,
        out: &mut Vec<Effect>,
    ) {
        let id = self.system_calls.fresh();
        self.system_calls.links.insert(id, (link, request));
        self.tell_system(now, SystemInput::Asked { from, request: id, ask }, out);
    }

    /// One input for the system state, and everything that follows from it.
    pub(super) fn tell_system(&mut self, now: Now, input: SystemInput, out: &mut Vec<Effect>) {
        let mut effects = Vec::new();
        self.system.handle(now, input, &mut effects);
        for effect in effects {
            match effect {
                SystemEffect::Persist { version, state } => self.persist(version, state, out),
                SystemEffect::Ask { to, ask } => {
                    let id = self.system_calls.fresh();
                    self.system_calls.asked.insert(id, to);
                    let request = match ask {
                        SystemAsk::Compare(fingerprint) => PeerRequest::CompareSystem { fingerprint },
                        SystemAsk::Join(state) => PeerRequest::System { state },
                    };
                    out.push(self.call(to, id, (SYSTEM_DEADLINE, request)));
                }
                SystemEffect::Answer { request, answer, .. } => {
                    let Some((link, request)) = self.system_calls.links.remove(&request) else { continue };
                    let response = match answer {
                        SystemAnswer::Same => PeerResponse::Same,
                        SystemAnswer::State(state) => PeerResponse::System { state },
                        SystemAnswer::Malformed => PeerResponse::Refused(Refusal::Malformed),
                    };
                    out.push(Effect::AnswerPeer { link, request, response });
                }
                SystemEffect::Changed => self.system_changed(now, out),
                SystemEffect::Verdict { request, verdict } => {
                    if let Some(tag) = self.system_calls.changes.remove(&request) {
                        clients::answer(tag, verdict.map(ClientResponse::Keyspace), out);
                    }
                }
                SystemEffect::Intended { request, result } => {
                    if let Some(tag) = self.system_calls.changes.remove(&request) {
                        let layouts = result.map(|()| ClientResponse::Layouts(self.layouts_report()));
                        clients::answer(tag, layouts, out);
                    }
                }
                SystemEffect::Distrust { node, error } => {
                    tracing::error!(%node, %error, "a peer sent bytes that are no system state");
                }
            }
        }
        self.met(now, out);
    }

    fn persist(&mut self, version: u64, state: bytes::Bytes, out: &mut Vec<Effect>) {
        let mut effects = Vec::new();
        let ticket = self.cells.home_store().persist(SYSTEM_BLOB, state.clone(), &mut effects);
        self.system_calls.persisting = Some((ticket, version, state));
        out.extend(effects.into_iter().map(|effect| Effect::Store { cell: CellId::HOME, effect }));
    }

    /// The home store was reopened: a write under way may be lost.
    pub(super) fn persist_again(&mut self, out: &mut Vec<Effect>) {
        if let Some((_, version, state)) = self.system_calls.persisting.take() {
            self.persist(version, state, out);
        }
    }

    pub(super) fn system_persisted(&mut self, now: Now, ticket: PersistTicket, out: &mut Vec<Effect>) {
        if let Some((_, version, _)) = self.system_calls.persisting.take_if(|(open, _, _)| *open == ticket) {
            self.tell_system(now, SystemInput::Persisted { version }, out);
            self.advance_lookups(now, out);
        }
    }

    /// Takes over what derives from the durable system state.
    pub(super) fn system_changed(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.replaced = self.system.state().replaced();
        let layouts = self.system.layouts();
        if self.rings.as_ref().is_none_or(|rings| !rings.are_of(layouts))
            && let Some(rings) = Rings::new(layouts, self.rings.as_deref())
        {
            let target = rings.target().layout().id();
            tracing::info!(layout = %target, older = rings.older().len(), "serving under these layouts");
            self.rings = Some(Arc::new(rings));
            self.coordinate(now, out, |coordinator, around, effects| coordinator.view_changed(around, effects));
            self.describe(now, out);
            self.confirm_leases(now, out);
            self.look_for_former(out);
            self.forget_debts();
        }
        let keyspaces = self.system.keyspaces().values();
        let lww: BTreeSet<_> =
            keyspaces.filter(|info| info.spec.conflict == Conflict::Lww).map(|info| info.id).collect();
        for (cell, replica) in self.cells.iter_mut() {
            let mut effects = Vec::new();
            let store = replica.store_mut();
            store.set_lww(lww.clone());
            if let Some(keys) = self.system.keys() {
                store.set_digest_key(keys.digest.clone(), &mut effects);
            }
            out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
        }
        self.hold(now, out);
        // Somebody was told that this node's data is gone for ever, and others hold it in its place by now.
        if self.system.state().is_given_up(self.config.node) && self.renewing.is_empty() {
            tracing::error!("this node was removed for good: it goes on as a new one");
            self.begin_incarnation(CellId::HOME, out);
        }
        self.advance_transition(now, out);
    }
}

/// Request ids with this bit are the system state's, the others the coordinator's (which begin below it).
const SYSTEM_ID_BIT: u64 = 1 << 63;
/// With these bits they are repair's; so many exchanges of system state there never are.
pub(super) const REPAIR_ID_BITS: u64 = 0b11 << 62;
/// An exchange is one round trip and one sync.
const SYSTEM_DEADLINE: Duration = Duration::from_secs(2);
