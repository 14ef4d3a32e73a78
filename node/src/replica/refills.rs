//! How often stores refilled partitions: this node's own, and what others told of theirs.
//!
//! Shape: (node, partition) -> the greatest custody noted; who is not there never refilled it. A count belongs to one
//! incarnation and begins at 0 with the next. One blob of the store: a version byte, then the entries in order.
//! Source: DESIGN §4 (Actors). Invariants: only what is durable is told, so a count survives whoever saw it; counts only grow.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
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
    writing: Option<PersistTicket>,
}

/// The stored refill counts cannot be read: they are damaged, or a newer version wrote them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refill counts: {reason}")]
pub struct RefillsError {
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Stored(Vec<(NodeId, Partition, Custody)>);

impl Refills {
    /// The counts of a store that holds `stored` (`None`: none were ever noted).
    pub(crate) fn open(stored: Option<&[u8]>) -> Result<Self, RefillsError> {
        let damaged = |reason: String| RefillsError { reason };
        let Some(stored) = stored else { return Ok(Self::default()) };
        let (&version, body) = stored.split_first().ok_or_else(|| damaged("empty".into()))?;
        if version != VERSION {
            return Err(damaged(format!("version {version}; this build knows {VERSION}")));
        }
        let Stored(entries) = codec::decode(body).map_err(|error| damaged(error.to_string()))?;
        let noted: Counts =
            entries.into_iter().map(|(node, partition, custody)| ((node, partition), custody)).collect();
        if encode(&noted) != stored {
            return Err(damaged("not canonical".into()));
        }
        Ok(Self { durable: noted.clone(), noted, writing: None })
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
        encode(&self.noted)
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

fn encode(counts: &Counts) -> Bytes {
    let entries = counts.iter().map(|(&(node, partition), &custody)| (node, partition, custody)).collect();
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&codec::encode(&Stored(entries)));
    bytes.into()
}

/// The name of the blob that holds the counts.
pub(crate) const REFILLS_BLOB: &str = "refills";
const VERSION: u8 = 1;

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
