//! A disk in memory that loses power, tears writes, reports errors, runs full and flips bits: on purpose, from a seed.
//!
//! Shape: each file has the bytes that are on stable storage and the writes since its last sync. Reads see both. A crash
//! keeps the first and as much of the second as `Survival` says. Writes are cut at sectors of 512 bytes, the largest unit
//! that disks write whole.
//! A machine has one disk: its power, its room and its faults are those of all stores on it, each in a directory of its own.
//! Models: a failed sync loses the writes it should have made durable, and later syncs do not bring them back (what Linux
//! does); `rename` and `remove` are durable when they return (the host syncs the directory), an unsynced file may be empty.
//! Units: an operation is one write, set_len, sync, rename or remove; they are counted from 1, over all files of a disk.

mod log_file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redb::{BackendError, StorageBackend};
use shoal_node::storage::CellId;
use shoal_node::storage::engine::cells::directory_name;
use shoal_node::storage::engine::{Disk, LogMode};

pub use self::log_file::SimLogFile;

/// A directory in memory, of a machine's disk. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// What the names of its files begin with on the disk: nothing for the first.
    prefix: String,
}

/// What a crash leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// A random subset of the writes, whatever their order.
    SomeWrites,
    /// A random subset of the sectors of the writes.
    SomeSectors,
}

impl Survival {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Everything, Self::SomeWrites, Self::SomeSectors];
}

/// How a disk that is full says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// There is enough.
    Enough,
    /// Files together may be so long: `set_len` fails beyond.
    Reserve(u64),
    /// Files may be of any length (sparse), but writes behind this offset fail.
    Write(u64),
}

#[derive(Debug)]
struct State {
    files: BTreeMap<String, Content>,
    locked: BTreeSet<String>,
    operations: u64,
    reads: u64,
    faults: Faults,
    dead: bool,
}

#[derive(Debug)]
struct Faults {
    crash_at: Option<u64>,
    error_at: Option<u64>,
    read_error_at: Option<u64>,
    space: Space,
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

impl Faults {
    const NONE: Self = Self { crash_at: None, error_at: None, read_error_at: None, space: Space::Enough };
}

impl Default for State {
    fn default() -> Self {
        let faults = Faults::NONE;
        Self { files: BTreeMap::new(), locked: BTreeSet::new(), operations: 0, reads: 0, faults, dead: false }
    }
}

impl SimDisk {
    /// Loses power at operation `n`: it is perhaps begun, and everything after it fails.
    pub fn crash_at(&self, n: u64) {
        self.state().faults.crash_at = Some(n);
    }

    /// Reports an I/O error at operation `n`, once.
    pub fn error_at(&self, n: u64) {
        self.state().faults.error_at = Some(n);
    }

    /// Reports an I/O error at the `n`th read from now, once.
    pub fn read_error_at(&self, n: u64) {
        let mut state = self.state();
        state.faults.read_error_at = Some(state.reads + n);
    }

    /// Drops every fault that was planned and has not come yet.
    pub fn calm(&self) {
        let mut state = self.state();
        state.faults = Faults { space: state.faults.space, ..Faults::NONE };
    }

    /// Changes the room there is.
    pub fn set_space(&self, space: Space) {
        self.state().faults.space = space;
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether power was lost.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Loses power now. Returns the disk as it is found afterwards, with no fault planned; this one is dead.
    #[must_use]
    pub fn crash(&self, survival: Survival, seed: u64) -> Self {
        self.state().dead = true;
        self.crash_copy(survival, seed)
    }

    /// The disk as a crash now would leave it. This one goes on.
    #[must_use]
    pub fn crash_copy(&self, survival: Survival, seed: u64) -> Self {
        let state = self.state();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let files =
            state.files.iter().map(|(name, content)| (name.clone(), content.after_crash(survival, &mut random)));
        Self::of(files.collect())
    }

    /// The same bytes, all of them durable, on a disk of their own: what a copy of the directory holds.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state();
        let files = state.files.iter().map(|(name, content)| (name.clone(), Content::synced(content.seen.clone())));
        Self::of(files.collect())
    }

    /// Names and lengths of the files.
    #[must_use]
    pub fn files(&self) -> Vec<(String, usize)> {
        self.state().files.iter().map(|(name, content)| (name.clone(), content.seen.len())).collect()
    }

    /// The content of a file.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.state().files[name].seen.clone()
    }

