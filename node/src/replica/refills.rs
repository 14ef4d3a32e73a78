//! How often stores refilled partitions: this node's own, and what others told of theirs.
//!
//! Shape: (node, partition) -> the greatest custody noted; who is not there never refilled it. A count belongs to one
//! incarnation and begins at 0 with the next. Of this node's own partitions also a *floor*: the dots below it were minted
//! before rows were lost. One blob of the store: a version byte, then the entries in order.
//! Source: DESIGN §4 (Actors). Invariants: only what is durable is told, so a count survives whoever saw it; counts and floors
//! only grow.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_protocol::causality::Dot;
use shoal_protocol::codec;
use shoal_protocol::id::{Actor, NodeId, Partition, RefillCount};
use shoal_protocol::peer::Custody;

use crate::storage::PersistTicket;

type Counts = BTreeMap<(NodeId, Partition), Custody>;

/// The counts, and the write under way.
#[derive(Debug, Default)]
pub(crate) struct Refills {
    noted: Counts,
    durable: Counts,
    floors: BTreeMap<Partition, DotFloor>,
    writing: Option<PersistTicket>,
}

/// The stored refill counts cannot be read: they are damaged, or a newer version wrote them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refill counts: {reason}")]
pub struct RefillsError {
    reason: String,
}

/// Where a store stood when it lost rows of a partition: it may have minted anything below for any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DotFloor {
    /// Its incarnation then.
    pub incarnation: Actor,
    /// The first dot it had not used.
    pub n: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored(Vec<(NodeId, Partition, Custody)>, Vec<(Partition, DotFloor)>);

/// As version 1 had it.
#[derive(Serialize, Deserialize)]
struct StoredCounts(Vec<(NodeId, Partition, Custody)>);

impl Refills {
    /// The counts of a store that holds `stored` (`None`: none were ever noted).
    pub(crate) fn open(stored: Option<&[u8]>) -> Result<Self, RefillsError> {
        let damaged = |reason: String| RefillsError { reason };
        let Some(stored) = stored else { return Ok(Self::default()) };
        let (&version, body) = stored.split_first().ok_or_else(|| damaged("empty".into()))?;
        let bad = |error: codec::CodecError| damaged(error.to_string());
        let Stored(entries, floors) = match version {
            VERSION => codec::decode(body).map_err(bad)?,
            VERSION_WITHOUT_FLOORS => {
                let StoredCounts(entries) = codec::decode(body).map_err(bad)?;
                Stored(entries, Vec::new())
            }
            newer => return Err(damaged(format!("version {newer}; this build knows {VERSION}"))),
        };
        let noted: Counts =
            entries.into_iter().map(|(node, partition, custody)| ((node, partition), custody)).collect();
        let opened = Self { durable: noted.clone(), noted, floors: floors.into_iter().collect(), writing: None };
        if version == VERSION && opened.bytes() != stored {
            return Err(damaged("not canonical".into()));
        }
        Ok(opened)
    }

    /// Notes that this store may have minted anything below a dot for rows of a partition that are lost.
    pub(crate) fn note_floor(&mut self, partition: Partition, floor: DotFloor) {
        self.floors.insert(partition, floor);
    }

    /// Whether the highest dot of this store that an object shows may not be the highest it minted for it.
    pub(crate) fn is_below_floor(&self, partition: Partition, highest: Dot) -> bool {
        let floor = self.floors.get(&partition).filter(|floor| floor.incarnation == highest.actor);
        floor.is_some_and(|floor| highest.n < floor.n)
    }

    /// How often this incarnation of a node refilled a partition, as far as is durable here.
    pub(crate) fn count(&self, node: NodeId, partition: Partition, incarnation: Actor) -> RefillCount {
        let noted = self.durable.get(&(node, partition));
        noted.filter(|custody| custody.incarnation == incarnation).map_or_else(RefillCount::default, |c| c.refill)
    }

    /// Notes a custody, unless a later one is known; whether there is something to write.
    pub(crate) fn note(&mut self, node: NodeId, partition: Partition, custody: Custody) -> bool {
        let is_later = self.noted.get(&(node, partition)).is_none_or(|known| *known < custody);
        if is_later {
            self.noted.insert((node, partition), custody);
        }
        is_later
    }

