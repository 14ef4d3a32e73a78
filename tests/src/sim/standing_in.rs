//! Handoff: two of three primaries die, a fallback stands in, they come back and get what they missed.
//!
//! Rules: a sloppy write succeeds with one primary alive and says how many acks are fallbacks'; long after the faults no hint is
//! kept and no debt is open; and before anybody has read the key every primary holds the write, byte for byte.
//! Source: Dynamo §4.6. Units: virtual time.

use std::time::Duration;

use shoal_protocol::address::Place;
use shoal_protocol::client::{ClientRequest, ClientResponse, Operate, QuorumMode, Status};
use shoal_protocol::object::{Digest, Operation};
use shoal_protocol::peer::PeerResponse;

use super::Sim;
use super::faults::Act;
use super::scenario::COLLECTION;

impl Sim {
    /// The paper's story of handoff, on a key of its own.
    pub(super) fn demand_handoff(&mut self) {
        self.calm();
        if !self.wait_until_serving() {
            return;
        }
        self.admin.forget_session();
        let Some(info) = self.demand_keyspace(0) else { return };
        let place = Place { keyspace: info.id, collection: COLLECTION.into(), key: "key".into() };
        // Until all have heard of the keyspace.
        self.run_for(Duration::from_secs(5));
        let held = self.held(&place);
        let [(alive, _), dead @ ..] = &held[..] else { return };
        let (alive, primaries_count) = (*alive, held.len());
        for (node, _) in dead {
            self.world.act(Act::Lose(*node));
        }
        self.run_for(TOGETHER_MAX);
        self.admin.forget_session();
        let operation = Operation::CounterAdd { by: 1 };
        let quorum = Some(QuorumMode::Sloppy);
        let operate = Operate { place: place.clone(), operation, context: None, w: None, quorum };
        match self.insist(alive, &ClientRequest::Operate(operate)) {
            Some(Ok(ClientResponse::Written(written))) if (written.acks, written.fallbacks) == (2, 1) => {
                self.world.count("stood in");
            }
            answer => {
                let text = format!("with one primary of three a sloppy write is answered {answer:?}");
                self.world.find("handoff", text);
            }
        }
        self.calm();
        if self.wait_until_serving() && self.await_handoff() {
            self.compare_held(&place, primaries_count);
        }
    }

    /// Waits until nobody has anything for anybody else.
    pub(super) fn await_handoff(&mut self) -> bool {
        let is_through = |status: Status| {
            let of_others = status.figures.iter().filter(|(name, _)| OF_OTHERS.contains(&name.as_str()));
            of_others.map(|(_, figure)| figure).sum::<u64>() == 0
        };
        let until = self.world.now + HANDOFF_MAX;
        while !(0..self.world.nodes()).all(|node| self.world.status(node).is_some_and(is_through)) {
            if self.world.now > until {
                self.world.find("handoff", "hints or debts are left, long after the faults stopped");
                return false;
            }
            self.run_for(Duration::from_millis(100));
        }
        true
    }

    fn compare_held(&mut self, place: &Place, primaries_count: usize) {
        let held = self.held(place);
        if held.len() != primaries_count || held.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            self.world.find("handoff", format!("the primaries of {place:?} do not hold the same: {held:?}"));
        }
    }

    /// The primaries of a place, and what each holds of it.
    fn held(&mut self, place: &Place) -> Vec<(usize, Digest)> {
        let asked: Vec<_> = (0..self.world.nodes()).map(|node| (node, self.world.probe(node, place))).collect();
        self.run_for(Duration::from_secs(2));
        let answers = asked.into_iter().filter_map(|(node, request)| Some((node, self.world.probed(request)?)));
        let states = answers.filter_map(|(node, answer)| match answer {
            PeerResponse::State { digest, .. } => Some((node, digest)),
            _ => None,
        });
        states.collect()
    }
}

/// Figures of what a node has for others.
const OF_OTHERS: [&str; 3] = ["hints_pending", "hints_bytes", "debts"];
/// After two of five died the others know so long later, whatever the network.
const TOGETHER_MAX: Duration = Duration::from_secs(8);
/// Everything was given back so long after the last fault.
const HANDOFF_MAX: Duration = Duration::from_secs(60);
