//! The data directory as a store's disk.
//!
//! Files are redb's own file backend: positioned reads and writes, `fdatasync`, an advisory lock while open.
//! Invariant: a rename or removal is durable when it returns, because the directory is synced after it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use redb::backends::FileBackend;

use crate::storage::engine::Disk;

/// One data directory.
#[derive(Clone, Debug)]
pub(super) struct DirectoryDisk {
    path: PathBuf,
}

impl DirectoryDisk {
    /// The directory at this path, made if there is none.
    pub(super) fn make(path: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Disk for DirectoryDisk {
    type File = FileBackend;

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path.join(name).try_exists()
    }

    fn open(&self, name: &str) -> io::Result<FileBackend> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(self.path.join(name))?;
        FileBackend::new(file).map_err(io::Error::other)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        self.sync_directory()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))?;
        self.sync_directory()
    }
}
