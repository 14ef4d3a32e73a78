//! A log and what was done with it.
//!
//! `History` outlives the log: what was appended, how much of that well, and what the rows are taken to hold.

use rand_chacha::ChaCha8Rng;
use shoal_node::storage::engine::Disk;
use shoal_node::storage::engine::log::{Log, LogOptions, Replayed};
use shoal_node::storage::{Failure, Record, RowKey};
use shoal_protocol::address::Place;
use shoal_protocol::id::{KeyspaceId, Lsn};
use shoal_tests::sim::disk::{SimDisk, SimLogFile};

use super::super::rig::{below, partition};

pub(super) const STORE_ID: u64 = 0x0123_4567_89ab_cdef;

/// Eight blocks: a header and room for a few groups.
pub(super) const OPTIONS: LogOptions = LogOptions { segment_bytes: 8 * 4096 };

/// How many seeds to play: `SHOAL_LOG_SEEDS` for a long run (100,000 crash images take about 200), else the usual number.
pub(super) fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("SHOAL_LOG_SEEDS").map_or(usual, |count| count.parse().unwrap())
}

pub(super) type SimLog = Log<SimLogFile>;

/// A record of so many bytes, all of which follow from its lsn.
pub(super) fn record(lsn: u64, bytes: usize) -> Record {
    let place = Place { keyspace: KeyspaceId(lsn % 3), collection: "rooms".into(), key: format!("key-{lsn}").into() };
    let delta = (0..bytes).map(|index| (lsn as usize * 31 + index * 7) as u8).collect::<Vec<_>>();
    let key = RowKey::new(partition(), &place);
    Record { lsn: Lsn(lsn), key, delta: delta.into(), heals: lsn.is_multiple_of(5) }
}

/// A log just opened, what was visited, and what was said of it.
pub(super) type Opened<F> = (Log<F>, Vec<Record>, Replayed);

pub(super) fn open<D: Disk>(disk: &D, replay_from: u64) -> Result<Opened<D::LogFile>, Failure> {
    let mut visited = Vec::new();
    let (log, replayed) = Log::open(disk, STORE_ID, Lsn(replay_from), OPTIONS, &mut |record| visited.push(record))?;
    Ok((log, visited, replayed))
}

/// Opens what must be whole.
pub(super) fn open_whole<D: Disk>(disk: &D, replay_from: u64, what: &str) -> (Log<D::LogFile>, Vec<Record>) {
    let opened = open(disk, replay_from).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    let (log, visited, replayed) = opened;
    assert_eq!(replayed.damage, [], "{what}");
    assert_eq!(replayed.records_count, visited.len() as u64, "{what}");
    (log, visited)
}

/// What was done with a log, over crashes and openings.
#[derive(Clone, Default)]
pub(super) struct History {
    /// Above `replay_from`, in order.
    pub(super) records: Vec<Record>,
    /// The first so many of `records` were appended well, or visited.
    pub(super) synced_count: usize,
    /// What the rows hold.
    pub(super) replay_from: u64,
    pub(super) last: u64,
    /// Openings in the course of the work.
    pub(super) openings_count: usize,
}

impl History {
    /// Opens the disk and works for so many steps, or until the disk fails.
    pub(super) fn work(&mut self, disk: &SimDisk, random: &mut ChaCha8Rng, steps: usize) -> Result<(), Failure> {
        let mut log = self.open(disk)?;
        for _ in 0..steps {
            match below(random, 12) {
                0 => log = self.open(disk)?,
                1 => log.seal(disk)?,
                2 => log.prepare(disk)?,
                3 | 4 => self.release(disk, &mut log, random)?,
                _ => self.append(disk, &mut log, random)?,
            }
        }
        Ok(())
    }

    /// Opens; what is visited has happened from then on.
    pub(super) fn open(&mut self, disk: &SimDisk) -> Result<SimLog, Failure> {
        let (log, visited, replayed) = open(disk, self.replay_from)?;
        assert_eq!(replayed.damage, []);
        self.check(&visited, "opening");
        self.records = visited;
        self.synced_count = self.records.len();
        self.openings_count += 1;
        // Leases jump.
        self.last += 100;
        Ok(log)
    }

    /// `visited` is what was synced, and a beginning of the rest.
    pub(super) fn check(&self, visited: &[Record], what: &str) {
        let (synced, all) = (self.synced_count, self.records.len());
        assert!((synced..=all).contains(&visited.len()), "{what}: {} of {synced}..={all} records", visited.len());
        assert!(visited == &self.records[..visited.len()], "{what}: other records than were appended");
    }

    fn append(&mut self, disk: &SimDisk, log: &mut SimLog, random: &mut ChaCha8Rng) -> Result<(), Failure> {
        let records: Vec<_> = (0..=below(random, 4))
            .map(|_| {
                self.last += 1 + below(random, 3);
                let bytes = match below(random, 40) {
                    0 => 40_000, // longer than a segment
                    1..10 => 3_000 + below(random, 6_000),
                    _ => below(random, 300),
                };
                record(self.last, usize::try_from(bytes).unwrap())
            })
            .collect();
        self.records.extend(records.iter().cloned());
        log.append(disk, &records)?;
        self.synced_count = self.records.len();
        Ok(())
    }

    /// Brings some of the records into the rows.
    fn release(&mut self, disk: &SimDisk, log: &mut SimLog, random: &mut ChaCha8Rng) -> Result<(), Failure> {
        let count = usize::try_from(below(random, 1 + self.synced_count as u64)).unwrap();
        if let Some(last) = self.records.drain(..count).next_back() {
            self.replay_from = last.lsn.0;
        }
        self.synced_count -= count;
        log.release(disk, Lsn(self.replay_from))
    }
}
