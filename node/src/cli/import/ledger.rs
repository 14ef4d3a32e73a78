//! What an import remembers: how far it came, and every counter operation it has bound.
//!
//! A register, set, flag or map may be written again without harm; a counter may not. So each counter operation is bound
//! (its bytes are fixed) and written here before it is first sent, and a repetition of the same line sends the same bytes,
//! which count once. Shape: a file of entries, each a length and MessagePack; it only grows, and a torn end is cut off.
//! Invariants: an operation is sent only when its entry is on disk; one process at a time, by a lock.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shoal_client::BoundOperation;
use shoal_protocol::codec;

use super::another;
use crate::cli::failure::Failure;
use crate::cli::session_file::private;

/// A place in the input: everything before it is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes.
    pub(super) offset: u64,
    /// Lines.
    pub(super) line: u64,
    /// Of them, imported.
    pub(super) imported: u64,
    /// Of them, not imported.
    pub(super) failed: u64,
    /// blake3 of the bytes.
    pub(super) prefix: [u8; 32],
}

/// Which counter operation: the line's number and hash, and which of its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CountId {
    pub(super) line: u64,
    pub(super) hash: [u8; 16],
    pub(super) index: u32,
}

/// What is known of a counter operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// It may have been sent: these bytes, or none.
    Bound(Box<BoundOperation>),
    /// It is acknowledged.
    Done,
}

#[derive(Serialize, Deserialize)]
enum Entry {
    Head { version: u16, scope: String },
    Bound(CountId, Box<BoundOperation>),
    Done(CountId),
    Settled(Progress),
    Finished,
}

/// The memory of an import.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
    counted: BTreeMap<CountId, Counted>,
    progress: Option<Progress>,
}

