//! The other members, and what is known of each.
//!
//! Invariants: at most `MEMBERS_COUNT_MAX` members; each has a description; a forgotten one comes back only alive, and not
//! by what was already known when it was forgotten.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use shoal_protocol::id::NodeId;

use crate::claim::{Claim, Version};
use crate::member::{Liveness, Member};
use crate::message::{Description, DescriptionBytes};
use crate::random;

/// One other member.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) member: Member,
    /// `member` as it is told to others.
    pub(crate) description: DescriptionBytes,
    /// What is believed. Its version may name a description that is still to come.
    pub(crate) claim: Claim,
    /// In its last packet it said something older or other of itself than is believed, and must be told.
    pub(crate) is_outdated: bool,
    /// A packet came from it, or it was met: it is not just somebody's invention.
    has_spoken: bool,
    packet_bytes: usize,
}

impl Record {
    /// Whether the description that is believed to be the newest is here.
    pub(crate) fn is_described(&self) -> bool {
        self.describes(self.claim.version)
    }

    /// Whether the description here is the one of `version`.
    pub(crate) fn describes(&self, version: Version) -> bool {
        self.description.digest() == version.digest && self.member.boot_nonce == version.boot_nonce
    }

    /// Takes a description; whether it says something new.
    pub(crate) fn take(&mut self, description: Description) -> bool {
        let is_new = description.member != self.member;
        self.member = description.member;
        self.description = description.bytes;
        is_new
    }
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    records: BTreeMap<NodeId, Record>,
    forgotten: BTreeMap<NodeId, Version>,
}

impl Roster {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub(crate) fn find(&self, node: NodeId) -> Option<&Record> {
        self.records.get(&node)
    }

    pub(crate) fn find_mut(&mut self, node: NodeId) -> Option<&mut Record> {
        self.records.get_mut(&node)
    }

    pub(crate) fn liveness(&self, node: NodeId) -> Liveness {
        self.find(node).map_or(Liveness::Down, |record| record.claim.state)
    }

    /// How many are alive or suspect.
    pub(crate) fn live_count(&self) -> usize {
        self.iter().filter(|record| record.claim.state.is_live()).count()
    }

    /// Up to `count` members that fit, at random.
    pub(crate) fn choose(&self, rng: &mut ChaCha8Rng, count: usize, fits: impl Fn(&Claim) -> bool) -> Vec<NodeId> {
        let fitting = self.iter().map(|record| &record.claim).filter(|claim| fits(claim));
        let mut chosen = fitting.map(|claim| claim.node).collect();
        random::choose(rng, &mut chosen, count);
        chosen
    }

    /// Whether a claim about a member that is not in the list is only the echo of one that was forgotten.
    pub(crate) fn is_echo(&self, claim: &Claim) -> bool {
        self.forgotten.get(&claim.node).is_some_and(|known| {
            let is_newer =
                claim.version.boot_nonce != known.boot_nonce || claim.version.incarnation > known.incarnation;
            claim.state != Liveness::Alive || !is_newer
        })
    }

    /// Adds a member, if there is room.
    pub(crate) fn insert(&mut self, claim: Claim, description: Description) -> bool {
        if self.records.len() >= MEMBERS_COUNT_MAX {
            return false;
        }
        self.forgotten.remove(&claim.node);
        let Description { member, bytes: description } = description;
        let record = Record {
            member,
            description,
            claim,
            is_outdated: false,
            has_spoken: false,
            packet_bytes: PACKET_BYTES_DEFAULT,
        };
        self.records.insert(claim.node, record);
        true
    }

    /// A member that is down or left and never spoke, when the list is full: it makes room for one that does.
    pub(crate) fn idle(&self) -> Option<NodeId> {
        let is_full = self.records.len() >= MEMBERS_COUNT_MAX;
        let mut idle = self.iter().filter(|record| is_full && !record.has_spoken && !record.claim.state.is_live());
        idle.next().map(|record| record.claim.node)
    }

    /// It speaks for itself.
    pub(crate) fn spoke(&mut self, node: NodeId) {
        if let Some(record) = self.records.get_mut(&node) {
            record.has_spoken = true;
        }
    }

    /// Forgets a member that is down or left; whether it was one.
    pub(crate) fn forget(&mut self, node: NodeId) -> bool {
        let Some(record) = self.records.get(&node).filter(|record| !record.claim.state.is_live()) else { return false };
        if self.forgotten.len() >= MEMBERS_COUNT_MAX {
            self.forgotten.pop_first();
        }
        self.forgotten.insert(node, record.claim.version);
        self.records.remove(&node);
        true
    }

    pub(crate) fn packet_bytes(&self, to: NodeId) -> usize {
        self.find(to).map_or(PACKET_BYTES_DEFAULT, |record| record.packet_bytes)
    }

    pub(crate) fn set_packet_bytes(&mut self, to: NodeId, bytes: usize) {
        if let Some(record) = self.find_mut(to) {
            record.packet_bytes = bytes.max(PACKET_BYTES_MIN);
        }
    }

    /// A fingerprint of what is believed of everybody, `own` included: equal lists, equal summaries. A description that is
    /// missing makes a difference, so that it is found.
    pub(crate) fn summary(&self, own: &Claim) -> u64 {
        let mut hash = blake3::Hasher::new();
        let mut add = |claim: &Claim, is_described: bool| {
            let Version { incarnation, boot_nonce, digest } = claim.version;
            let state = claim.state as u64;
            for number in [claim.node.0, state, incarnation, boot_nonce, digest, is_described.into()] {
                hash.update(&number.to_be_bytes());
            }
        };
        let (before, after) = (self.records.range(..own.node), self.records.range(own.node..));
        before.for_each(|(_, record)| add(&record.claim, record.is_described()));
        add(own, true);
        after.for_each(|(_, record)| add(&record.claim, record.is_described()));
        u64::from_be_bytes(*hash.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// Members besides this node. Connections between all of them end long before it.
pub(crate) const MEMBERS_COUNT_MAX: usize = 1024;
/// What a QUIC datagram takes at an MTU of 1,200 bytes, less a reserve.
const PACKET_BYTES_DEFAULT: usize = 1100;
/// A ping with a few claims.
const PACKET_BYTES_MIN: usize = 256;
