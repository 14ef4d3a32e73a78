//! The disk seam: named files as bytes.
//!
//! A file is redb's `StorageBackend` (len, read, write, set_len, sync_data, locks). The host opens real files, the simulator
//! its own, which lose or tear what was not synced.

use std::io;

use redb::StorageBackend;

use crate::storage::cell::CellId;

/// One store's directory.
pub trait Disk: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// A file of it.
    type File: StorageBackend;

    /// A file of the log: read and written in whole blocks at blocks' edges, from memory that is aligned (`log::Blocks`).
    type LogFile: StorageBackend;

    /// Whether there is a file of this name.
    ///
    /// # Errors
    /// The disk failed.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// The names of all files.
    ///
    /// # Errors
    /// The disk failed.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The length of a file.
    ///
    /// # Errors
    /// The disk failed, or there is none.
    fn len(&self, name: &str) -> io::Result<u64>;

    /// Opens a file, created empty if there is none.
    ///
    /// # Errors
    /// The disk failed.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file of the log, created empty if there is none. The first sync of what was opened makes durable whatever
    /// any process wrote to the file before.
    ///
    /// # Errors
    /// The disk failed.
    fn open_log(&self, name: &str) -> io::Result<Self::LogFile>;

    /// How files of the log are written.
    fn log_mode(&self) -> LogMode;

    /// Gives a synced file another name, in place of whatever had it. Durable when it returns.
    ///
    /// # Errors
    /// The disk failed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable when it returns.
    ///
    /// # Errors
    /// The disk failed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The directory `cell-K` of another cell of the node, within this one, its home's; made if there is none. Durable when
    /// it returns.
    ///
    /// # Errors
    /// The disk failed.
    fn cell(&self, cell: CellId) -> io::Result<Self>;

    /// Bytes that files may still take up.
    ///
    /// # Errors
    /// The disk failed, or cannot tell.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// How the log's bytes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// A write goes past the page cache and is durable when it returns (O_DIRECT, O_DSYNC).
    Direct,
    /// A write goes to the page cache, and a sync after it makes it durable (fdatasync).
    Synced,
}