impl Ledger {
    /// Reads what there is, or begins. `scope` is what it belongs to: the cluster and keyspace.
    pub(super) fn open(path: &Path, scope: &str) -> Result<Self, Failure> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|error| Failure::file(parent, &error))?;
        }
        let file = private(OpenOptions::new().create(true).truncate(false).read(true).write(true)).open(path);
        let mut file = file.map_err(|error| Failure::file(path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::file(path, &io::Error::other("another import of the same is under way")));
            }
            Err(TryLockError::Error(error)) => return Err(Failure::file(path, &error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| Failure::file(path, &error))?;
        let mut ledger = Self { path: path.to_owned(), file, counted: BTreeMap::new(), progress: None };
        let mut valid = 0;
        while let Some((entry, length)) = entry_at(&bytes[valid..]) {
            ledger.learn(entry, (valid == 0).then_some(scope)).ok_or_else(|| another(path))?;
            valid += length;
        }
        if valid == 0 && !bytes.is_empty() {
            return Err(another(path));
        }
        let cut = ledger.file.set_len(valid as u64).and_then(|()| ledger.file.seek(SeekFrom::End(0)));
        cut.map_err(|error| Failure::file(path, &error))?;
        if valid == 0 {
            ledger.write(&[Entry::Head { version: VERSION, scope: scope.to_owned() }])?;
        }
        Ok(ledger)
    }

    /// Where an interrupted import goes on; `None` at the beginning.
    pub(super) const fn progress(&self) -> Option<Progress> {
        self.progress
    }

    /// What is known of an operation.
    pub(super) fn counted(&self, id: &CountId) -> Option<&Counted> {
        self.counted.get(id)
    }

    /// Remembers operations before they are sent.
    pub(super) fn bind(&mut self, operations: Vec<(CountId, BoundOperation)>) -> Result<(), Failure> {
        let entries: Vec<_> = operations.into_iter().map(|(id, bound)| Entry::Bound(id, Box::new(bound))).collect();
        self.write(&entries)?;
        for entry in entries {
            self.learn(entry, None);
        }
        Ok(())
    }

    /// Operations are acknowledged. If this gets lost, they are sent once more.
    pub(super) fn done(&mut self, operations: &[CountId]) -> Result<(), Failure> {
        self.write(&operations.iter().copied().map(Entry::Done).collect::<Vec<_>>())?;
        self.counted.extend(operations.iter().map(|id| (*id, Counted::Done)));
        Ok(())
    }

    /// Everything before `progress` is settled.
    pub(super) fn advance(&mut self, progress: &Progress) -> Result<(), Failure> {
        self.write(&[Entry::Settled(*progress)])
    }

    /// Everything is: the next import begins at the beginning.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.write(&[Entry::Finished])
    }

    /// `None` when the entry does not belong here.
    fn learn(&mut self, entry: Entry, as_first_of: Option<&str>) -> Option<()> {
        match (entry, as_first_of) {
            (Entry::Head { version, scope }, Some(expected)) => {
                return (version == VERSION && scope == expected).then_some(());
            }
            (Entry::Head { .. }, None) | (_, Some(_)) => return None,
            (Entry::Bound(id, bound), None) => {
                self.counted.insert(id, Counted::Bound(bound));
            }
            (Entry::Done(id), None) => {
                self.counted.insert(id, Counted::Done);
            }
            (Entry::Settled(progress), None) => self.progress = Some(progress),
            (Entry::Finished, None) => self.progress = None,
        }
        Some(())
    }

    fn write(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        let Self { path, file, .. } = self;
        let mut bytes = Vec::new();
        for entry in entries {
            let entry_bytes = codec::encode(entry);
            bytes.extend_from_slice(&u32::try_from(entry_bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(&entry_bytes);
        }
        let must_last = entries.iter().any(|entry| matches!(entry, Entry::Head { .. } | Entry::Bound(..)));
        let written = file.write_all(&bytes).and_then(|()| if must_last { file.sync_data() } else { Ok(()) });
        written.map_err(|error| Failure::file(path, &error))
    }
}

/// The entry at the front and its length; `None` when there is no whole one.
fn entry_at(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let entry = codec::decode(rest.get(..length)?).ok()?;
    Some((entry, 4 + length))
}

const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_protocol::address::Place;
    use shoal_protocol::causality::Dot;
    use shoal_protocol::client::SessionGrant;
    use shoal_protocol::id::{Actor, KeyspaceId};

    use super::*;

    fn id(line: u64) -> CountId {
        CountId { line, hash: [7; 16], index: 0 }
    }

    fn bound(n: u64) -> BoundOperation {
        BoundOperation {
            grant: SessionGrant { actor: Actor(1), mac: [0; 16] },
            place: Place { keyspace: KeyspaceId(1), collection: Bytes::new(), key: "k".into() },
            dot: Dot { actor: Actor(1), n },
            delta: Bytes::from_static(b"delta"),
            contexts: Vec::new(),
            w: None,
            quorum: None,
        }
    }

    #[test]
    fn what_was_bound_is_remembered_and_what_was_interrupted_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/ledger");
        let progress = Progress { offset: 10, line: 2, ..Progress::default() };
        let mut ledger = Ledger::open(&path, "here").unwrap();
        ledger.bind(vec![(id(1), bound(1)), (id(2), bound(2))]).unwrap();
        ledger.done(&[id(1)]).unwrap();
        ledger.advance(&progress).unwrap();
        drop(ledger);

        let mut ledger = Ledger::open(&path, "here").unwrap();
        assert_eq!(ledger.progress(), Some(progress));
        assert_eq!(ledger.counted(&id(1)), Some(&Counted::Done));
        assert_eq!(ledger.counted(&id(2)), Some(&Counted::Bound(Box::new(bound(2)))));
        assert_eq!(ledger.counted(&CountId { hash: [8; 16], ..id(2) }), None, "another line");
        ledger.finish().unwrap();
        drop(ledger);

        let ledger = Ledger::open(&path, "here").unwrap();
        assert_eq!(ledger.progress(), None);
        assert_eq!(ledger.counted(&id(1)), Some(&Counted::Done));
    }

    #[test]
    fn a_torn_end_is_cut_off_and_what_follows_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::open(&path, "here").unwrap();
        ledger.bind(vec![(id(1), bound(1)), (id(2), bound(2))]).unwrap();
        drop(ledger);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();

        let mut ledger = Ledger::open(&path, "here").unwrap();
        assert!(ledger.counted(&id(1)).is_some() && ledger.counted(&id(2)).is_none());
        ledger.bind(vec![(id(3), bound(3))]).unwrap();
        drop(ledger);
        assert!(Ledger::open(&path, "here").unwrap().counted(&id(3)).is_some());
    }

    #[test]
    fn the_memory_of_something_else_and_of_nothing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let open = |scope: &str| Ledger::open(&path, scope).map(drop).map_err(|failure| failure.code());
        assert_eq!(open("here"), Ok(()));
        assert_eq!(open("there"), Err("config"));
        let ledger = Ledger::open(&path, "here").unwrap();
        assert_eq!(open("here"), Err("io"), "it is in use");
        drop(ledger);
        std::fs::write(&path, "a user's own file").unwrap();
        assert_eq!(open("here"), Err("config"));
        assert_eq!(std::fs::read(&path).unwrap(), b"a user's own file");
    }
}
