//! Replay: what the segments hold, read without changing them.
//!
//! Shape: segments in the order of their epochs, each walked block by block. A block where no group of the segment's epoch
//! begins is a hole: what was never written, an older use of the file, a torn tail, or damage. Every group and every header
//! names the last lsn before it, so what stands behind a hole says whether records are missing: then the hole is damage.
//! Behind a torn tail stands nothing, or a header that goes on from the last good group.
//! Units: lsns; a loss is a range of them. Source: DESIGN §7.
//! Invariants: only groups whose checksum is right are visited, in the order in which they were written. Records at or below
//! `replay_from` are in the rows: they are neither visited nor missed. The one thing that cannot be told from a torn tail
//! is damage in the last group of all while nothing was written behind it (see `Log::seal`). (And a newest segment whose
//! file is gone leaves no trace.)

use redb::StorageBackend;
use shoal_protocol::id::Lsn;

use crate::storage::effect::{Failure, Record};
use crate::storage::engine::disk::Disk;

use super::block::{BLOCK_BYTES, Blocks};
use super::group::Group;
use super::segment::{Header, Segment, files};

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The last record of the log, readable or not; zero if there is none.
    pub last: Lsn,
    /// How many records were visited.
    pub records_count: u64,
    /// What is wrong, in the order in which it was found.
    pub damage: Vec<Damage>,
}

/// Something that was synced and is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub segment: String,
    /// Where in it.
    pub offset: u64,
    /// What it is.
    pub what: Damaged,
}

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// A segment's header; its groups were read without it.
    Header,
    /// The end of the file, and nobody can say whether records were in it: a file has its length before it has its name.
    Length,
    /// A group that had no records.
    Closing,
    /// Records, and they are not in the rows either: acknowledged writes are lost here.
    Records {
        /// The last lsn before them.
        after: Lsn,
        /// The last of them.
        through: Lsn,
    },
}

/// What a writer needs to go on.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) replayed: Replayed,
    /// Segments with records above `replay_from`, in order.
    pub(super) full: Vec<Segment>,
    /// The others, in order of their last use.
    pub(super) free: Vec<Segment>,
    /// Above every epoch in any file.
    pub(super) next_epoch: u64,
    /// Above every number in a file's name.
    pub(super) next_number: u64,
    /// The last group, if it may be needed and nothing stands behind it.
    pub(super) tail: Option<Tail>,
}

/// A group that perhaps was never synced.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: String,
    pub(super) offset: u64,
    pub(super) group: Blocks,
    pub(super) is_closing: bool,
}

/// Reads the log of a store.
pub(super) fn read<D: Disk>(
    disk: &D,
    store_id: u64,
    replay_from: Lsn,
    visit: &mut dyn FnMut(Record),
) -> Result<Found, Failure> {
    let files = files(disk)?;
    let next_number = files.last().map_or(1, |(number, _)| number + 1);
    let mut candidates = Vec::new();
    for (_, name) in files {
        candidates.push(candidate(disk, store_id, name)?);
    }
    candidates.sort_by_key(|candidate| candidate.segment.epoch);
    let next_epoch = candidates.last().map_or(1, |newest| newest.segment.epoch + 1);
    let mut replay = Replay { store_id, replay_from, visit, replayed: Replayed::default(), end: None };
    let (mut full, mut free, mut tail) = (Vec::new(), Vec::new(), None);
    for (index, Candidate { mut segment, header }) in candidates.clone().into_iter().enumerate() {
        if segment.bytes < 2 * BLOCK_BYTES as u64 {
            replay.report(&segment.name, segment.bytes, Damaged::Length);
        }
        let next = candidates.get(index + 1).and_then(|next| next.header);
        if next.is_none_or(|next| next.previous > replay_from) && segment.epoch > 0 {
            tail = replay.segment(disk, &mut segment, header)?;
        }
        if segment.records.is_some() { full.push(segment) } else { free.push(segment) }
    }
    Ok(Found { replayed: replay.replayed, full, free, next_epoch, next_number, tail })
}

#[derive(Clone, Debug)]
struct Candidate {
    segment: Segment,
    header: Option<Header>,
}

/// Reads a segment's header. Without one its epoch is that of its newest group, for it may be in use all the same.
fn candidate<D: Disk>(disk: &D, store_id: u64, name: String) -> Result<Candidate, Failure> {
    let file = disk.open_log(&name)?;
    let bytes = file.len()?;
    let mut header = None;
    if bytes >= BLOCK_BYTES as u64 {
        let mut block = Blocks::zeroed(BLOCK_BYTES);
        file.read(0, &mut block)?;
        let found = Header::decode(&block, store_id);
        header = found.map_err(|foreign| Failure::Damaged { reason: format!("`{name}` {foreign}") })?;
    }
    let epoch = match header {
        Some(header) => header.epoch,
        None => {
            let content = content(&file, bytes)?;
            groups(&content, store_id).map(|(_, group)| group.epoch).max().unwrap_or(0)
        }
    };
    Ok(Candidate { segment: Segment { name, bytes, epoch, records: None }, header })
}

