//! A disk that counts what is written through it.
//!
//! Shape: the real disk beneath; every write adds its length to the counter of the file's kind. Units: bytes handed to
//! write calls, block padding and zero-filling of new log segments included. Invariant: nothing but counting is added.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;
use shoal_node::host::disk::DirectoryDisk;
use shoal_node::storage::CellId;
use shoal_node::storage::engine::{Disk, LogMode};

/// The real disk, counted.
#[derive(Clone, Debug)]
pub(crate) struct CountedDisk {
    disk: DirectoryDisk,
    counters: Arc<Counters>,
}

/// Bytes written so far.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    log: AtomicU64,
    databases: AtomicU64,
}

/// Bytes written, by kind of file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WrittenBytes {
    /// Segments of the log.
    pub(crate) log: u64,
    /// redb's files.
    pub(crate) databases: u64,
}

/// A file of the disk, counted.
#[derive(Debug)]
pub(crate) struct Counted<F> {
    file: F,
    counters: Arc<Counters>,
    is_log: bool,
}

impl CountedDisk {
    pub(crate) fn new(disk: DirectoryDisk) -> Self {
        Self { disk, counters: Arc::default() }
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn counted<F>(&self, file: F, is_log: bool) -> Counted<F> {
        Counted { file, counters: Arc::clone(&self.counters), is_log }
    }
}

impl Counters {
    pub(crate) fn now(&self) -> WrittenBytes {
        WrittenBytes { log: self.log.load(Ordering::Relaxed), databases: self.databases.load(Ordering::Relaxed) }
    }
}

impl WrittenBytes {
    pub(crate) fn since(self, before: Self) -> Self {
        Self { log: self.log - before.log, databases: self.databases - before.databases }
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.log += more.log;
        self.databases += more.databases;
    }

    pub(crate) fn all(self) -> u64 {
        self.log + self.databases
    }
}

impl<F: StorageBackend> StorageBackend for Counted<F> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let counter = if self.is_log { &self.counters.log } else { &self.counters.databases };
        counter.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

impl Disk for CountedDisk {
    type File = Counted<<DirectoryDisk as Disk>::File>;
    type LogFile = Counted<<DirectoryDisk as Disk>::LogFile>;

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.disk.exists(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.disk.len(name)
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        Ok(self.counted(self.disk.open(name)?, false))
    }

    fn open_log(&self, name: &str) -> io::Result<Self::LogFile> {
        Ok(self.counted(self.disk.open_log(name)?, true))
    }

    fn log_mode(&self) -> LogMode {
        self.disk.log_mode()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn cell(&self, cell: CellId) -> io::Result<Self> {
        Ok(Self { disk: self.disk.cell(cell)?, ..self.clone() })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}
