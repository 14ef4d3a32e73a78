//! Requests that name a keyspace this node has not heard of: it asks the others before it says that there is none.
//!
//! Shape: such a request waits while every reachable peer is asked whether it has the same system state; a peer that has
//! another sends it. The request goes on as soon as its keyspace is known, or when enough of the layout's members answered
//! and what they sent is durable. For a name a majority is enough: a keyspace that was acknowledged is on one, so there is
//! none. For an id it takes all of them: whoever holds it was shown the keyspace, perhaps by the only node that has it so
//! far. (Members that are catching up do not count: they may have lost it.) With fewer nobody knows, and the answer is
//! `unavailable`.
//! Bound: they count as requests in flight. Invariant: every one is answered once, at its deadline at the latest.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shoal_protocol::client::ClientRequest;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, KeyspaceId, NodeId, RequestId};
use shoal_protocol::peer::{PeerRequest, PeerResponse};
use shoal_protocol::time::{Instant, Now};

use super::{ClientTag, Effect, Node, clients};
use crate::ring::Ring;
use crate::system::SystemInput;

/// A client's request as it came.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) tag: ClientTag,
    pub(super) session: Actor,
    pub(super) deadline: Instant,
    pub(super) request: ClientRequest,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    open: Vec<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    asked: Asked,
    /// Questions without an answer.
    waiting: BTreeMap<RequestId, NodeId>,
    /// Whose system state is known, or was when they answered.
    heard: BTreeSet<NodeId>,
}

impl Lookups {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open.iter().map(|lookup| lookup.asked.deadline).min()
    }

    /// The client has gone; nothing was done for it yet.
    pub(super) fn forget(&mut self, gone: impl Fn(ClientTag) -> bool) {
        self.open.retain(|lookup| !gone(lookup.asked.tag));
    }

    /// A peer will not answer any more.
    pub(super) fn lose(&mut self, node: NodeId) {
        for lookup in &mut self.open {
            lookup.waiting.retain(|_, asked| *asked != node);
        }
    }

    /// Whether a question was one of ours; its answer is in when `heard`.
    fn answered(&mut self, from: NodeId, question: RequestId, heard: bool) -> bool {
        let Some(lookup) = self.open.iter_mut().find(|lookup| lookup.waiting.get(&question) == Some(&from)) else {
            return false;
        };
        lookup.waiting.remove(&question);
        if heard {
            lookup.heard.insert(from);
        }
        true
    }
}

impl Node {
    /// Whether a request names a keyspace that this node has not heard of.
    pub(super) fn names_unknown(&self, request: &ClientRequest) -> bool {
        match request {
            ClientRequest::Get(get) => !self.knows(get.place.keyspace),
            ClientRequest::Write(write) => !self.knows(write.place.keyspace),
            ClientRequest::Operate(operate) => !self.knows(operate.place.keyspace),
            ClientRequest::Scan(scan) => !self.knows(scan.keyspace),
            ClientRequest::Batch(items) => items.iter().any(|item| self.names_unknown(item)),
            ClientRequest::ShowKeyspace { name }
            | ClientRequest::SetKeyspace { name, .. }
            | ClientRequest::DropKeyspace { name } => self.system.keyspace_by_name(name).is_none(),
            ClientRequest::CreateKeyspace { .. }
            | ClientRequest::ListKeyspaces
            | ClientRequest::Routes { .. }
            | ClientRequest::MemberViews
            | ClientRequest::ChangeLayout(_)
            | ClientRequest::Layouts
            | ClientRequest::Status => false,
        }
    }

    /// Whether this node knows what became of a keyspace.
    fn knows(&self, id: KeyspaceId) -> bool {
        self.system.keyspace_by_id(id).is_some() || self.system.state().is_dropped(id)
    }

