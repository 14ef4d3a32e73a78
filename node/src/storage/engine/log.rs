//! The log: every delta on stable storage before anything is said of it.
//!
//! Shape: segments, files of one length that are zero-filled when made and used again and again; in them groups, one for each
//! sync. The newest segment is active: appending writes one group behind the last and returns when it is durable. When the
//! flush has brought records into the rows, segments without newer ones become free. After opening, appending goes on
//! in a free segment under a new epoch, never behind what was found: what a crash left there cannot be taken for new.
//! Units: bytes, whole blocks of 4 KiB. Source: DESIGN §7; layout in docs/formats/log.md; notes/storage-and-network.md §3-5.
//! Invariants:
//! - A group is written only after the sync of the one before it returned, and a segment used only after its header's.
//! - Before `open` returns, the last group found is written and synced again. Every other had a sync behind it, so nothing
//!   is shown that a later crash takes back, even if an earlier sync failed and the page cache hides it.
//! - A segment is written over only when each of its records is at or below a durable `replay_from`.
//! - After any failure nothing is written until the log was opened again.
//! - Damage in synced content is never returned as data, and never taken for a torn tail, except in the last group while
//!   nothing stands behind it: `seal` puts something there.

mod block;
mod group;
mod replay;
mod segment;

use std::collections::VecDeque;

use redb::StorageBackend;
use shoal_protocol::id::Lsn;

use crate::storage::effect::{Failure, Record};

use super::disk::Disk;
use group::{GROUP_BYTES_MAX, Place, fitting, group_bytes};
use segment::{Header, Segment};

pub use block::{BLOCK_BYTES, Blocks};
pub use replay::{Damage, Damaged, Replayed};

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Length of a segment: whole blocks, at least two.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20 }
    }
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentState {
    /// Nothing in it is needed.
    Free,
    /// It has records that are not known to be in the rows.
    Full,
    /// So it has or will have, and records are appended here.
    Active,
}

/// One segment, for people to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its file.
    pub name: String,
    /// Length of the file.
    pub bytes: u64,
    /// Grows with each use of any segment; zero if it was never used.
    pub epoch: u64,
    /// First and last record in it that may be needed.
    pub records: Option<(Lsn, Lsn)>,
    /// What it is for.
    pub state: SegmentState,
}

/// The log of one store, open for appending. `F` is the disk's `LogFile`.
#[derive(Debug)]
pub struct Log<F> {
    store_id: u64,
    options: LogOptions,
    /// Above every epoch in any file.
    next_epoch: u64,
    /// Above every number in a file's name.
    next_number: u64,
    /// The last record, here or in the rows.
    last: Lsn,
    /// Whether the last group has nothing behind it.
    is_unsealed: bool,
    active: Option<Active<F>>,
    /// Oldest first.
    full: VecDeque<Segment>,
    /// The next to be used first.
    free: VecDeque<Segment>,
    position: u64,
    buffer: Blocks,
    has_failed: bool,
}

/// The segment in which groups are written.
#[derive(Debug)]
struct Active<F> {
    segment: Segment,
    file: F,
    /// Where the next group begins.
    offset: u64,
}

impl<F: StorageBackend> Log<F> {
    /// Opens the log of a store, made by the first append when there is none, and visits every record above `replay_from`
    /// in order. Records at or below it are in the rows, durably. What was visited counts only when this returns well.
    ///
    /// # Errors
    /// The disk failed, or a segment is of another store or version. Damage is no error: see `Replayed::damage`.
    ///
    /// # Panics
    /// If `options` break their rules.
    pub fn open<D: Disk<LogFile = F>>(
        disk: &D,
        store_id: u64,
        replay_from: Lsn,
        options: LogOptions,
        visit: &mut dyn FnMut(Record),
    ) -> Result<(Self, Replayed), Failure> {
        let block = BLOCK_BYTES as u64;
        let LogOptions { segment_bytes } = options;
        assert!(segment_bytes.is_multiple_of(block) && segment_bytes >= 2 * block, "segments of {segment_bytes} bytes");
        segment::clear_unfinished(disk)?;
        let found = replay::read(disk, store_id, replay_from, visit)?;
        if let Some(tail) = &found.tail {
            let file = disk.open_log(&tail.segment)?;
            file.write(tail.offset, &tail.group)?;
            file.sync_data()?;
        }
        let log = Self {
            store_id,
            options,
            next_epoch: found.next_epoch,
            next_number: found.next_number,
            last: found.replayed.last.max(replay_from),
            is_unsealed: found.tail.is_some_and(|tail| !tail.is_closing),
            active: None,
            full: found.full.into(),
            free: found.free.into(),
            position: 0,
            buffer: Blocks::default(),
            has_failed: false,
        };
        Ok((log, found.replayed))
    }

