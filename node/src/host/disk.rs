//! The disk seam over a real directory.
//!
//! Shape: files are redb's own file backend (with its locks); besides, an empty file `lock` is held for as long as the
//! directory is in use, because redb's locks do not cover the moment in which the files are made.
//! Invariant: a rename or removal is synced with its directory before it returns.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;

use crate::storage::Failure;
use crate::storage::engine::{Disk, OpenError};

/// A directory that holds one store, and that no other process uses. Clones are the same directory.
#[derive(Clone, Debug)]
pub struct DirectoryDisk {
    path: PathBuf,
    /// Holds the lock for as long as it lives.
    _lock: Arc<File>,
}

impl DirectoryDisk {
    /// Takes the directory, made if there is none.
    ///
    /// # Errors
    /// `OpenError::Locked` if another process has it, `OpenError::Disk` if it cannot be made or written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(failed)?;
        let lock = writable(&path.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: Arc::new(lock) }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
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
        FileBackend::new(writable(&self.path.join(name))?).map_err(io::Error::other)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.sync_directory()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.sync_directory()
    }
}

fn writable(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn failed(error: io::Error) -> OpenError {
    OpenError::Disk(Failure::from(error))
}

const LOCK_FILE: &str = "lock";
