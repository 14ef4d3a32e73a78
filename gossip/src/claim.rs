//! What is said of a member, and which of two sayings counts.
//!
//! Source: SWIM §4.2. The paper's "confirm" is final; here members come back, so every state can be overridden by a higher
//! incarnation, which only the member itself makes. `Left` is said by the member alone and comes last.
//! Invariant: `overrides` is a strict order on (incarnation, state), so members that heard the same things, in whatever
//! order and however often, believe the same.

use shoal_protocol::id::NodeId;

use crate::member::Liveness;

/// One saying about one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) node: NodeId,
    pub(crate) state: Liveness,
    pub(crate) version: Version,
    /// Who found that it does not answer; exactly for suspects.
    pub(crate) suspected_by: Option<NodeId>,
}

/// Which of its own sayings about itself a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Counted by the member: one more for each refutation and each new description.
    pub(crate) incarnation: u64,
    /// Random per start of its process.
    pub(crate) boot_nonce: u64,
    /// Of its description.
    pub(crate) digest: u64,
}

impl Claim {
    /// That the member of `version` is `state`; a suspect is made with `suspect`.
    pub(crate) const fn new(node: NodeId, state: Liveness, version: Version) -> Self {
        Self { node, state, version, suspected_by: None }
    }

    /// That `by` suspects the member.
    pub(crate) const fn suspect(node: NodeId, version: Version, by: NodeId) -> Self {
        Self { node, state: Liveness::Suspect, version, suspected_by: Some(by) }
    }

    /// Whether this claim counts when `old` was believed.
    pub(crate) const fn overrides(&self, old: &Self) -> bool {
        overrides((old.state, old.version.incarnation), (self.state, self.version.incarnation))
    }
}

/// Whether a member believed to be in the state and incarnation `old` is from now on believed to be in `new`.
const fn overrides(old: (Liveness, u64), new: (Liveness, u64)) -> bool {
    use Liveness::{Alive, Down, Left, Suspect};
    match (old.0, new.0) {
        // It takes a later incarnation to stay where one is, or to come back.
        (Alive, Alive)
        | (Suspect, Alive | Suspect)
        | (Down, Alive | Suspect | Down)
        | (Left, Alive | Suspect | Down | Left) => new.1 > old.1,
        // One incarnation goes this way by itself.
        (Alive, Suspect | Down | Left) | (Suspect, Down | Left) | (Down, Left) => new.1 >= old.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: what is believed. Columns: what is heard. `<` `=` `>`: the heard incarnation is lower, equal or higher;
    /// written is which of them count.
    const TABLE: [(Liveness, [&str; 4]); 4] = [
        //                     Alive  Suspect  Down   Left
        (Liveness::Alive, [">", "=>", "=>", "=>"]),
        (Liveness::Suspect, [">", ">", "=>", "=>"]),
        (Liveness::Down, [">", ">", ">", "=>"]),
        (Liveness::Left, [">", ">", ">", ">"]),
    ];
    const STATES: [Liveness; 4] = [Liveness::Alive, Liveness::Suspect, Liveness::Down, Liveness::Left];

    #[test]
    fn every_pair_of_states_and_incarnations_is_decided_by_the_table() {
        for (old, row) in TABLE {
            for (new, counts) in STATES.into_iter().zip(row) {
                for (heard, sign) in [(4, '<'), (5, '='), (6, '>')] {
                    let expected = counts.contains(sign);
                    assert_eq!(overrides((old, 5), (new, heard)), expected, "{old:?} 5, heard {new:?} {heard}");
                }
            }
        }
    }

    #[test]
    fn of_two_different_sayings_exactly_one_counts() {
        let all: Vec<_> = STATES.into_iter().flat_map(|state| (0..4).map(move |inc| (state, inc))).collect();
        for &a in &all {
            for &b in &all {
                assert_eq!(overrides(a, b) ^ overrides(b, a), a != b, "{a:?} {b:?}");
                for &c in &all {
                    assert!(!(overrides(a, b) && overrides(b, c)) || overrides(a, c), "{a:?} {b:?} {c:?}");
                }
            }
        }
    }
}
