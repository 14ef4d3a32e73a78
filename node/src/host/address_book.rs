//! The address book: where this node has met others, kept in its data directory.
//!
//! Why: a seed may be down, or gone for good, when the others start again; whoever was met once is dialed without it.
//! Shape: one small TOML file, replaced whole by a thread of its own, since a sync would hold up the event loop.
//! Invariants: a hint and never a truth, for who answers must prove itself at every dial; a file that cannot be read is
//! said so and begun anew; dropping the book waits until everything noted is on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use shoal_protocol::id::NodeId;
use tracing::warn;

/// Who was met, and where: `host:port`, first choice first.
pub(super) type Addresses = BTreeMap<NodeId, Vec<String>>;

/// The book, open.
#[derive(Debug)]
pub(super) struct AddressBook {
    known: Addresses,
    writer: Option<(mpsc::Sender<Addresses>, JoinHandle<()>)>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u16,
    /// By node id, as hex digits.
    nodes: BTreeMap<String, Vec<String>>,
}

impl AddressBook {
    /// Opens the book of a data directory that this process has locked.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let known = read(&path).unwrap_or_else(|reason| {
            warn!(file = %path.display(), reason, "the addresses of other nodes are forgotten");
            Addresses::new()
        });
        let (sender, notes) = mpsc::channel();
        let writer =
            std::thread::Builder::new().name("shoal addresses".to_owned()).spawn(move || keep(&path, &notes))?;
        Ok(Self { known, writer: Some((sender, writer)) })
    }

    /// Who is known.
    pub(super) const fn known(&self) -> &Addresses {
        &self.known
    }

    /// Notes where a node is.
    pub(super) fn note(&mut self, node: NodeId, addresses: Vec<String>) {
        if self.known.get(&node) == Some(&addresses) {
            return;
        }
        self.known.insert(node, addresses);
        if let Some((sender, _)) = &self.writer {
            // The thread ends with this book, unless it panicked: then its message is on stderr.
            let _ = sender.send(self.known.clone());
        }
    }
}

impl Drop for AddressBook {
    fn drop(&mut self) {
        if let Some((sender, writer)) = self.writer.take() {
            drop(sender);
            let _ = writer.join();
        }
    }
}

/// Writes what is noted, until nobody notes any more. Of several waiting, the last says all.
fn keep(path: &Path, notes: &mpsc::Receiver<Addresses>) {
    while let Ok(mut addresses) = notes.recv() {
        addresses = notes.try_iter().last().unwrap_or(addresses);
        if let Err(error) = write(path, &addresses) {
            warn!(file = %path.display(), %error, "the addresses of other nodes are not kept");
        }
    }
}

fn read(path: &Path) -> Result<Addresses, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Addresses::new()),
        Err(error) => return Err(error.to_string()),
    };
    let stored: Stored = toml::from_str(&text).map_err(|error| error.to_string())?;
    if stored.version != VERSION {
        return Err(format!("version {}", stored.version));
    }
    let entry = |(node, addresses): (String, Vec<String>)| {
        let node = u64::from_str_radix(&node, 16).map_err(|error| format!("`{node}`: {error}"))?;
        Ok((NodeId(node), addresses))
    };
    stored.nodes.into_iter().map(entry).collect()
}

fn write(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let nodes = addresses.iter().map(|(node, addresses)| (format!("{:016x}", node.0), addresses.clone())).collect();
    let text = toml::to_string(&Stored { version: VERSION, nodes }).map_err(io::Error::other)?;
    let new: PathBuf = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(&new, path)
}

/// In the data directory.
const FILE: &str = "addresses.toml";
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Vec<String> {
        vec![format!("host:{port}")]
    }

    #[test]
    fn what_was_noted_last_is_there_when_the_book_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = AddressBook::open(dir.path()).unwrap();
        assert!(book.known().is_empty());
        book.note(NodeId(u64::MAX), at(1));
        book.note(NodeId(2), at(2));
        book.note(NodeId(2), at(3));
        drop(book);
        let expected = Addresses::from([(NodeId(u64::MAX), at(1)), (NodeId(2), at(3))]);
        assert_eq!(AddressBook::open(dir.path()).unwrap().known(), &expected);
    }

    #[test]
    fn a_book_that_cannot_be_read_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["no toml", "version = 2\n[nodes]\n", "version = 1\n[nodes]\nx = []\n"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let mut book = AddressBook::open(dir.path()).unwrap();
            assert!(book.known().is_empty(), "{text}");
            book.note(NodeId(1), at(1));
            drop(book);
            assert_eq!(AddressBook::open(dir.path()).unwrap().known().len(), 1);
        }
    }
}
