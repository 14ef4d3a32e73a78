//! Whole lists: compared by a summary, exchanged where they differ, and the descriptions that are missing fetched.
//!
//! Shape: `Compare` -> `Claims` when the summaries differ -> `Answer` with what counts more; `Want` -> `Described` for what
//! either side cannot describe. So lists that are equal cost one short message, however long they are.
//! Source: memberlist's push-pull. Invariants: what is asked for is asked for once per probe timeout; a message is never
//! longer than its limit.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use super::Gossip;
use crate::claim::{Claim, Version};
use crate::member::{Liveness, Member};
use crate::message::{BYTES_MAX, Body, Description, Draft, WANT_COUNT_MAX};
use crate::output::Output;
use crate::random;

/// Descriptions that are missing.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// When each was asked for last.
    asked: BTreeMap<NodeId, Instant>,
    /// To be asked of whoever speaks right now.
    to_ask: Vec<NodeId>,
}

impl Wanted {
    /// The description of `node` is missing; it is asked for unless it was within `pause`, or too many are.
    pub(super) fn add(&mut self, now: Instant, node: NodeId, pause: Duration) {
        self.asked.retain(|_, at| now.since(*at) < pause);
        if self.asked.len() < WANT_COUNT_MAX && !self.asked.contains_key(&node) {
            self.asked.insert(node, now);
            self.to_ask.push(node);
        }
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        self.asked.remove(&node);
    }
}

impl Gossip {
    /// A member was met, which is how one joins. Only the member itself knows its incarnation; comparing lists brings it.
    pub(super) fn met(&mut self, now: Instant, member: Member, out: &mut Vec<Output>) {
        let node = member.node;
        if node == self.own.node() {
            return;
        }
        let description = Description::of(member);
        let version =
            Version { incarnation: 0, boot_nonce: description.member.boot_nonce, digest: description.bytes.digest() };
        match self.roster.find(node) {
            Some(record) => {
                let is_known = record.describes(version) && record.claim.state == Liveness::Alive;
                if is_known {
                    return;
                }
            }
            None => {
                if let Some(idle) = self.roster.idle() {
                    self.forget(idle, out);
                }
                self.add(now, Claim::new(node, Liveness::Alive, version), description, out);
            }
        }
        self.roster.spoke(node);
        self.compare(node, out);
    }

    /// The comparisons of this time.
    pub(super) fn compare_next(&mut self, now: Instant, out: &mut Vec<Output>) {
        let rng = &mut self.aside.rng;
        let mut chosen = Vec::new();
        if self.timers.compare <= now {
            self.timers.compare = now + self.config.push_pull_period * push_pull_scale(self.roster.live_count() + 1);
            chosen.extend(self.roster.choose(rng, 1, |claim| claim.state == Liveness::Alive));
        }
        if self.timers.down_retry <= now {
            let period = self.config.down_retry_period;
            self.timers.down_retry = now + period / 2 + random::time_below(rng, period);
            chosen.extend(self.roster.choose(rng, 1, |claim| claim.state == Liveness::Down));
        }
        for to in chosen {
            self.compare(to, out);
        }
    }

    fn compare(&self, to: NodeId, out: &mut Vec<Output>) {
        let summary = self.roster.summary(&self.own.claim());
        message(to, self.draft(to, &Body::Compare { summary }, BYTES_MAX), out);
    }

    /// The other side's list has this summary.
    pub(super) fn compared(&self, from: NodeId, summary: u64, out: &mut Vec<Output>) {
        if summary != self.roster.summary(&self.own.claim()) {
            self.send_claims(from, &Body::Claims, |_| true, out);
        }
    }

    /// The other side has these claims: answers with those that count more or say something else, and with those that live
    /// here: they may live for the other side too, which finds out by probing them.
    pub(super) fn answer(&self, from: NodeId, theirs: &[Claim], out: &mut Vec<Output>) {
        let theirs: BTreeMap<_, _> = theirs.iter().map(|claim| (claim.node, claim)).collect();
        let counts = |mine: &Claim| match theirs.get(&mine.node) {
            Some(claim) => {
                let is_other = mine.version != claim.version && !claim.overrides(mine);
                mine.overrides(claim) || is_other || (mine.state.is_live() && claim.state == Liveness::Down)
            }
            None => true,
        };
        self.send_claims(from, &Body::Answer, counts, out);
    }

    /// All claims about others fit into one message; the one about this node stands at its head.
    fn send_claims(&self, to: NodeId, body: &Body, is_told: impl Fn(&Claim) -> bool, out: &mut Vec<Output>) {
        let mut draft = Draft::new(&self.own.claim(), body, BYTES_MAX);
        for record in self.roster.iter().filter(|record| is_told(&record.claim)) {
            draft.put(&record.claim, None);
        }
        message(to, draft, out);
    }

    /// Asks whoever spoke for the descriptions that were missing in what it said.
    pub(super) fn want(&mut self, from: NodeId, out: &mut Vec<Output>) {
        let nodes = std::mem::take(&mut self.wanted.to_ask);
        if !nodes.is_empty() {
            message(from, self.draft(from, &Body::Want { nodes }, BYTES_MAX), out);
        }
    }

    /// Sends the descriptions of these that are here, in as many messages as it takes.
    pub(super) fn describe_to(&self, to: NodeId, nodes: &[NodeId], out: &mut Vec<Output>) {
        let new = || Draft::new(&self.own.claim(), &Body::Described, BYTES_MAX);
        let (mut draft, mut is_empty) = (new(), true);
        for node in nodes {
            let (claim, description) = match self.roster.find(*node) {
                Some(record) if record.is_described() => (record.claim, &record.description),
                None if *node == self.own.node() => (self.own.claim(), self.own.description()),
                Some(_) | None => continue,
            };
            if !draft.put(&claim, Some(description)) {
                message(to, std::mem::replace(&mut draft, new()), out);
                draft.put(&claim, Some(description));
            }
            is_empty = false;
        }
        if !is_empty {
            message(to, draft, out);
        }
    }
}

fn message(to: NodeId, draft: Draft, out: &mut Vec<Output>) {
    out.push(Output::Message { to, bytes: draft.finish() });
}

/// Above 32 members lists are compared more rarely: once more of the period for each doubling (memberlist `pushPullScale`).
fn push_pull_scale(members_count: usize) -> u32 {
    if members_count <= 32 { 1 } else { (members_count as f64 / 32.0).log2().ceil() as u32 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_compared_more_rarely_where_there_are_many() {
        assert_eq!([1, 32, 33, 64, 65, 128, 1024].map(push_pull_scale), [1, 1, 2, 2, 3, 3, 6]);
    }

    #[test]
    fn a_description_is_asked_for_once_in_a_while_and_not_too_many_at_a_time() {
        let mut wanted = Wanted::default();
        let pause = Duration::from_secs(1);
        wanted.add(Instant(0), NodeId(0), pause);
        wanted.add(Instant(999_999), NodeId(0), pause);
        assert_eq!(wanted.to_ask.len(), 1);
        wanted.add(Instant(1_000_000), NodeId(0), pause);
        assert_eq!(wanted.to_ask.len(), 2);
        (0..1000).for_each(|node| wanted.add(Instant(1_000_000), NodeId(node), pause));
        assert_eq!((wanted.asked.len(), wanted.to_ask.len()), (WANT_COUNT_MAX, WANT_COUNT_MAX + 1));
    }
}
