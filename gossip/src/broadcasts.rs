//! News that still has to be told: about whom, and how often it was told already.
//!
//! Shape: one entry per member; the claim itself is read from the list when it is sent, so old news is never told. What was
//! told least goes first, then what waits longest. News is *urgent* until it was told so often as the papers say; after that it
//! is told as often again, but only on packets that are sent anyway: of 50 members 1 in 3,000 hears of none of 8 random
//! copies, and would have to wait until lists are compared. Source: SWIM §4.1; memberlist `queue.go`.
//! Invariants: an entry is told at most `2 * limit` times unless there is newer news of the same member; there are never
//! more entries than members.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::id::NodeId;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Broadcasts {
    turns: BTreeSet<Turn>,
    by_node: BTreeMap<NodeId, Turn>,
    next_ticket: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    sent_count: u32,
    ticket: u64,
    news: News,
}

/// One entry, as it is offered to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct News {
    /// About whom.
    pub(crate) node: NodeId,
    /// Whether its description should go along: it was new here, and was not sent often yet.
    pub(crate) is_described: bool,
}

/// What became of an entry that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is in the packet.
    Sent,
    /// It does not fit, or is nothing to this receiver.
    Skipped,
    /// Nothing more fits.
    Full,
}

impl Broadcasts {
    /// Whether there is news worth a packet of its own.
    pub(crate) fn is_urgent(&self, limit: u32) -> bool {
        self.turns.first().is_some_and(|turn| turn.sent_count < limit)
    }

    /// There is news of `node`, perhaps with a description that is new too.
    pub(crate) fn add(&mut self, node: NodeId, is_described: bool) {
        let old = self.by_node.get(&node).copied();
        self.remove(node);
        // A description still on its way is not forgotten for the sake of newer news.
        let is_described = is_described || old.is_some_and(|turn| turn.news.is_described);
        self.insert(Turn { sent_count: 0, ticket: self.next_ticket, news: News { node, is_described } });
        self.next_ticket += 1;
    }

    /// There is no news of `node` any more.
    pub(crate) fn remove(&mut self, node: NodeId) {
        if let Some(turn) = self.by_node.remove(&node) {
            self.turns.remove(&turn);
        }
    }

    /// Offers the entries in their order until `put` has no room; an entry told `2 * limit` times goes.
    pub(crate) fn offer(&mut self, limit: u32, mut put: impl FnMut(News) -> Fit) {
        let mut sent = Vec::new();
        for turn in &self.turns {
            match put(turn.news) {
                Fit::Sent => sent.push(*turn),
                Fit::Skipped => {}
                Fit::Full => break,
            }
        }
        for mut turn in sent {
            self.remove(turn.news.node);
            turn.sent_count += 1;
            turn.news.is_described &= turn.sent_count < DESCRIBED_COUNT;
            if turn.sent_count < 2 * limit {
                self.insert(turn);
            }
        }
    }

    fn insert(&mut self, turn: Turn) {
        self.turns.insert(turn);
        self.by_node.insert(turn.news.node, turn);
    }
}

/// Descriptions go along the first few times only; whoever has not heard one by then asks for it. Eight copies of
/// 200 bytes reach each member otherwise, where one is enough.
const DESCRIBED_COUNT: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &mut Broadcasts, limit: u32, room: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        queue.offer(limit, |news| {
            if taken.len() == room {
                return Fit::Full;
            }
            taken.push(news.node.0);
            Fit::Sent
        });
        taken
    }

    #[test]
    fn what_was_told_least_goes_first_and_old_news_ends() {
        let mut queue = Broadcasts::default();
        (1..=3).for_each(|node| queue.add(NodeId(node), false));
        assert_eq!(take(&mut queue, 1, 2), [1, 2]);
        assert_eq!(take(&mut queue, 1, 2), [3, 1]);
        assert!(!queue.is_urgent(1));
        assert_eq!(take(&mut queue, 1, 9), [2, 3]);
        assert_eq!(take(&mut queue, 1, 9), [0; 0]);
    }

    #[test]
    fn newer_news_of_a_member_begins_anew_and_takes_one_place() {
        let mut queue = Broadcasts::default();
        queue.add(NodeId(1), false);
        assert_eq!(take(&mut queue, 1, 9), [1]);
        queue.add(NodeId(1), false);
        assert!(queue.is_urgent(1));
        assert_eq!(take(&mut queue, 1, 9), [1]);
        assert_eq!(take(&mut queue, 1, 9), [1]);
        assert_eq!(take(&mut queue, 1, 9), [0; 0]);
    }

    #[test]
    fn a_description_goes_along_twice() {
        let mut queue = Broadcasts::default();
        queue.add(NodeId(1), true);
        queue.add(NodeId(1), false);
        let mut described = Vec::new();
        for _ in 0..4 {
            queue.offer(4, |news| {
                described.push(news.is_described);
                Fit::Sent
            });
        }
        assert_eq!(described, [true, true, false, false]);
    }

    #[test]
    fn what_is_skipped_keeps_its_turn() {
        let mut queue = Broadcasts::default();
        queue.add(NodeId(1), false);
        queue.add(NodeId(2), false);
        queue.offer(1, |news| if news.node == NodeId(1) { Fit::Skipped } else { Fit::Sent });
        assert_eq!(take(&mut queue, 1, 9), [1, 2]);
        assert_eq!(take(&mut queue, 1, 9), [1]);
    }
}