    /// Asks every reachable peer, on behalf of a request.
    pub(super) fn look_up(&mut self, now: Now, asked: Asked, out: &mut Vec<Effect>) {
        let left = asked.deadline.since(now.instant);
        let fingerprint = self.system.state().fingerprint();
        let peers: Vec<NodeId> = self.alive.iter().copied().filter(|node| *node != self.config.node).collect();
        let mut waiting = BTreeMap::new();
        for to in peers {
            let id = self.system_calls.fresh();
            waiting.insert(id, to);
            out.push(self.call(to, id, (left, PeerRequest::CompareSystem { fingerprint })));
        }
        self.lookups.open.push(Lookup { asked, waiting, heard: BTreeSet::from([self.config.node]) });
        self.advance_lookups(now, out);
    }

    /// A peer answers; whether it answers a question of a lookup.
    pub(super) fn look_up_answered(
        &mut self,
        now: Now,
        from: NodeId,
        (question, response): (RequestId, &PeerResponse),
        out: &mut Vec<Effect>,
    ) -> bool {
        let news: Option<Bytes> = match response {
            PeerResponse::System { state } => Some(state.clone()),
            PeerResponse::Same
            | PeerResponse::Refused(_)
            | PeerResponse::Applied(_)
            | PeerResponse::Admitted
            | PeerResponse::Minted { .. }
            | PeerResponse::State { .. }
            | PeerResponse::Rows { .. }
            | PeerResponse::Leases { .. }
            | PeerResponse::Members(_)
            | PeerResponse::Repair(_) => None,
        };
        let is_heard = news.is_some() || matches!(response, PeerResponse::Same);
        if !self.lookups.answered(from, question, is_heard) {
            return false;
        }
        if let Some(state) = news {
            self.tell_system(now, SystemInput::Heard { from, state }, out);
        }
        self.advance_lookups(now, out);
        true
    }

    /// Lets every request go on that has found its keyspace, or whose search is over.
    pub(super) fn advance_lookups(&mut self, now: Now, out: &mut Vec<Effect>) {
        for lookup in std::mem::take(&mut self.lookups.open) {
            let is_settled = self.system.is_settled();
            let (replied, needed) = self.heard(&lookup);
            if !self.names_unknown(&lookup.asked.request) || (is_settled && replied >= needed) {
                self.begin(now, lookup.asked, out);
            } else if (is_settled && lookup.waiting.is_empty()) || lookup.asked.deadline <= now.instant {
                clients::answer(lookup.asked.tag, Err(RequestError::Unavailable { replied, needed }), out);
            } else {
                self.lookups.open.push(lookup);
            }
        }
    }

    /// How many members were heard that cannot have lost what they held, and how many it takes.
    fn heard(&self, lookup: &Lookup) -> (u8, u8) {
        let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        let count = |ring: &Ring| {
            let layout = ring.layout();
            let counts = |node: &&NodeId| layout.lists(**node) && !self.replaced.contains_key(*node);
            let needed = if names(&lookup.asked.request) { layout.majority() } else { layout.members().len() };
            (lookup.heard.iter().filter(counts).count(), needed)
        };
        let missing = |(heard, needed): &(usize, usize)| needed.saturating_sub(*heard);
        let furthest = self.rings.iter().flat_map(|rings| rings.iter()).map(count).max_by_key(missing);
        furthest.map_or((0, u8::MAX), |(heard, needed)| (small(heard), small(needed)))
    }
}

/// Whether the request has a keyspace's name, not its id.
fn names(request: &ClientRequest) -> bool {
    match request {
        ClientRequest::ShowKeyspace { .. }
        | ClientRequest::SetKeyspace { .. }
        | ClientRequest::DropKeyspace { .. }
        | ClientRequest::CreateKeyspace { .. } => true,
        ClientRequest::Get(_)
        | ClientRequest::Write(_)
        | ClientRequest::Operate(_)
        | ClientRequest::Scan(_)
        | ClientRequest::Batch(_)
        | ClientRequest::ListKeyspaces
        | ClientRequest::Routes { .. }
        | ClientRequest::MemberViews
        | ClientRequest::ChangeLayout(_)
        | ClientRequest::Layouts
        | ClientRequest::Status => false,
    }
}