    /// Puts `records`, whose lsns grow, on stable storage: in one group, or as few as they fit in.
    ///
    /// # Errors
    /// The disk failed. Some of the records may be found at the next opening.
    ///
    /// # Panics
    /// If an lsn is not above all before it.
    pub fn append<D: Disk<LogFile = F>>(&mut self, disk: &D, records: &[Record]) -> Result<(), Failure> {
        self.stopping(|log| {
            let grow = records.is_sorted_by(|before, after| before.lsn < after.lsn);
            assert!(grow && records.first().is_none_or(|first| first.lsn > log.last), "lsns grow");
            let mut rest = records;
            while let Some(first) = rest.first() {
                let room = log.active.as_ref().map_or(0, Active::room);
                match fitting(rest, room) {
                    0 => log.activate(disk, first.lsn, group_bytes(&rest[..1]) as u64)?,
                    count => {
                        log.write(&rest[..count])?;
                        rest = &rest[count..];
                    }
                }
            }
            Ok(())
        })
    }

    /// Writes an empty group, or takes the next segment, when the last group has nothing behind it: from then on damage in
    /// it cannot be taken for a torn tail. For idle moments and a clean stop.
    ///
    /// # Errors
    /// The disk failed.
    pub fn seal<D: Disk<LogFile = F>>(&mut self, disk: &D) -> Result<(), Failure> {
        self.stopping(|log| {
            if log.is_unsealed {
                if log.active.as_ref().is_some_and(|active| active.room() > 0) {
                    log.write(&[])?;
                } else {
                    log.activate(disk, Lsn(log.last.0 + 1), BLOCK_BYTES as u64)?;
                }
            }
            Ok(())
        })
    }

    /// Makes a free segment when there is none, so that no append has to wait for it. For idle moments. Where space is
    /// scarce nothing is done.
    ///
    /// # Errors
    /// The disk failed.
    pub fn prepare<D: Disk<LogFile = F>>(&mut self, disk: &D) -> Result<(), Failure> {
        self.stopping(|log| {
            let bytes = log.options.segment_bytes;
            let is_scarce = disk.free_bytes().is_ok_and(|free| free < 2 * bytes);
            if is_scarce || log.free.iter().any(|segment| segment.bytes == bytes) {
                return Ok(());
            }
            match log.create(disk, bytes) {
                Ok(segment) => log.free.push_back(segment),
                Err(Failure::Full) => {}
                Err(failure) => return Err(failure),
            }
            Ok(())
        })
    }

    /// Every record at or below `replay_from` is in the rows, durably: frees the segments that have no others, and removes
    /// free ones of odd length or beyond a reserve.
    ///
    /// # Errors
    /// The disk failed.
    pub fn release<D: Disk<LogFile = F>>(&mut self, disk: &D, replay_from: Lsn) -> Result<(), Failure> {
        self.stopping(|log| {
            let is_done = |segment: &mut Segment| segment.records.is_none_or(|(_, last)| last <= replay_from);
            while let Some(mut segment) = log.full.pop_front_if(is_done) {
                segment.records = None;
                log.free.push_back(segment);
            }
            let free_max = usize::try_from(FREE_BYTES_MAX / log.options.segment_bytes).unwrap_or(usize::MAX);
            let free_max = free_max.min(FREE_SEGMENTS_MAX);
            let mut kept = VecDeque::new();
            for segment in std::mem::take(&mut log.free) {
                if segment.bytes == log.options.segment_bytes && kept.len() < free_max {
                    kept.push_back(segment);
                } else {
                    disk.remove(&segment.name)?;
                }
            }
            log.free = kept;
            Ok(())
        })
    }

