//! Looking into a store that nobody runs.
//!
//! Shape: `inspect` counts, `verify` reads every row, digest, feed entry and log record and checks it. Neither replays the
//! log into anything or changes what a start would find; a file that was not closed in order is repaired as a start would.

use std::collections::BTreeMap;

use bytes::Bytes;
use shoal_protocol::id::{ClusterId, NodeId, Partition};
use shoal_protocol::object::{DigestKey, Object};

use super::disk::{Disk, LogMode};
use super::log::{self, Damage, SegmentInfo};
use super::meta::Meta;
use super::open::{LOG_FILES, META_FILE, OpenError, ROWS_FILE, damaged, exists, in_file, open_database};
use super::rows::RowsWriter;
use crate::storage::cell::CellPlace;
use crate::storage::hint::is_hint_partition;
use crate::storage::lease::Leases;
use crate::storage::progress::RowsAt;
use crate::storage::rowset::VerifyReport;

/// A store, opened for looking.
#[derive(Debug)]
pub struct StoppedStore<'a, D: Disk> {
    disk: &'a D,
    rows: RowsWriter,
    /// What the meta file says.
    pub identity: Identity,
    /// Named blobs: the system state and what else a node keeps.
    pub blobs: BTreeMap<String, Bytes>,
}

/// Whose store it is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Version of the data directory's format.
    pub format: u32,
    /// Names the store in its own files.
    pub store_id: u64,
    /// The node.
    pub node: NodeId,
    /// Its cluster, once known.
    pub cluster: Option<ClusterId>,
    /// Which of the node's stores.
    pub place: CellPlace,
    /// Incarnation and leases.
    pub leases: Leases,
}

/// What a store holds.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Names and bytes of all files.
    pub files: Vec<(String, u64)>,
    /// How the log would be written here.
    pub log_mode: LogMode,
    /// The log's segments.
    pub segments: Vec<SegmentInfo>,
    /// Records of the log that are not in the rows.
    pub log_records_count: u64,
    /// What is in the rows.
    pub at: RowsAt,
    /// Partitions that have rows.
    pub partitions_count: u64,
    /// Rows, those of deleted objects included.
    pub rows_count: u64,
    /// Hints: what is kept for other nodes.
    pub hints_count: u64,
    /// Buckets of digests that have rows.
    pub buckets_count: u64,
}

/// What is wrong with a store.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Rows, digests and change feeds.
    pub rows: VerifyReport,
    /// Records read from the log.
    pub log_records_count: u64,
    /// Damage in the log.
    pub log_damage: Vec<Damage>,
    /// Records of the log that hold no object.
    pub log_records_wrong: u64,
}

impl Verification {
    /// The first damage, in words; `None` if there is none.
    #[must_use]
    pub fn first_damage(&self) -> Option<String> {
        let log = self
            .log_damage
            .first()
            .map(|damage| format!("{} is damaged at byte {}: {:?}", damage.segment, damage.offset, damage.what));
        let record = (self.log_records_wrong > 0).then(|| "a record of the log holds no object".to_owned());
        log.or(record).or_else(|| self.rows.first_damage.clone())
    }
}

impl<'a, D: Disk> StoppedStore<'a, D> {
    /// Opens the store on `disk`.
    ///
    /// # Errors
    /// See `OpenError`; `Damaged` also if there is no store.
    pub fn open(disk: &'a D) -> Result<Self, OpenError> {
        for file in [META_FILE, ROWS_FILE] {
            if !exists(disk, file)? {
                return Err(damaged(
                    file,
                    "it is missing: this is not a data directory, or one whose making was cut short",
                ));
            }
        }
        let meta = Meta::new(open_database(disk, META_FILE, CACHE_BYTES)?);
        let (identity, leases, blobs) = in_file(META_FILE, || meta.read())?;
        if identity.format > super::open::FORMAT {
            return Err(OpenError::NewerFormat { found: identity.format });
        }
        let rows = open_database(disk, ROWS_FILE, CACHE_BYTES)?;
        let rows = in_file(ROWS_FILE, || RowsWriter::open(rows, identity.store_id, CACHE_BYTES))?;
        let super::meta::Identity { format, store_id, node, cluster, place } = identity;
        Ok(Self { disk, rows, identity: Identity { format, store_id, node, cluster, place, leases }, blobs })
    }

    /// Counts.
    ///
    /// # Errors
    /// A file is damaged, or the disk failed.
    pub fn inspect(&self) -> Result<Inspection, OpenError> {
        let names = self.disk.list().map_err(|error| OpenError::Disk(error.into()))?;
        let bytes = |name: String| {
            let bytes = self.disk.len(&name)?;
            Ok((name, bytes))
        };
        let mut files = names.into_iter().map(bytes).collect::<std::io::Result<Vec<_>>>();
        if let Ok(files) = &mut files {
            files.sort();
        }
        let snapshot = self.rows.reader().snapshot();
        let (segments, replayed) = in_file(LOG_FILES, || {
            log::inspect(self.disk, self.identity.store_id, snapshot.at.replay_from, &mut |_| {})
        })?;
        let mut inspection = Inspection {
            files: files.map_err(|error| OpenError::Disk(error.into()))?,
            log_mode: self.disk.log_mode(),
            segments,
            log_records_count: replayed.records_count,
            at: snapshot.at,
            partitions_count: 0,
            rows_count: 0,
            hints_count: 0,
            buckets_count: 0,
        };
        for partition in in_file(ROWS_FILE, || snapshot.partitions())? {
            let digests = in_file(ROWS_FILE, || snapshot.digests(partition))?;
            if is_hint_partition(partition) {
                inspection.hints_count += digests.rows_count;
                continue;
            }
            inspection.partitions_count += u64::from(digests.rows_count > 0);
            inspection.rows_count += digests.rows_count;
            inspection.buckets_count += digests.buckets.len() as u64;
        }
        Ok(inspection)
    }

    /// Reads and checks everything. Without the cluster's digest key, rows are not compared with their digests. `each` is
    /// told the partitions as they are done, and how many there are.
    ///
    /// # Errors
    /// A file is so damaged that it cannot be read through, or the disk failed.
    pub fn verify(
        &self,
        digest_key: Option<&DigestKey>,
        each: &mut dyn FnMut(Partition, usize),
    ) -> Result<Verification, OpenError> {
        let snapshot = self.rows.reader().snapshot();
        let mut found = Verification::default();
        let (_, replayed) = in_file(LOG_FILES, || {
            log::inspect(self.disk, self.identity.store_id, snapshot.at.replay_from, &mut |record| {
                found.log_records_wrong += u64::from(Object::decode(&record.delta).is_err());
            })
        })?;
        found.log_records_count = replayed.records_count;
        found.log_damage = replayed.damage;
        let partitions = in_file(ROWS_FILE, || snapshot.partitions())?;
        for partition in &partitions {
            in_file(ROWS_FILE, || snapshot.verify(*partition, digest_key, &mut found.rows))?;
            each(*partition, partitions.len());
        }
        Ok(found)
    }
}

const CACHE_BYTES: usize = 64 << 20;
