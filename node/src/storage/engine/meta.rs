//! The meta file: whose store this is, who mints in it and how far, and the blobs of the system state.
//!
//! Shape: one table, name -> sealed value. `identity` = format (4), store id (8), node (8), cluster (8, 0 = not known yet), the
//! store's number among those of its node (1) and how many there are (1);
//! `leases` = incarnation (8), dots end (8), lsns end (8); `blob/NAME` = bytes. Big-endian.
//! Invariant: two-phase commits. A lost last commit here would let a dot be minted twice, and one-phase commits were seen to
//! be rolled back silently by a flipped bit (notes/reliability.md §3).

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use shoal_protocol::id::{Actor, ClusterId, NodeId};

use crate::storage::cell::{CellId, CellPlace};
use crate::storage::effect::Failure;
use crate::storage::lease::Leases;
use crate::storage::row::{Kind, seal, unseal};

use super::failed;

const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const IDENTITY: &str = "identity";
const LEASES: &str = "leases";
const BLOB: &str = "blob/";

/// Whose store this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) format: u32,
    /// Drawn when the store was made; `rows.redb` carries it too.
    pub(super) store_id: u64,
    pub(super) node: NodeId,
    pub(super) cluster: Option<ClusterId>,
    /// Which of the node's stores.
    pub(super) place: CellPlace,
}

/// The meta file, open.
#[derive(Debug)]
pub(super) struct Meta {
    database: Database,
}

impl Meta {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    /// Writes the first content.
    pub(super) fn begin(&self, identity: Identity, leases: Leases) -> Result<(), Failure> {
        self.put(&[(IDENTITY, &encode_identity(identity)), (LEASES, &encode_leases(leases))])
    }

    pub(super) fn put_identity(&self, identity: Identity) -> Result<(), Failure> {
        self.put(&[(IDENTITY, &encode_identity(identity))])
    }

    pub(super) fn put_leases(&self, leases: Leases) -> Result<(), Failure> {
        self.put(&[(LEASES, &encode_leases(leases))])
    }

    pub(super) fn put_blob(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.put(&[(&format!("{BLOB}{name}"), bytes)])
    }

    /// Everything, checked.
    pub(super) fn read(&self) -> Result<(Identity, Leases, BTreeMap<String, Bytes>), Failure> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(META).map_err(failed)?;
        let (mut identity, mut leases, mut blobs) = (None, None, BTreeMap::new());
        for item in table.iter().map_err(failed)? {
            let (name, value) = item.map_err(failed)?;
            let name = name.value();
            let body = unseal(Kind::Meta, name.as_bytes(), value.value()).ok_or_else(|| damaged(name))?;
            match name {
                IDENTITY => identity = decode_identity(body),
                LEASES => leases = decode_leases(body),
                other => {
                    let blob = other.strip_prefix(BLOB).ok_or_else(|| damaged(other))?;
                    blobs.insert(blob.into(), Bytes::copy_from_slice(body));
                }
            }
        }
        Ok((identity.ok_or_else(|| damaged(IDENTITY))?, leases.ok_or_else(|| damaged(LEASES))?, blobs))
    }

    fn put(&self, values: &[(&str, &[u8])]) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_two_phase_commit(true);
        {
            let mut table = transaction.open_table(META).map_err(failed)?;
            for (name, body) in values {
                table.insert(*name, seal(Kind::Meta, name.as_bytes(), &[body]).as_slice()).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }
}

fn damaged(name: &str) -> Failure {
    Failure::Damaged { reason: format!("`{name}` of the meta file is unreadable") }
}

fn encode_identity(identity: Identity) -> Vec<u8> {
    let mut body = identity.format.to_be_bytes().to_vec();
    let cluster = identity.cluster.map_or(0, |cluster| cluster.0);
    for number in [identity.store_id, identity.node.0, cluster] {
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.extend_from_slice(&[identity.place.cell.0, identity.place.count]);
    body
}

/// Reads the format alone if it is newer than ours: nothing else of it is understood.
fn decode_identity(body: &[u8]) -> Option<Identity> {
    let (format, rest) = body.split_first_chunk::<4>()?;
    let format = u32::from_be_bytes(*format);
    if format > super::open::FORMAT {
        return Some(Identity { format, store_id: 0, node: NodeId(0), cluster: None, place: CellPlace::ALONE });
    }
    let (rest, &[cell, count]) = rest.split_last_chunk::<2>()?;
    let place = CellPlace { cell: CellId(cell), count };
    let [store_id, node, cluster] = numbers(rest)?;
    let cluster = (cluster != 0).then_some(ClusterId(cluster));
    (cell < count).then_some(Identity { format, store_id, node: NodeId(node), cluster, place })
}

fn encode_leases(leases: Leases) -> Vec<u8> {
    [leases.incarnation.0, leases.dots_end, leases.lsns_end].iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn decode_leases(body: &[u8]) -> Option<Leases> {
    let [incarnation, dots_end, lsns_end] = numbers(body)?;
    Some(Leases { incarnation: Actor(incarnation), dots_end, lsns_end })
}

fn numbers<const COUNT: usize>(body: &[u8]) -> Option<[u64; COUNT]> {
    let (chunks, rest) = body.as_chunks::<8>();
    let numbers: Vec<u64> = chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect();
    rest.is_empty().then_some(())?;
    numbers.try_into().ok()
}