    /// Bytes appended since the log was opened, padding included.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// All segments, in order of their last use.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let active = self.active.iter().map(|active| &active.segment);
        describe(self.free.iter(), self.full.iter(), active)
    }

    fn stopping<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.has_failed {
            return Err(Failure::Io { reason: "the log failed and was not opened again".into() });
        }
        self.has_failed = true; // should it panic
        let worked = work(self);
        self.has_failed = worked.is_err();
        worked
    }

    /// Takes a segment with room for a group of so many bytes, whose header says what came before.
    fn activate<D: Disk<LogFile = F>>(&mut self, disk: &D, first: Lsn, bytes: u64) -> Result<(), Failure> {
        if let Some(Active { segment, .. }) = self.active.take() {
            if segment.records.is_some() { self.full.push_back(segment) } else { self.free.push_back(segment) }
        }
        let bytes = self.options.segment_bytes.max(BLOCK_BYTES as u64 + bytes);
        let fits = self.free.iter().position(|segment| segment.bytes == bytes);
        let segment = match fits.and_then(|index| self.free.remove(index)) {
            Some(segment) => segment,
            None => self.create(disk, bytes)?,
        };
        let segment = Segment { epoch: self.next_epoch, ..segment };
        self.next_epoch += 1;
        let header = Header { store_id: self.store_id, epoch: segment.epoch, bytes, first, previous: self.last };
        let file = disk.open_log(&segment.name)?;
        file.write(0, &header.encode())?;
        file.sync_data()?;
        self.is_unsealed = false;
        self.active = Some(Active { segment, file, offset: BLOCK_BYTES as u64 });
        Ok(())
    }

    fn create<D: Disk<LogFile = F>>(&mut self, disk: &D, bytes: u64) -> Result<Segment, Failure> {
        let segment = segment::create(disk, self.next_number, bytes)?;
        self.next_number += 1;
        Ok(segment)
    }

    /// Writes and syncs a group of records that fit into the active segment.
    fn write(&mut self, records: &[Record]) -> Result<(), Failure> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let bytes = group_bytes(records);
        if self.buffer.len() < bytes {
            self.buffer = Blocks::zeroed(bytes.next_power_of_two());
        }
        let group = &mut self.buffer[..bytes];
        let place = Place { store_id: self.store_id, epoch: active.segment.epoch, offset: active.offset };
        group::write(group, place, self.last, records);
        active.file.write(active.offset, group)?;
        active.file.sync_data()?;
        active.offset += bytes as u64;
        self.position += bytes as u64;
        self.is_unsealed = !records.is_empty();
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            let first = active.segment.records.map_or(first.lsn, |(first, _)| first);
            active.segment.records = Some((first, last.lsn));
            self.last = last.lsn;
        }
        if bytes > GROUP_BYTES_MAX {
            self.buffer = Blocks::default();
        }
        Ok(())
    }
}

impl<F> Active<F> {
    fn room(&self) -> u64 {
        self.segment.bytes - self.offset
    }
}

/// Reads the log of a store that is not running, without changing anything: visits every record above `replay_from`.
///
/// # Errors
/// As `Log::open`.
pub fn inspect<D: Disk>(
    disk: &D,
    store_id: u64,
    replay_from: Lsn,
    visit: &mut dyn FnMut(Record),
) -> Result<(Vec<SegmentInfo>, Replayed), Failure> {
    let found = replay::read(disk, store_id, replay_from, visit)?;
    Ok((describe(found.free.iter(), found.full.iter(), std::iter::empty()), found.replayed))
}

/// The names of the log's files.
///
/// # Errors
/// The disk failed.
pub fn files<D: Disk>(disk: &D) -> Result<Vec<String>, Failure> {
    Ok(segment::files(disk)?.into_iter().map(|(_, name)| name).collect())
}

fn describe<'a>(
    free: impl Iterator<Item = &'a Segment>,
    full: impl Iterator<Item = &'a Segment>,
    active: impl Iterator<Item = &'a Segment>,
) -> Vec<SegmentInfo> {
    let free = free.map(|segment| (segment, SegmentState::Free));
    let full = full.map(|segment| (segment, SegmentState::Full));
    let active = active.map(|segment| (segment, SegmentState::Active));
    let mut infos: Vec<_> = free
        .chain(full)
        .chain(active)
        .map(|(segment, state)| {
            let Segment { name, bytes, epoch, records } = segment.clone();
            SegmentInfo { name, bytes, epoch, records, state }
        })
        .collect();
    infos.sort_by_key(|info| info.epoch);
    infos
}

/// Free segments that are kept, bytes: about what a flush of the default budget gives back, for making them anew holds
/// appends up.
const FREE_BYTES_MAX: u64 = 256 << 20;
/// However small they are.
const FREE_SEGMENTS_MAX: usize = 8;
