//! The other nodes as the system state's exchange sees them.
//!
//! Invariants: at most one question is open per peer; a peer has answered only if this process got its state under its
//! present incarnation, so "no layout" is never taken from an older store.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_protocol::id::{Actor, NodeId, SystemId};
use shoal_protocol::layout::NodeRole;
use shoal_protocol::time::Instant;

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// What it is to be in a first layout.
    pub(super) role: NodeRole,
    pub(super) incarnation: Actor,
    pub(super) is_up: bool,
    pub(super) has_answered: bool,
    /// What it was last seen to hold.
    pub(super) known: Option<SystemId>,
    /// The question it was asked, about this state.
    pub(super) asked: Option<Asked>,
}

/// An open question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) about: SystemId,
    /// After this the answer is given up.
    pub(super) until: Instant,
}

/// All peers seen by this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    pub(super) by_id: BTreeMap<NodeId, Peer>,
    last_compared: Option<NodeId>,
}

impl Peers {
    pub(super) fn up(&mut self, node: NodeId, role: NodeRole, incarnation: Actor) {
        let fresh = Peer { role, incarnation, is_up: true, has_answered: false, known: None, asked: None };
        let peer = self.by_id.entry(node).or_insert_with(|| fresh.clone());
        if peer.incarnation == incarnation {
            peer.is_up = true;
            peer.role = fresh.role;
        } else {
            *peer = fresh;
        }
    }

    pub(super) fn down(&mut self, node: NodeId) {
        if let Some(peer) = self.by_id.get_mut(&node) {
            peer.is_up = false;
            peer.asked = None;
        }
    }

    /// Forgets what the peer was last seen to hold, so that it is sent the state again.
    pub(super) fn differs(&mut self, node: NodeId) {
        if let Some(peer) = self.by_id.get_mut(&node) {
            peer.known = None;
        }
    }

    /// Forgets what every peer was last seen to hold.
    pub(super) fn all_differ(&mut self) {
        self.by_id.values_mut().for_each(|peer| peer.known = None);
    }

    /// Gives up the questions whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for peer in self.by_id.values_mut() {
            peer.asked = peer.asked.filter(|asked| asked.until > now);
        }
    }

    /// Marks and returns the peers to send the state `mine` to: reachable, not being asked, not known to hold it.
    pub(super) fn begin_push(&mut self, mine: SystemId, now: Instant) -> Vec<NodeId> {
        let asked = Asked { about: mine, until: now + ANSWER_TIMEOUT };
        let behind = |peer: &Peer| peer.is_up && peer.asked.is_none() && peer.known != Some(mine);
        let mut chosen = Vec::new();
        for (&node, peer) in self.by_id.iter_mut().filter(|(_, peer)| behind(peer)) {
            peer.asked = Some(asked);
            chosen.push(node);
        }
        chosen
    }

    /// Marks and returns the next peer in turn to compare states with.
    pub(super) fn begin_compare(&mut self, mine: SystemId, now: Instant) -> Option<NodeId> {
        let free: Vec<NodeId> =
            self.by_id.iter().filter(|(_, peer)| peer.is_up && peer.asked.is_none()).map(|(&node, _)| node).collect();
        let next = free.iter().copied().find(|&node| Some(node) > self.last_compared).or(free.first().copied())?;
        self.last_compared = Some(next);
        self.by_id.get_mut(&next)?.asked = Some(Asked { about: mine, until: now + ANSWER_TIMEOUT });
        Some(next)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_id.values().filter_map(|peer| peer.asked).map(|asked| asked.until).min()
    }

    pub(super) fn is_any_up(&self) -> bool {
        self.by_id.values().any(|peer| peer.is_up)
    }
}

/// Wait for an answer before asking again: an exchange is one round trip and one sync.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
