//! Opening and making a store.
//!
//! Shape: room -> meta (identity, leases, blobs) -> rows -> replay of the log. Both databases are made under a temporary
//! name, filled, closed and renamed, rows first: a store exists once `meta.redb` does. (redb cannot open a file whose
//! creation was cut short.) The log makes its own files. Of a node's stores only the home store is made here; `cells` makes the
//! others before it.
//! Invariant: a data directory that is not this node's, or not understood, is refused, and what it holds is kept.

use std::io;

use redb::{Database, DatabaseError, StorageBackend, StorageError};
use shoal_protocol::id::{Actor, ClusterId, Lsn, NodeId};
use shoal_protocol::object::Object;

use crate::storage::cell::CellPlace;
use crate::storage::effect::{Failure, Record, Recovered};
use crate::storage::lease::Leases;
use crate::storage::memtable::{Delta, Memtable};

use super::disk::Disk;
use super::lanes::{LogLane, LogWork, ReadLane, RowsLane};
use super::log::{Damage, Damaged, Log, LogOptions};
use super::meta::{Identity, Meta};
use super::room::RoomWatch;
use super::rows::{self, Dropped, RowsWriter};
use super::{Engine, guarded};

/// The format this code reads and writes.
pub(super) const FORMAT: u32 = 1;

/// Whose store is to be opened, and how.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// The node.
    pub node: NodeId,
    /// Its cluster, if known; a store that knew none takes it on.
    pub cluster: Option<ClusterId>,
    /// Which of the node's stores this is, and how many it has.
    pub place: CellPlace,
    /// The incarnation of the store if it is made now: freshly drawn.
    pub incarnation: Actor,
    /// Pages that redb may keep in memory.
    pub cache_bytes: usize,
    /// How the log is kept.
    pub log: LogOptions,
    /// Room on the disk below which writes of clients are refused, bytes.
    pub reserve_bytes: u64,
    /// How much of what the files say is believed.
    pub doubt: Doubt,
}

/// What is to be doubted when a store is opened, the more the later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// Nothing: rows and records are checked when they are read.
    #[default]
    Nothing,
    /// Pages: redb checks all of them first, about 1 s per GB. After damage was met.
    Pages,
    /// The operating system: after a failed sync it may show writes that will never reach the disk, and call them clean
    /// ("fsyncgate"). Every file is copied, synced and put in place of itself, then checked. After an I/O error.
    Disk,
}

impl Failure {
    /// What to doubt when the store is opened again after this.
    #[must_use]
    pub fn doubt(&self) -> Doubt {
        match self {
            // A write that found no space was not done, and there is no space for a copy.
            Self::Full => Doubt::Nothing,
            Self::Io { .. } => Doubt::Disk,
            Self::Damaged { .. } | Self::Panicked { .. } => Doubt::Pages,
        }
    }
}

