//! The disk seam over a real directory.
//!
//! Shape: files are redb's own file backend (with its locks); besides, an empty file `lock` is held for as long as the
//! directory is in use, because redb's locks do not cover the moment in which the files are made. Files of the log are
//! written with O_DIRECT and O_DSYNC where a write to a file `probe` shows that it works, else with fdatasync.
//! Invariants: a rename or removal is synced with its directory before it returns. The first sync of a log file is a real
//! one in either mode: whoever wrote before may have left its bytes in the page cache.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::storage::engine::cells::directory_name;
use crate::storage::engine::log::{BLOCK_BYTES, Blocks};
use crate::storage::engine::{Disk, LogMode, OpenError};
use crate::storage::{CellId, Failure};

/// A directory that holds one store, and that no other process uses. Clones are the same directory; the directories of a
/// node's other cells are within their home's, and under its lock.
#[derive(Clone, Debug)]
pub struct DirectoryDisk {
    path: PathBuf,
    log_mode: LogMode,
    /// Holds the lock for as long as it lives.
    lock: Arc<File>,
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
            Ok(()) => Ok(Self { log_mode: probe(&path), path, lock: Arc::new(lock) }),
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
    type LogFile = LogFile;

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path.join(name).try_exists()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| {
            let entry = entry?;
            let is_file = entry.file_type()?.is_file();
            Ok(entry.file_name().into_string().ok().filter(|_| is_file))
        });
        names.filter_map(Result::transpose).collect()
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn open(&self, name: &str) -> io::Result<FileBackend> {
        FileBackend::new(writable(&self.path.join(name))?).map_err(io::Error::other)
    }

    fn open_log(&self, name: &str) -> io::Result<LogFile> {
        LogFile::open(&self.path.join(name), self.log_mode)
    }

    fn log_mode(&self) -> LogMode {
        self.log_mode
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.sync_directory()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.sync_directory()
    }

    fn cell(&self, cell: CellId) -> io::Result<Self> {
        let path = self.path.join(directory_name(cell));
        fs::create_dir_all(&path)?;
        self.sync_directory()?;
        Ok(Self { log_mode: probe(&path), path, lock: Arc::clone(&self.lock) })
    }

    #[cfg(unix)]
    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    #[cfg(not(unix))]
    fn free_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A file of the log.
#[derive(Debug)]
pub struct LogFile {
    file: FileBackend,
    log_mode: LogMode,
    /// Whether there may be something that no sync has made durable.
    is_unsynced: AtomicBool,
}

impl LogFile {
    fn open(path: &Path, log_mode: LogMode) -> io::Result<Self> {
        let file = match log_mode {
            LogMode::Direct => direct(path)?,
            LogMode::Synced => writable(path)?,
        };
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Self { file, log_mode, is_unsynced: AtomicBool::new(true) })
    }
}

impl StorageBackend for LogFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.is_unsynced.store(true, Ordering::Relaxed);
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_unsynced.load(Ordering::Relaxed) {
            self.file.sync_data()?;
            self.is_unsynced.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.log_mode == LogMode::Synced {
            self.is_unsynced.store(true, Ordering::Relaxed);
        }
        self.file.write(offset, data)
    }
}

/// How files of the log can be written here. Not every file system takes O_DIRECT, and only a write tells.
fn probe(directory: &Path) -> LogMode {
    let path = directory.join(PROBE_FILE);
    let block = Blocks::zeroed(BLOCK_BYTES);
    let written = LogFile::open(&path, LogMode::Direct).and_then(|file| file.write(0, &block));
    // Whatever is wrong here shows itself again where it matters.
    let _ = fs::remove_file(&path);
    if written.is_ok() { LogMode::Direct } else { LogMode::Synced }
}

#[cfg(target_os = "linux")]
fn direct(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let flags = (rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC).bits().cast_signed();
    File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)
}

#[cfg(not(target_os = "linux"))]
fn direct(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn writable(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn failed(error: io::Error) -> OpenError {
    OpenError::Disk(Failure::from(error))
}

const LOCK_FILE: &str = "lock";
const PROBE_FILE: &str = "probe";

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(byte: u8) -> Blocks {
        let mut blocks = Blocks::zeroed(2 * BLOCK_BYTES);
        blocks.fill(byte);
        blocks
    }

    /// What one mode has written, every mode reads, and writes over.
    #[test]
    fn log_files_are_the_same_in_either_mode() {
        let directory = tempfile::tempdir().unwrap();
        let disk = DirectoryDisk::open(directory.path()).unwrap();
        let modes = if disk.log_mode() == LogMode::Direct {
            vec![LogMode::Synced, LogMode::Direct, LogMode::Synced]
        } else {
            vec![LogMode::Synced; 2]
        };
        let path = directory.path().join("log-000001");
        let mut expected = blocks(0);
        for (step, mode) in (1..).zip(modes) {
            let file = LogFile::open(&path, mode).unwrap();
            file.set_len(expected.len() as u64).unwrap();
            let mut found = blocks(9);
            file.read(0, &mut found).unwrap();
            assert_eq!(found[..], expected[..], "{mode:?}");
            expected[BLOCK_BYTES..].fill(step);
            file.write(BLOCK_BYTES as u64, &expected[BLOCK_BYTES..]).unwrap();
            file.sync_data().unwrap();
            file.read(0, &mut found).unwrap();
            assert_eq!(found[..], expected[..], "{mode:?}");
        }
        assert_eq!(fs::read(path).unwrap(), expected[..]);
    }

    #[test]
    fn only_a_direct_write_needs_no_sync_and_the_first_sync_is_always_done() {
        let directory = tempfile::tempdir().unwrap();
        let disk = DirectoryDisk::open(directory.path()).unwrap();
        let file = disk.open_log("log-000001").unwrap();
        let is_unsynced = || file.is_unsynced.load(Ordering::Relaxed);
        assert!(is_unsynced(), "somebody may have written before");
        file.sync_data().unwrap();
        assert!(!is_unsynced());
        file.write(0, &blocks(1)).unwrap();
        assert_eq!(is_unsynced(), disk.log_mode() == LogMode::Synced);
        file.set_len(BLOCK_BYTES as u64).unwrap();
        assert!(is_unsynced(), "a length is not data");
    }

    #[test]
    fn the_probe_leaves_nothing_and_a_directory_that_refuses_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        let disk = DirectoryDisk::open(directory.path()).unwrap();
        assert_eq!(disk.list().unwrap(), [LOCK_FILE]);
        assert!(disk.free_bytes().unwrap() > 0);
        assert_eq!(probe(&directory.path().join("missing")), LogMode::Synced);
    }
}