    /// What is to be stored.
    pub(crate) fn bytes(&self) -> Bytes {
        let counts = self.noted.iter().map(|(&(node, partition), &custody)| (node, partition, custody)).collect();
        let floors = self.floors.iter().map(|(partition, floor)| (*partition, *floor)).collect();
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&codec::encode(&Stored(counts, floors)));
        bytes.into()
    }

    /// `bytes` are being written.
    pub(crate) fn writing(&mut self, ticket: PersistTicket) {
        self.writing = Some(ticket);
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether this was the write of all that is noted: then it is durable.
    pub(crate) fn persisted(&mut self, ticket: PersistTicket) -> bool {
        let is_ours = self.writing.take_if(|open| *open == ticket).is_some();
        if is_ours {
            self.durable = self.noted.clone();
        }
        is_ours
    }
}

/// The name of the blob that holds the counts.
pub(crate) const REFILLS_BLOB: &str = "refills";
const VERSION: u8 = 2;
/// Of stores that never lost a row and knew no floors.
const VERSION_WITHOUT_FLOORS: u8 = 1;

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Class;

    use super::*;

    const NODE: NodeId = NodeId(1);
    const PARTITION: Partition = Partition { class: Class { n: 3, r: 0, w: 0 }, index: 7 };

    fn custody(generation: u64, store: u64, refill: u32) -> Custody {
        Custody { generation, incarnation: Actor(store), refill: RefillCount(refill) }
    }

    #[test]
    fn a_count_is_told_once_it_is_durable_and_found_again_after_a_restart() {
        let mut refills = Refills::default();
        assert!(refills.note(NODE, PARTITION, custody(0, 5, 1)));
        refills.writing(PersistTicket(3));
        assert_eq!(refills.count(NODE, PARTITION, Actor(5)), RefillCount(0));
        assert!(!refills.persisted(PersistTicket(2)));
        assert!(refills.persisted(PersistTicket(3)));
        assert_eq!(refills.count(NODE, PARTITION, Actor(5)), RefillCount(1));
        let again = Refills::open(Some(&refills.bytes())).unwrap();
        assert_eq!(again.count(NODE, PARTITION, Actor(5)), RefillCount(1));
        assert_eq!(again.count(NODE, Partition { index: 8, ..PARTITION }, Actor(5)), RefillCount(0));
        assert_eq!(again.count(NodeId(2), PARTITION, Actor(5)), RefillCount(0));
    }

    #[test]
    fn counts_only_grow_and_begin_anew_with_an_incarnation() {
        let mut refills = Refills::default();
        assert!(refills.note(NODE, PARTITION, custody(0, 5, 2)));
        assert!(!refills.note(NODE, PARTITION, custody(0, 5, 1)));
        assert!(refills.note(NODE, PARTITION, custody(1, 3, 0)));
        assert!(!refills.note(NODE, PARTITION, custody(0, 5, 9)));
        let again = Refills::open(Some(&refills.bytes())).unwrap();
        assert_eq!(again.count(NODE, PARTITION, Actor(5)), RefillCount(0));
        assert_eq!(again.durable.values().copied().collect::<Vec<_>>(), [custody(1, 3, 0)]);
    }

    #[test]
    fn floors_are_found_again_and_what_version_1_wrote_is_read() {
        let mut refills = Refills::default();
        refills.note(NODE, PARTITION, custody(0, 5, 2));
        refills.note_floor(PARTITION, DotFloor { incarnation: Actor(5), n: 10 });
        let again = Refills::open(Some(&refills.bytes())).unwrap();
        let dot = |actor, n| Dot { actor: Actor(actor), n };
        assert!(again.is_below_floor(PARTITION, dot(5, 9)) && !again.is_below_floor(PARTITION, dot(5, 10)));
        assert!(!again.is_below_floor(PARTITION, dot(6, 9)));
        assert!(!again.is_below_floor(Partition { index: 8, ..PARTITION }, dot(5, 9)));
        let mut old = vec![VERSION_WITHOUT_FLOORS];
        old.extend_from_slice(&codec::encode(&StoredCounts(vec![(NODE, PARTITION, custody(0, 5, 2))])));
        assert_eq!(Refills::open(Some(&old)).unwrap().count(NODE, PARTITION, Actor(5)), RefillCount(2));
    }

    #[test]
    fn bytes_that_are_no_counts_are_refused() {
        assert_eq!(Refills::open(None).unwrap().noted, Counts::new());
        let mut refills = Refills::default();
        refills.note(NODE, PARTITION, custody(0, 5, 2));
        let mut bytes = refills.bytes().to_vec();
        bytes.push(0);
        for wrong in [&[][..], &[9], &bytes, &bytes[..4]] {
            assert!(Refills::open(Some(wrong)).is_err(), "{wrong:?}");
        }
    }
}
