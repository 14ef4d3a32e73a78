//! The disk seam: named files as bytes.
//!
//! A file is redb's `StorageBackend` (len, read, write, set_len, sync_data, locks). The host opens real files, the simulator
//! its own, which lose or tear what was not synced.

use std::io;

use redb::StorageBackend;

/// One store's directory.
pub trait Disk {
    /// A file of it.
    type File: StorageBackend;

    /// Whether there is a file of this name.
    ///
    /// # Errors
    /// The disk failed.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Opens a file, created empty if there is none.
    ///
    /// # Errors
    /// The disk failed.
    fn open(&self, name: &str) -> io::Result<Self::File>;

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
}