/// Why a store cannot be opened. What it holds was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory is another node's. Start with that node's name, or another directory.
    #[error("the data directory belongs to node {found}, not {expected}")]
    OtherNode {
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// The data directory is another cluster's. Start with that cluster's name and secret, or another directory.
    #[error("the data directory belongs to cluster {found}, not {expected}")]
    OtherCluster {
        /// Whose it is.
        found: ClusterId,
        /// Who asked.
        expected: ClusterId,
    },
    /// The data directory has another number of stores, or this is another of them. The number is fixed when it is made: start
    /// with that one, or leave it out.
    #[error("this is store {found}, not {expected}; how many there are is fixed when the data directory is made")]
    OtherCells {
        /// What it is.
        found: CellPlace,
        /// What was asked for.
        expected: CellPlace,
    },
    /// A newer version of Shoal wrote this. Start that one.
    #[error("the data directory has format {found}; this version reads up to {FORMAT}")]
    NewerFormat {
        /// Its format.
        found: u32,
    },
    /// Another process has it open. Stop that one.
    #[error("the data directory is in use by another process")]
    Locked,
    /// A file is damaged or missing. Restore it, or wipe the directory and let the node catch up from others.
    #[error("`{file}` is damaged: {reason}")]
    Damaged {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk failed or is full. Mend that and start again.
    #[error("{0}")]
    Disk(Failure),
}

impl<D: Disk> Engine<D> {
    /// Opens the store on `disk`; a home store is made if there is none.
    ///
    /// # Errors
    /// See `OpenError`.
    pub fn open(disk: &D, options: &OpenOptions) -> Result<(Self, Recovered), OpenError> {
        let room = RoomWatch::begin(disk, options.reserve_bytes, options.place.cell.is_home());
        let room = room.map_err(|error| OpenError::Disk(error.into()))?;
        clear_temporary(disk)?;
        let created = !exists(disk, META_FILE)?;
        if created && !options.place.cell.is_home() {
            return Err(damaged(META_FILE, "it is missing, of a store that was made before the node's home store"));
        }
        if created {
            clear_unfinished(disk, options)?;
            make(disk, options)?;
        }
        if !exists(disk, ROWS_FILE)? {
            return Err(damaged(ROWS_FILE, "it is missing"));
        }
        if options.doubt == Doubt::Disk {
            // The log sees to itself when it is opened.
            rewrite(disk, META_FILE, COPY_FILE)?;
            rewrite(disk, ROWS_FILE, COPY_FILE)?;
        }
        let meta = Meta::new(open_file(disk, options, META_FILE)?);
        let (identity, leases, blobs) = in_file(META_FILE, || meta.read())?;
        let cluster = check_identity(&meta, identity, options)?;
        let rows = open_file(disk, options, ROWS_FILE)?;
        let rows = in_file(ROWS_FILE, || RowsWriter::open(rows, identity.store_id, options.cache_bytes))?;
        let at = rows.reader().at();
        let dropped = in_file(ROWS_FILE, || rows.dropped())?;
        let (log, Replay { memtable, damaged_records }) =
            in_file(LOG_FILES, || replay(disk, (identity.store_id, at.replay_from), &dropped, options))?;
        let recovered =
            Recovered { created, cluster, leases, memtable, rows: at, room: room.room(), blobs, damaged_records };
        let engine = Self {
            reads: ReadLane::new(rows.reader()),
            rows: RowsLane::new(rows),
            log: LogLane::new(LogWork { disk: disk.clone(), log, meta, room, looked_at: 0 }),
            is_dead: false,
        };
        Ok((engine, recovered))
    }
}

/// Makes the files of an empty store, where there are none.
pub(super) fn make<D: Disk>(disk: &D, options: &OpenOptions) -> Result<(), OpenError> {
    let store_id = options.incarnation.0;
    create(disk, options, ROWS_FILE, |database| rows::begin(&database, store_id))?;
    create(disk, options, META_FILE, |database| begin_meta(database, store_id, options))
}

pub(super) fn clear_temporary<D: Disk>(disk: &D) -> Result<(), OpenError> {
    [ROWS_NEW_FILE, META_NEW_FILE, COPY_FILE].iter().try_for_each(|name| remove_if_there(disk, name))
}

/// Removes the rows of a creation that was cut short.
pub(super) fn clear_unfinished<D: Disk>(disk: &D, options: &OpenOptions) -> Result<(), OpenError> {
    check_unused(disk, options)?;
    remove_if_there(disk, ROWS_FILE)
}

/// That nothing was ever put into the store here, if there is one.
pub(super) fn check_unused<D: Disk>(disk: &D, options: &OpenOptions) -> Result<(), OpenError> {
    if exists(disk, ROWS_FILE)? {
        let rows = open_file(disk, options, ROWS_FILE)?;
        let is_unused = in_file(ROWS_FILE, || rows::is_unused(&rows))?;
        let names = disk.list().map_err(|error| OpenError::Disk(error.into()))?;
        if !is_unused || names.iter().any(|name| name.starts_with(LOG_FILES)) {
            return Err(damaged(META_FILE, "it is missing beside rows or a log that are in use"));
        }
    }
    Ok(())
}

pub(super) fn remove_if_there<D: Disk>(disk: &D, name: &str) -> Result<(), OpenError> {
    if exists(disk, name)? {
        disk.remove(name).map_err(|error| OpenError::Disk(error.into()))?;
    }
    Ok(())
}

/// Puts a synced copy of a file in its place.
fn rewrite<D: Disk>(disk: &D, name: &str, new: &str) -> Result<(), OpenError> {
    let copy = || {
        let (from, to) = (disk.open(name)?, disk.open(new)?);
        let len = from.len()?;
        to.set_len(len)?;
        let mut buffer = vec![0; COPY_BYTES];
        for offset in (0..len).step_by(COPY_BYTES) {
            let rest = usize::try_from(len - offset).map_or(COPY_BYTES, |rest| rest.min(COPY_BYTES));
            from.read(offset, &mut buffer[..rest])?;
            to.write(offset, &buffer[..rest])?;
        }
        to.sync_data()
    };
    copy().and_then(|()| disk.rename(new, name)).map_err(|error| OpenError::Disk(error.into()))
}

fn create<D: Disk>(
    disk: &D,
    options: &OpenOptions,
    file: &'static str,
    fill: impl FnOnce(Database) -> Result<(), Failure>,
) -> Result<(), OpenError> {
    let new = if file == ROWS_FILE { ROWS_NEW_FILE } else { META_NEW_FILE };
    let database = open_file(disk, options, new)?;
    in_file(file, || fill(database))?;
    // A sync that failed while the file was closed was told to nobody.
    rewrite(disk, new, COPY_FILE)?;
    disk.rename(new, file).map_err(|error| OpenError::Disk(error.into()))
}

fn begin_meta(database: Database, store_id: u64, options: &OpenOptions) -> Result<(), Failure> {
    let OpenOptions { node, cluster, place, .. } = *options;
    let identity = Identity { format: FORMAT, store_id, node, cluster, place };
    let leases = Leases { incarnation: options.incarnation, dots_end: 0, lsns_end: 0 };
    Meta::new(database).begin(identity, leases)
}

fn check_identity(meta: &Meta, identity: Identity, options: &OpenOptions) -> Result<Option<ClusterId>, OpenError> {
    if identity.format > FORMAT {
        return Err(OpenError::NewerFormat { found: identity.format });
    }
    if identity.node != options.node {
        return Err(OpenError::OtherNode { found: identity.node, expected: options.node });
    }
    if identity.place != options.place {
        return Err(OpenError::OtherCells { found: identity.place, expected: options.place });
    }
    match (identity.cluster, options.cluster) {
        (Some(found), Some(expected)) if found != expected => Err(OpenError::OtherCluster { found, expected }),
        (None, Some(_)) => {
            in_file(META_FILE, || meta.put_identity(Identity { cluster: options.cluster, ..identity }))?;
            Ok(options.cluster)
        }
        (found, _) => Ok(found),
    }
}

/// What the log gave.
struct Replay {
    memtable: Memtable,
    damaged_records: usize,
}

/// Joins the log into a memtable, but for what was dropped since.
fn replay<D: Disk>(
    disk: &D,
    (store_id, replay_from): (u64, Lsn),
    dropped: &Dropped,
    options: &OpenOptions,
) -> Result<(Log<D::LogFile>, Replay), Failure> {
    let mut replayed = Replay { memtable: Memtable::default(), damaged_records: 0 };
    let (log, found) = Log::open(disk, store_id, replay_from, options.log, &mut |record| {
        if dropped.covers(&record.key, record.lsn) {
            return;
        }
        // The checksum held, so these are the bytes once received; were they none, they count as damage.
        match Object::decode_shared(&record.delta) {
            Ok(delta) => {
                let Record { key, delta: bytes, lsn, heals } = &record;
                replayed.memtable.join(key, Delta { object: &delta, bytes, lsn: *lsn, heals: *heals });
            }
            Err(_) => replayed.damaged_records += 1,
        }
    })?;
    for damage in &found.damage {
        tracing::error!(?damage, "the log is damaged");
    }
    // A segment that was cut short may have held records that nobody can name.
    let is_loss = |damage: &&Damage| matches!(damage.what, Damaged::Records { .. } | Damaged::Length);
    let lost = found.damage.iter().filter(is_loss);
    replayed.damaged_records += lost.count();
    Ok((log, replayed))
}

pub(super) fn exists<D: Disk>(disk: &D, name: &str) -> Result<bool, OpenError> {
    disk.exists(name).map_err(|error| OpenError::Disk(error.into()))
}

pub(super) fn open_file<D: Disk>(disk: &D, options: &OpenOptions, name: &'static str) -> Result<Database, OpenError> {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes).set_check_integrity_on_open(options.doubt > Doubt::Nothing);
    open_with(disk, name, &builder)
}

pub(super) fn open_database<D: Disk>(disk: &D, name: &'static str, cache_bytes: usize) -> Result<Database, OpenError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    open_with(disk, name, &builder)
}

fn open_with<D: Disk>(disk: &D, name: &'static str, builder: &redb::Builder) -> Result<Database, OpenError> {
    let backend = disk.open(name).map_err(|error| OpenError::Disk(error.into()))?;
    let opened = in_file(name, || Ok(builder.create_with_backend(backend)))?;
    opened.map_err(|error| {
        if matches!(error, DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) {
            return OpenError::Locked;
        }
        let text = error.to_string();
        if let DatabaseError::Storage(StorageError::Io(error)) = error
            && !is_damage(&error)
        {
            return OpenError::Disk(error.into());
        }
        damaged(name, &text)
    })
}

/// redb reports some wrong content as an I/O error of these kinds ("magic number", a file cut short).
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

pub(super) fn in_file<T>(file: &'static str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, OpenError> {
    guarded(work).map_err(|failure| match failure {
        Failure::Damaged { reason } | Failure::Panicked { reason } => damaged(file, &reason),
        Failure::Full | Failure::Io { .. } => OpenError::Disk(failure),
    })
}

pub(super) fn damaged(file: &'static str, reason: &str) -> OpenError {
    OpenError::Damaged { file, reason: reason.into() }
}

const COPY_BYTES: usize = 1 << 20;
pub(super) const META_FILE: &str = "meta.redb";
const META_NEW_FILE: &str = "meta.redb.new";
const COPY_FILE: &str = "copy.redb.new";
pub(super) const ROWS_FILE: &str = "rows.redb";
/// What the names of the log's files begin with.
pub(super) const LOG_FILES: &str = "log-";
const ROWS_NEW_FILE: &str = "rows.redb.new";

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let meta = Meta::new(database);
        let place = CellPlace::ALONE;
        let identity = Identity { format: FORMAT + 1, store_id: 1, node: NodeId(1), cluster: None, place };
        meta.begin(identity, Leases { incarnation: Actor(1), dots_end: 0, lsns_end: 0 }).unwrap();
        let (identity, ..) = meta.read().unwrap();
        let options = OpenOptions {
            node: NodeId(1),
            cluster: None,
            place,
            incarnation: Actor(1),
            cache_bytes: 0,
            log: LogOptions::default(),
            reserve_bytes: 0,
            doubt: Doubt::Nothing,
        };
        let refused = check_identity(&meta, identity, &options);
        assert!(matches!(refused, Err(OpenError::NewerFormat { found }) if found == FORMAT + 1));
    }
}
