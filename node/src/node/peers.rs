//! Peers: their hello, and what they ask of this node's replica.
//!
//! Invariant: a data request is served only under a view equal to the sender's; otherwise it is refused with
//! `UnknownView` and both sides exchange system state (DESIGN §5, Views).

use std::collections::VecDeque;
use std::time::Duration;

use shoal_protocol::client::PROTOCOL_VERSIONS;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Class, KeyspaceId, NodeId, Partition, RequestId};
use shoal_protocol::peer::{PeerCall, PeerHello, PeerRequest, PeerResponse, Refusal};
use shoal_protocol::repair::RepairAsk;
use shoal_protocol::time::{Instant, Now};

use super::{Asker, Effect, LinkId, Node, Work, replica_work};
use crate::replica::{Question, ReplicaEffect};
use crate::storage::CellId;
use crate::system::{SystemAsk, SystemInput};

impl Node {
    /// What this node says of itself to peers.
    #[must_use]
    pub fn hello(&self) -> PeerHello {
        PeerHello {
            versions: PROTOCOL_VERSIONS,
            cluster: self.config.cluster,
            member: self.own_member(),
            view: self.system.view(),
        }
    }

    /// Whether to talk to a peer that says this of itself.
    ///
    /// # Errors
    /// Another cluster, no common protocol version, or another live process that claims to be this node.
    pub fn check_peer(&self, hello: &PeerHello) -> Result<(), RequestError> {
        let incompatible = |reason: String| Err(RequestError::Incompatible { reason });
        if hello.cluster != self.config.cluster {
            return incompatible(format!("this is cluster {}, not {}", self.config.cluster, hello.cluster));
        }
        if hello.versions.0 > PROTOCOL_VERSIONS.1 || hello.versions.1 < PROTOCOL_VERSIONS.0 {
            return incompatible(format!("protocol versions {PROTOCOL_VERSIONS:?} against {:?}", hello.versions));
        }
        if hello.member.node == self.config.node && hello.member.boot_nonce != self.config.boot_nonce {
            return incompatible(format!("another process runs as node `{}`", hello.member.name));
        }
        Ok(())
    }

    pub(super) fn peer_call(
        &mut self,
        now: Now,
        (link, from, request): (LinkId, NodeId, RequestId),
        call: PeerCall,
        out: &mut Vec<Effect>,
    ) {
        let ask = match &call.request {
            PeerRequest::CompareSystem { fingerprint } => Some(SystemAsk::Compare(*fingerprint)),
            PeerRequest::System { state } => Some(SystemAsk::Join(state.clone())),
            PeerRequest::ConfirmLeases { stores, boot_nonce } => {
                return self.leases_asked((link, request), (stores.clone(), *boot_nonce), out);
            }
            PeerRequest::Members => {
                let response = PeerResponse::Members(self.members_status());
                return out.push(Effect::AnswerPeer { link, request, response });
            }
            PeerRequest::Repair(RepairAsk::Owe { target, partition, after, compact_epoch: _ }) => {
                let response = self.asked_to_owe(now, (*target, *partition, *after));
                return out.push(Effect::AnswerPeer { link, request, response });
            }
            PeerRequest::Apply { .. }
            | PeerRequest::Get { .. }
            | PeerRequest::Scan(_)
            | PeerRequest::Admit { .. }
            | PeerRequest::Mint { .. }
            | PeerRequest::Repair(_) => None,
        };
        if let Some(ask) = ask {
            self.system_asked(now, (link, from, request), ask, out);
            return;
        }
        let refused = |why: Refusal| Effect::AnswerPeer { link, request, response: PeerResponse::Refused(why) };
        if call.view.is_some_and(|view| view != self.system.view()) {
            out.push(refused(Refusal::UnknownView));
            self.tell_system(now, SystemInput::Differs(from), out);
            return;
        }
        if self.cells.waiting_count() >= self.config.limits.replica_requests_max {
            out.push(refused(Refusal::Overloaded));
            return;
        }
        let deadline = now.instant + Duration::from_millis(u64::from(call.deadline_ms));
        let is_repair = call.view.is_none();
        let work = self.serve(now, Asker::Peer(link, request), (deadline, call.request, is_repair));
        self.route(now, work, out);
    }

    /// Lets the partition's cell answer, if this node holds it.
    pub(super) fn serve(
        &mut self,
        now: Now,
        asker: Asker,
        (deadline, request, is_repair): (Instant, PeerRequest, bool),
    ) -> VecDeque<Work> {
        if let PeerRequest::Repair(ask) = request {
            return match ask {
                RepairAsk::Hold { target, place, delta, compact_epoch: _ } => {
                    self.hold_for(now, asker, (target, &place, delta))
                }
                RepairAsk::Roots { .. } | RepairAsk::Nodes { .. } | RepairAsk::Keys { .. } | RepairAsk::Owe { .. } => {
                    self.compare_asked(asker, ask)
                }
            };
        }
        match self.owned(&request, is_repair) {
            Ok(partition) => {
                let mut effects = Vec::new();
                let (cell, replica) = self.cells.of(partition);
                replica.ask(now, Question { from: asker, deadline, partition, request }, &mut effects);
                replica_work(cell, effects)
            }
            Err(why) => {
                let refused = ReplicaEffect::Answer { to: asker, response: PeerResponse::Refused(why) };
                replica_work(CellId::HOME, vec![refused])
            }
        }
    }

    /// The partition of a data request, if its keyspace exists and this node holds a replica of it that may serve it.
    fn owned(&self, request: &PeerRequest, is_repair: bool) -> Result<Partition, Refusal> {
        let keyspace = match request {
            PeerRequest::Apply { place, .. }
            | PeerRequest::Get { place, .. }
            | PeerRequest::Admit { place, .. }
            | PeerRequest::Mint { place, .. } => place.keyspace,
            PeerRequest::Scan(scan) => scan.keyspace,
            PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. }
            | PeerRequest::ConfirmLeases { .. }
            | PeerRequest::Members
            | PeerRequest::Repair(_) => return Err(Refusal::Malformed),
        };
        let class = self.class_of(keyspace)?;
        let partition = match request {
            PeerRequest::Apply { place, .. }
            | PeerRequest::Get { place, .. }
            | PeerRequest::Admit { place, .. }
            | PeerRequest::Mint { place, .. } => place.partition(class),
            // Nothing but data is scanned: no partition of another class, and no hints.
            PeerRequest::Scan(scan) if scan.partition.class == class => scan.partition,
            PeerRequest::Scan(_)
            | PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. }
            | PeerRequest::ConfirmLeases { .. }
            | PeerRequest::Members
            | PeerRequest::Repair(_) => return Err(Refusal::Malformed),
        };
        let rings = self.rings.as_ref().ok_or(Refusal::UnknownView)?;
        if !rings.is_owner(self.config.node, partition) {
            return Err(Refusal::NotReplica);
        }
        self.check_custody(partition, (request, is_repair)).map(|()| partition)
    }

    /// The class of a keyspace, if there is one.
    pub(super) fn class_of(&self, keyspace: KeyspaceId) -> Result<Class, Refusal> {
        match self.system.keyspace_by_id(keyspace) {
            Some(info) => Ok(info.spec.class),
            None if self.system.state().is_dropped(keyspace) => {
                Err(Refusal::Request(RequestError::KeyspaceGone { id: keyspace }))
            }
            // Created a moment ago, and this node has not heard of it yet.
            None => Err(Refusal::UnknownView),
        }
    }
}
