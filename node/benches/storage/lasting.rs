//! What shows only in the long run: loading, overwriting, restarting, memory.
//!
//! Shape: one store is loaded in row order past the log, another by random puts until all of it is in the rows. The first
//! is overwritten in random orders, killed with nothing and then with much in its log, and opened again; then it grows to twice
//! its keys, and a process of its own says before and after how much memory it takes. Units: as named.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use shoal_node::storage::Written;

use crate::child::Child;
use crate::closed_loop::{End, Measured, System, puts};
use crate::counted_disk::WrittenBytes;
use crate::keys::Keys;
use crate::meter::Usage;
use crate::rounds::per_second;
use crate::shoal::{Memory, ShoalStore};
use crate::{Options, Outcome, disk};

/// What was measured.
pub(crate) struct Lasting {
    pub(crate) keys: usize,
    pub(crate) pair_bytes: u64,
    pub(crate) load: Load,
    pub(crate) overwrites: Overwrites,
    pub(crate) restart: Restart,
    pub(crate) memory: MemoryGrowth,
}

/// Loading every key into an empty store.
pub(crate) struct Load {
    /// Keys per second in row order past the log.
    pub(crate) sorted_per_second: f64,
    pub(crate) sorted_written: WrittenBytes,
    /// Keys per second by puts in random order, until all are in the rows.
    pub(crate) random_per_second: f64,
    pub(crate) random_written: WrittenBytes,
    /// Bytes of the rows file.
    pub(crate) sorted_file_bytes: u64,
    pub(crate) random_file_bytes: u64,
}

/// Overwriting every key some times.
pub(crate) struct Overwrites {
    pub(crate) times: usize,
    pub(crate) measured: Measured,
    /// With what was flushed at the end.
    pub(crate) written: WrittenBytes,
    pub(crate) flushed: Written,
    pub(crate) file_bytes: u64,
    /// What of the file takes room on the disk: redb leaves holes at its end.
    pub(crate) allocated_bytes: u64,
}

/// Opening after a kill.
pub(crate) struct Restart {
    pub(crate) log_records: usize,
    /// With nothing in the log that is not in the rows.
    pub(crate) empty: Opening,
    pub(crate) full: Opening,
}

/// How long a start took.
pub(crate) struct Opening {
    /// Until the store answered.
    pub(crate) open: Duration,
    /// Until the first put was durable, from the same beginning.
    pub(crate) first_put: Duration,
    /// CPU until the store answered.
    pub(crate) cpu: Duration,
}

/// Resident memory of a process that has read and written everywhere.
pub(crate) struct MemoryGrowth {
    pub(crate) memory: Memory,
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
}

pub(crate) fn run(directory: &Path, options: &Options) -> Outcome<Lasting> {
    let path = directory.join("lasting");
    let mut keys = Keys::new(options.keys, options.value_bytes, 0);
    let load = load(directory, &path, &mut keys, options)?;
    println!("loaded: {:.0} keys/s sorted, {:.0} by random puts", load.sorted_per_second, load.random_per_second);
    let overwrites = overwrite(&path, &mut keys, options)?;
    println!("overwritten: {:.0}/s", per_second(overwrites.measured.count, overwrites.measured.time));
    let restart = restart(&path, options)?;
    println!("restarted: {:?} with nothing to replay, {:?} with", restart.empty.open, restart.full.open);
    let memory = grow(&path, options)?;
    Ok(Lasting { keys: options.keys, pair_bytes: keys.pair_bytes(), load, overwrites, restart, memory })
}

