//! Files of the log on a simulated disk: they mind blocks as O_DIRECT does.

use std::io;

use redb::StorageBackend;
use shoal_node::storage::engine::log::BLOCK_BYTES;

use super::{SimFile, index};

/// An open file of the log, which minds blocks as O_DIRECT does.
#[derive(Debug)]
pub struct SimLogFile(pub(super) SimFile);

impl StorageBackend for SimLogFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        in_blocks(offset, out)?;
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        in_blocks(offset, data)?;
        self.0.write(offset, data)
    }
}

fn in_blocks(offset: u64, bytes: &[u8]) -> io::Result<()> {
    let block = BLOCK_BYTES;
    let fits = index(offset).is_multiple_of(block) && bytes.len().is_multiple_of(block);
    if fits && bytes.as_ptr().addr().is_multiple_of(block) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}