    /// Puts a file in place, whatever was there.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.state().files.insert(name.into(), Content::synced(bytes));
    }

    /// Flips one bit at rest.
    pub fn flip(&self, name: &str, byte: usize, bit: u8) {
        let mut state = self.state();
        let content = state.files.get_mut(name).expect("the file is there");
        content.seen[byte] ^= 1 << bit;
        content.durable[byte] ^= 1 << bit;
    }

    fn of(files: BTreeMap<String, Content>) -> Self {
        Self { state: Arc::new(Mutex::new(State { files, ..State::default() })), prefix: String::new() }
    }

    /// A file's name on the disk.
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of this file alone; the disk stays usable for the checks that follow.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts an operation; says whether it is to be done.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.alive()?;
        state.operations += 1;
        if state.faults.error_at == Some(state.operations) {
            return Err(io::Error::other("simulated I/O error"));
        }
        Ok(state)
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn crashes_now(&self) -> bool {
        self.faults.crash_at == Some(self.operations)
    }

    /// The file of a handle. A removed one is no more.
    fn file(&mut self, name: &str) -> io::Result<&mut Content> {
        self.files.get_mut(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Content {
    fn synced(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), seen: bytes, unsynced: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    fn after_crash(&self, survival: Survival, random: &mut ChaCha8Rng) -> Self {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            match survival {
                Survival::Nothing => {}
                Survival::Everything => change.apply(&mut bytes),
                Survival::SomeWrites => {
                    if coin(random) {
                        change.apply(&mut bytes);
                    }
                }
                Survival::SomeSectors => change.sectors().filter(|_| coin(random)).for_each(|s| s.apply(&mut bytes)),
            }
        }
        Self::synced(bytes)
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => bytes.resize(index(*len), 0),
            Self::Write { offset, bytes: written } => {
                let (from, to) = (index(*offset), index(*offset) + written.len());
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(written);
            }
        }
    }

    fn sectors(&self) -> Box<dyn Iterator<Item = Self> + '_> {
        match self {
            Self::SetLen(_) => Box::new(std::iter::once(self.clone())),
            Self::Write { offset, bytes } => {
                // The first piece ends at a sector's edge.
                let first = (SECTOR_BYTES - index(*offset) % SECTOR_BYTES).min(bytes.len());
                let starts = std::iter::once(0).chain((first..bytes.len()).step_by(SECTOR_BYTES));
                Box::new(starts.map(move |start| {
                    let end = if start == 0 { first } else { (start + SECTOR_BYTES).min(bytes.len()) };
                    Self::Write { offset: offset + start as u64, bytes: bytes[start..end].to_vec() }
                }))
            }
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type LogFile = SimLogFile;

    fn len(&self, name: &str) -> io::Result<u64> {
        let mut state = self.state();
        state.alive()?;
        Ok(state.file(&self.full(name))?.seen.len() as u64)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        let state = self.state();
        state.alive()?;
        Ok(state.files.contains_key(&self.full(name)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        let names = state.files.keys().filter_map(|name| name.strip_prefix(&self.prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn open_log(&self, name: &str) -> io::Result<SimLogFile> {
        Ok(SimLogFile(self.open(name)?))
    }

    fn log_mode(&self) -> LogMode {
        LogMode::Synced
    }

    fn cell(&self, cell: CellId) -> io::Result<Self> {
        self.state().alive()?;
        let prefix = self.full(&format!("{}/", directory_name(cell)));
        Ok(Self { state: Arc::clone(&self.state), prefix })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        let used: u64 = state.files.values().map(|content| content.seen.len() as u64).sum();
        Ok(match state.faults.space {
            Space::Reserve(bytes_max) => bytes_max.saturating_sub(used),
            // The second is the one that nobody is told of before a write fails.
            Space::Enough | Space::Write(_) => u64::MAX,
        })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.alive()?;
        let name = self.full(name);
        state.files.entry(name.clone()).or_default();
        Ok(SimFile { disk: self.clone(), name })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let crashes = state.crashes_now();
        // The name is on disk or is not; either way nobody was told.
        if !crashes || state.operations.is_multiple_of(2) {
            let content =
                state.files.remove(&self.full(from)).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            state.files.insert(self.full(to), content);
        }
        state.dead = crashes;
        state.alive()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let crashes = state.crashes_now();
        if !crashes || state.operations.is_multiple_of(2) {
            state.files.remove(&self.full(name)).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        }
        state.dead = crashes;
        state.alive()
    }
}

/// An open file of a `SimDisk`.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    name: String,
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.alive()?;
        Ok(state.file(&self.name)?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.alive()?;
        state.reads += 1;
        if state.faults.read_error_at == Some(state.reads) {
            return Err(io::Error::other("simulated I/O error"));
        }
        let seen = &state.file(&self.name)?.seen;
        let from = index(offset);
        let bytes = seen.get(from..from + out.len()).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.operate()?;
        if let Space::Reserve(bytes_max) = state.faults.space {
            let others = state.files.iter().filter(|(name, _)| **name != self.name);
            let others: u64 = others.map(|(_, content)| content.seen.len() as u64).sum();
            if others + len > bytes_max && len > state.file(&self.name)?.seen.len() as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let crashes = state.crashes_now();
        state.file(&self.name)?.change(Change::SetLen(len));
        state.dead = crashes;
        state.alive()
    }

    fn sync_data(&self) -> io::Result<()> {
        let operated = self.disk.operate().map(drop);
        let mut state = self.disk.state();
        if operated.is_err() && !state.dead {
            // A failed sync: what it should have made durable is gone for good, though still seen.
            state.file(&self.name)?.unsynced.clear();
        }
        operated?;
        if state.crashes_now() {
            state.dead = true;
            return state.alive();
        }
        let content = state.file(&self.name)?;
        for change in content.unsynced.drain(..) {
            change.apply(&mut content.durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.operate()?;
        if let Space::Write(offset_max) = state.faults.space
            && offset + data.len() as u64 > offset_max
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let crashes = state.crashes_now();
        state.file(&self.name)?.change(Change::Write { offset, bytes: data.to_vec() });
        state.dead = crashes;
        state.alive()
    }

    fn close(&self) -> io::Result<()> {
        self.disk.state().locked.remove(&self.name);
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if !matches!((start, end), (Bound::Unbounded | Bound::Included(0), Bound::Unbounded)) {
            return Err(BackendError::Unsupported);
        }
        Ok(self.disk.state().locked.insert(self.name.clone()))
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        self.disk.state().locked.remove(&self.name);
        Ok(())
    }
}

fn coin(random: &mut ChaCha8Rng) -> bool {
    random.next_u32() & 1 == 1
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files fit into memory")
}

const SECTOR_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (SimDisk, SimFile) {
        let disk = SimDisk::default();
        let file = disk.open("file").unwrap();
        file.set_len(4096).unwrap();
        file.write(0, &[1; 4096]).unwrap();
        file.sync_data().unwrap();
        file.write(100, &[2; 2000]).unwrap();
        (disk, file)
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_whole_sectors_of_the_rest() {
        let (disk, _) = written();
        let seen = disk.bytes("file");
        assert_eq!(disk.crash(Survival::Nothing, 1).bytes("file"), [1; 4096]);
        assert_eq!(disk.crash(Survival::Everything, 1).bytes("file"), seen);
        let torn = disk.crash(Survival::SomeSectors, 1).bytes("file");
        assert_eq!(torn, disk.crash(Survival::SomeSectors, 1).bytes("file"));
        assert!(torn != seen && torn != [1; 4096]);
        for (sector, (torn, seen)) in torn.chunks(512).zip(seen.chunks(512)).enumerate() {
            assert!(torn == seen || torn == [1; 512], "sector {sector} is neither old nor new");
        }
    }

    #[test]
    fn what_a_failed_sync_lost_stays_lost() {
        let (disk, file) = written();
        disk.error_at(disk.operations() + 1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.bytes("file")[100], 2);
        assert_eq!(disk.crash(Survival::Everything, 1).bytes("file"), [1; 4096]);
    }

    #[test]
    fn nothing_works_without_power() {
        let (disk, file) = written();
        disk.crash_at(disk.operations() + 1);
        assert!(file.write(0, &[3]).is_err());
        assert!(file.read(0, &mut [0]).is_err() && file.sync_data().is_err() && disk.open("file").is_err());
        assert_eq!(disk.crash(Survival::Everything, 1).bytes("file")[0], 3);
        assert_eq!(disk.crash(Survival::Nothing, 1).bytes("file")[0], 1);
    }

    #[test]
    fn a_full_disk_refuses_to_grow_and_takes_what_fits() {
        let (disk, file) = written();
        disk.set_space(Space::Reserve(5000));
        assert_eq!(file.set_len(6000).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.set_len(5000).unwrap();
        disk.set_space(Space::Write(4096));
        assert_eq!(file.write(4000, &[1; 100]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write(3000, &[1; 100]).unwrap();
    }
}