/// The whole blocks of a file.
fn content(file: &impl StorageBackend, bytes: u64) -> Result<Blocks, Failure> {
    let bytes = usize::try_from(bytes).map_err(|_| Failure::Damaged { reason: "a log file is too long".into() })?;
    let mut content = Blocks::zeroed(bytes - bytes % BLOCK_BYTES);
    file.read(0, &mut content)?;
    Ok(content)
}

/// All groups in a file, of whatever epoch, with their offsets.
fn groups(content: &[u8], store_id: u64) -> impl Iterator<Item = (usize, Group<'_>)> {
    let mut offset = BLOCK_BYTES;
    std::iter::from_fn(move || {
        while offset < content.len() {
            let at = offset;
            let group = Group::read(content, store_id, at);
            offset += group.map_or(BLOCK_BYTES, |group| group.whole.len());
            if let Some(group) = group {
                return Some((at, group));
            }
        }
        None
    })
}

struct Replay<'a> {
    store_id: u64,
    replay_from: Lsn,
    visit: &'a mut dyn FnMut(Record),
    replayed: Replayed,
    /// Behind the last good group or header.
    end: Option<(String, u64)>,
}

impl Replay<'_> {
    /// Visits the records of a segment, notes which of them it keeps, and returns its last group if that may be needed.
    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        segment: &mut Segment,
        header: Option<Header>,
    ) -> Result<Option<Tail>, Failure> {
        if let Some(header) = header {
            self.follow(header.previous, &segment.name);
            self.replayed.last = self.replayed.last.max(header.previous);
            if header.bytes > segment.bytes {
                self.report(&segment.name, segment.bytes, Damaged::Length);
            }
        }
        let content = content(&disk.open_log(&segment.name)?, segment.bytes)?;
        let (epoch, mut end, mut last) = (segment.epoch, BLOCK_BYTES, None);
        self.end = Some((segment.name.clone(), end as u64));
        for (offset, group) in groups(&content, self.store_id).filter(|(_, group)| group.epoch == epoch) {
            self.group(segment, &group, offset > end);
            end = offset + group.whole.len();
            self.end = Some((segment.name.clone(), end as u64));
            last = Some((offset, group));
        }
        if header.is_none() && segment.records.is_some() {
            self.report(&segment.name, 0, Damaged::Header);
        }
        let last = last.filter(|(_, group)| group.last > self.replay_from);
        Ok(last.map(|(offset, group)| {
            let mut copy = Blocks::zeroed(group.whole.len());
            copy.copy_from_slice(group.whole);
            let is_closing = group.records_count == 0;
            Tail { segment: segment.name.clone(), offset: offset as u64, group: copy, is_closing }
        }))
    }

    /// Takes in the next good group of a segment, perhaps behind a hole.
    fn group(&mut self, segment: &mut Segment, group: &Group<'_>, behind_hole: bool) {
        let follows = self.follow(group.previous, &segment.name);
        if follows && behind_hole && self.replayed.last >= self.replay_from {
            self.report_end(&segment.name, Damaged::Closing);
        }
        if group.last > self.replay_from && group.records_count > 0 {
            match group.records() {
                Some(records) => records.into_iter().for_each(|record| self.record(record)),
                None => {
                    let after = group.previous.max(self.replay_from);
                    self.report_end(&segment.name, Damaged::Records { after, through: group.last });
                }
            }
            let first = segment.records.map_or(group.first, |(first, _)| first);
            segment.records = Some((first, group.last));
        }
        self.replayed.last = self.replayed.last.max(group.last);
    }

    fn record(&mut self, record: Record) {
        if record.lsn > self.replay_from {
            self.replayed.records_count += 1;
            (self.visit)(record);
        }
    }

    /// Whether what goes on from the record `previous` goes on from what was read, or from the rows. If not, records in
    /// between are lost.
    fn follow(&mut self, previous: Lsn, segment: &str) -> bool {
        let after = self.replayed.last.max(self.replay_from);
        if previous > after {
            self.report_end(segment, Damaged::Records { after, through: previous });
        }
        previous <= after
    }

    /// Reports damage where the last good group or header ends; in `segment`, if there is none before it.
    fn report_end(&mut self, segment: &str, what: Damaged) {
        let (segment, offset) = self.end.clone().unwrap_or((segment.into(), 0));
        self.replayed.damage.push(Damage { segment, offset, what });
    }

    fn report(&mut self, segment: &str, offset: u64, what: Damaged) {
        self.replayed.damage.push(Damage { segment: segment.into(), offset, what });
    }
}
