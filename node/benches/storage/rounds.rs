//! The interleaved run: puts and reads of every system, turn by turn.
//!
//! Shape: four systems hold the same keys: the log alone, redb alone, Shoal with a node's memory, Shoal with a quarter of
//! the data's size. A turn begins when nothing is left to do in the background and ends when that is so again; what was
//! flushed later belongs to the whole run (`Totals`), as do bytes and CPU of the rows.
//! Units: as in `closed_loop`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use shoal_node::storage::Written;

use crate::closed_loop::{End, Measured, System, key_making, puts};
use crate::counted_disk::WrittenBytes;
use crate::group_commit::{GroupCommit, RedbAlone, raw_log};
use crate::keys::Keys;
use crate::meter::Usage;
use crate::shoal::{Memory, Reads, ShoalStore};
use crate::{Options, Outcome, disk};

/// Who has a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// The log alone.
    RawLog,
    /// redb alone.
    Redb,
    /// Shoal with a node's memory.
    Shoal,
    /// Shoal with a quarter of the data's size.
    ShoalSmall,
}

/// What the run measured.
pub(crate) struct Rounds {
    /// Turns by system and writers, in the order of the rounds.
    pub(crate) puts: BTreeMap<(Who, usize), Vec<Measured>>,
    pub(crate) reads: BTreeMap<Who, Vec<Reads>>,
    pub(crate) totals: BTreeMap<Who, Totals>,
    /// Of one put, without any system.
    pub(crate) key_making: Usage,
    /// Of one key and value, as a user counts.
    pub(crate) pair_bytes: u64,
    pub(crate) readers: usize,
}

/// All turns of one system together, and what was left to flush behind them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) puts: u64,
    pub(crate) rows_cpu_ns: u64,
    pub(crate) written: WrittenBytes,
    /// What flushes wrote, before pages are counted.
    pub(crate) flushed: Written,
}

struct Systems {
    raw_log: (GroupCommit, Keys),
    redb: (RedbAlone, Keys),
    shoal: (ShoalStore, Keys),
    small: (ShoalStore, Keys),
}

pub(crate) fn run(directory: &Path, options: &Options) -> Outcome<Rounds> {
    let mut systems = Systems::load(directory, options)?;
    let mut rounds = Rounds {
        puts: BTreeMap::new(),
        reads: BTreeMap::new(),
        totals: BTreeMap::new(),
        key_making: key_making(&mut systems.raw_log.1)?,
        pair_bytes: systems.shoal.1.pair_bytes(),
        readers: options.readers,
    };
    for who in ALL {
        // Makes and fills the first segment of each log.
        let (system, keys) = systems.turn(who);
        puts(system, WARM_UP_WRITERS, End::Count(WARM_UP_COUNT), || Some(keys.random_put()))?;
    }
    let time = Duration::from_secs_f64(options.seconds);
    for round in 0..options.rounds {
        for writers in &options.writers {
            for turn in 0..ALL.len() {
                // Whoever comes after redb meets its writes still on their way to the disk: not always the same one.
                let who = ALL[(turn + round) % ALL.len()];
                let (system, keys) = systems.turn(who);
                let measured = puts(system, *writers, End::After(time), || Some(keys.random_put()))?;
                rounds.note(who, *writers, measured);
            }
        }
        for who in [Who::Redb, Who::Shoal, Who::ShoalSmall] {
            let reads = systems.reads(who, options.readers, time)?;
            println!("round {} reads {}: {:.0}/s", round + 1, who.name(), per_second(reads.count, reads.time));
            rounds.reads.entry(who).or_default().push(reads);
        }
    }
    for (who, (store, _)) in [(Who::Shoal, &mut systems.shoal), (Who::ShoalSmall, &mut systems.small)] {
        let (usage, written) = (Usage::now(), store.written());
        store.flush()?;
        let totals = rounds.totals.entry(who).or_default();
        totals.rows_cpu_ns += Usage::now().since(usage).rows_cpu_ns;
        totals.written.add(store.written().since(written));
        totals.flushed = store.flushed;
    }
    Ok(rounds)
}

impl Who {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RawLog => "log alone",
            Self::Redb => "redb alone",
            Self::Shoal => "shoal",
            Self::ShoalSmall => "shoal, data = 4 x memory",
        }
    }
}

impl Rounds {
    fn note(&mut self, who: Who, writers: usize, measured: Measured) {
        let turns = self.puts.entry((who, writers)).or_default();
        println!(
            "round {} puts {writers:>3} writers {}: {:.0}/s, {:.1} us CPU, {} B written, longest {} us",
            turns.len() + 1,
            who.name(),
            per_second(measured.count, measured.time),
            measured.usage.cpu_ns as f64 / 1e3 / measured.count.max(1) as f64,
            measured.written.all() / measured.count.max(1),
            measured.latency.max(),
        );
        let totals = self.totals.entry(who).or_default();
        totals.puts += measured.count;
        totals.rows_cpu_ns += measured.usage.rows_cpu_ns;
        totals.written.add(measured.written);
        turns.push(measured);
    }
}

impl Systems {
    fn load(directory: &Path, options: &Options) -> Outcome<Self> {
        let new_keys = || Keys::new(options.keys, options.value_bytes, 0);
        let bytes = options.keys * usize::try_from(new_keys().pair_bytes())?;
        let node = Memory::of_a_node();
        let raw_log = (raw_log(&disk(&directory.join("raw-log"))?)?, new_keys());
        let mut keys = new_keys();
        let redb = RedbAlone::load(&disk(&directory.join("redb"))?, &mut keys, node.bytes())?;
        let shoal = |name: &str, memory: Memory| -> Outcome<_> {
            let mut keys = new_keys();
            let mut store = ShoalStore::open(&disk(&directory.join(name))?, memory)?;
            let order = keys.in_row_order(0);
            store.load(&mut keys, &order)?;
            Ok((store, keys))
        };
        let small = Memory::of_bytes(bytes / 4);
        println!(
            "memory: redb alone {} MiB, shoal {} MiB, shoal small {} MiB; keys and values {} MiB",
            node.bytes() >> 20,
            node.bytes() >> 20,
            small.bytes() >> 20,
            bytes >> 20
        );
        Ok(Self { raw_log, redb: (redb, keys), shoal: shoal("shoal", node)?, small: shoal("small", small)? })
    }

    fn turn(&mut self, who: Who) -> (&mut dyn System, &mut Keys) {
        match who {
            Who::RawLog => (&mut self.raw_log.0, &mut self.raw_log.1),
            Who::Redb => (&mut self.redb.0.commits, &mut self.redb.1),
            Who::Shoal => (&mut self.shoal.0, &mut self.shoal.1),
            Who::ShoalSmall => (&mut self.small.0, &mut self.small.1),
        }
    }

    fn reads(&mut self, who: Who, readers: usize, time: Duration) -> Outcome<Reads> {
        let (store, keys) = match who {
            Who::RawLog => return Err("the log alone reads nothing".into()),
            Who::Redb => return self.redb.0.reads(&mut self.redb.1, readers, time),
            Who::Shoal => (&mut self.shoal.0, &mut self.shoal.1),
            Who::ShoalSmall => (&mut self.small.0, &mut self.small.1),
        };
        store.reads(keys, readers, time)
    }
}

pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

const ALL: [Who; 4] = [Who::RawLog, Who::Redb, Who::Shoal, Who::ShoalSmall];
const WARM_UP_WRITERS: usize = 16;
const WARM_UP_COUNT: u64 = 1_000;