fn load(directory: &Path, path: &Path, keys: &mut Keys, options: &Options) -> Outcome<Load> {
    let order = keys.in_row_order(0);
    let mut store = ShoalStore::open(&disk(path)?, Memory::of_a_node())?;
    let (before, start) = (store.written(), Instant::now());
    store.load(keys, &order)?;
    let (sorted_time, sorted_written) = (start.elapsed(), store.written().since(before));
    drop(store);

    let random_path = directory.join("random");
    let mut random_keys = Keys::new(options.keys, options.value_bytes, 0);
    let mut order = random_keys.shuffled().into_iter();
    let mut store = ShoalStore::open(&disk(&random_path)?, Memory::of_a_node())?;
    let (before, start) = (store.written(), Instant::now());
    puts(&mut store, BUSY_WRITERS, End::Count(options.keys as u64), || Some(random_keys.put(order.next()?)))?;
    store.flush()?;
    let random_time = start.elapsed();
    let load = Load {
        sorted_per_second: per_second(options.keys as u64, sorted_time),
        sorted_written,
        random_per_second: per_second(options.keys as u64, random_time),
        random_written: store.written().since(before),
        sorted_file_bytes: rows_bytes(path)?,
        random_file_bytes: rows_bytes(&random_path)?,
    };
    drop(store);
    fs::remove_dir_all(random_path)?;
    Ok(load)
}

fn overwrite(path: &Path, keys: &mut Keys, options: &Options) -> Outcome<Overwrites> {
    let mut store = ShoalStore::open(&disk(path)?, Memory::of_a_node())?;
    let before = store.written();
    let count = options.keys * options.overwrites;
    let mut order = Vec::new();
    let measured = puts(&mut store, BUSY_WRITERS, End::Count(count as u64), || {
        let index = match order.pop() {
            Some(index) => index,
            None => {
                order = keys.shuffled();
                order.pop()?
            }
        };
        Some(keys.put(index))
    })?;
    store.flush()?;
    let (written, flushed) = (store.written().since(before), store.flushed);
    drop(store);
    let (file_bytes, allocated_bytes) = (rows_bytes(path)?, allocated_bytes(path)?);
    Ok(Overwrites { times: options.overwrites, measured, written, flushed, file_bytes, allocated_bytes })
}

fn restart(path: &Path, options: &Options) -> Outcome<Restart> {
    let of = |generation, log_records| Options { generation, log_records, ..options.clone() };
    Child::start("write", path, &of(1, 0))?.kill()?;
    let empty = open(path, &of(2, 0))?;
    Child::start("write", path, &of(3, options.log_records))?.kill()?;
    let full = open(path, &of(4, 0))?;
    Ok(Restart { log_records: options.log_records, empty, full })
}

/// Opens what a kill has left, puts once, and leaves nothing in the log.
fn open(path: &Path, options: &Options) -> Outcome<Opening> {
    let mut keys = Keys::new(options.keys, options.value_bytes, options.generation);
    let (usage, start) = (Usage::now(), Instant::now());
    let mut store = ShoalStore::open(&disk(path)?, Memory::of_a_node())?;
    let (open, cpu) = (start.elapsed(), Duration::from_nanos(Usage::now().since(usage).cpu_ns));
    let ticket = store.put(keys.random_put()?)?.ticket;
    store.submit();
    while store.durable(None)? < ticket {
        store.submit();
    }
    let first_put = start.elapsed();
    store.flush()?;
    Ok(Opening { open, first_put, cpu })
}

fn grow(path: &Path, options: &Options) -> Outcome<MemoryGrowth> {
    let once = Options { generation: 5, ..options.clone() };
    let twice = Options { keys: options.keys * 2, generation: 7, ..options.clone() };
    let before_bytes = Child::start("touch", path, &once)?.resident_bytes()?;
    let mut keys = Keys::new(twice.keys, options.value_bytes, 6);
    let order = keys.in_row_order(options.keys);
    let mut store = ShoalStore::open(&disk(path)?, Memory::of_a_node())?;
    store.load(&mut keys, &order)?;
    drop(store);
    let after_bytes = Child::start("touch", path, &twice)?.resident_bytes()?;
    Ok(MemoryGrowth { memory: crate::child::TOUCH_MEMORY, before_bytes, after_bytes })
}

fn rows_bytes(path: &Path) -> Outcome<u64> {
    Ok(fs::metadata(path.join("rows.redb"))?.len())
}

fn allocated_bytes(path: &Path) -> Outcome<u64> {
    Ok(fs::metadata(path.join("rows.redb"))?.blocks() * STAT_BLOCK_BYTES)
}

/// The unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;
const BUSY_WRITERS: usize = 256;
