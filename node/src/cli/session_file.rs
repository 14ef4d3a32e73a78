//! Sessions between two commands: one file each, under a lock.
//!
//! Shape: a state directory holds, for each cluster, up to `SLOTS` pairs `<pin>-<slot>.lock` and `<pin>-<slot>.session`; a
//! command takes the first slot whose lock is free, so commands that run at the same time do not wait for each other.
//! Invariant: the session leaves its file before its first use and comes back after its last. A command that dies in
//! between leaves none, and the next one asks for a new session: no dot is used twice, no running total is lost.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use shoal_client::session::StoredSession;
use shoal_client::url::CaPin;

use super::failure::Failure;

/// A slot, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct SessionFile {
    path: PathBuf,
    session: Option<StoredSession>,
    _lock: File,
}

impl SessionFile {
    /// The first free slot for the cluster with this CA; `None` when all are in use.
    pub(super) fn take(dir: &Path, ca: &CaPin) -> Result<Option<Self>, Failure> {
        std::fs::create_dir_all(dir).map_err(|error| Failure::file(dir, &error))?;
        let pin = short(ca);
        for slot in 0..SLOTS {
            let path = dir.join(format!("{pin}-{slot}.lock"));
            let lock = private(OpenOptions::new().create(true).truncate(false).write(true)).open(&path);
            let lock = lock.map_err(|error| Failure::file(&path, &error))?;
            match lock.try_lock() {
                Ok(()) => {
                    let path = path.with_extension("session");
                    let session = withdraw(&path).map_err(|error| Failure::file(&path, &error))?;
                    return Ok(Some(Self { path, session, _lock: lock }));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(Failure::file(&path, &error)),
            }
        }
        Ok(None)
    }

    /// The session that was there, once.
    pub(super) fn session(&mut self) -> Option<StoredSession> {
        self.session.take()
    }

    /// Leaves a session for the next command.
    pub(super) fn put_back(&self, session: &StoredSession) -> Result<(), Failure> {
        replace(&self.path, &session.encode()).map_err(|error| Failure::file(&self.path, &error))
    }
}

/// A cluster's name in the names of files.
pub(super) fn short(ca: &CaPin) -> String {
    ca.0.iter().take(PIN_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// Where this user's sessions and imports are kept.
pub(super) fn state_dir() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    let missing =
        || Failure::new(super::failure::CONFIG, "neither XDG_STATE_HOME nor HOME says where to keep sessions");
    Ok(state.ok_or_else(|| missing().hint("set one of them, or use --sessionless"))?.join("shoal"))
}

/// Writes a private file so that it is there with all its bytes, or as before.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = private(OpenOptions::new().create(true).truncate(true).write(true)).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)
}

/// Readable by its owner only, where the system knows owners.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Takes the session out of its file. One that cannot be read is as good as none: it is replaced by a new one.
fn withdraw(path: &Path) -> io::Result<Option<StoredSession>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    std::fs::remove_file(path)?;
    Ok(StoredSession::decode(&bytes).ok())
}

/// Commands of one user at the same time; more take sessions that are not kept.
const SLOTS: usize = 16;
/// Enough to tell clusters apart.
const PIN_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use shoal_client::session::Session;
    use shoal_protocol::client::SessionGrant;
    use shoal_protocol::id::Actor;

    use super::*;

    const CA: CaPin = CaPin([7; 32]);

    fn stored(n: u64) -> StoredSession {
        Session::new(SessionGrant { actor: Actor(1 << 63 | n), mac: [0; 16] }).suspend()
    }

    #[test]
    fn a_session_is_out_of_its_file_while_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = SessionFile::take(dir.path(), &CA).unwrap().unwrap();
        assert_eq!(first.session(), None);
        first.put_back(&stored(1)).unwrap();
        drop(first);
        let mut second = SessionFile::take(dir.path(), &CA).unwrap().unwrap();
        assert_eq!(second.session(), Some(stored(1)));
        drop(second);
        let mut third = SessionFile::take(dir.path(), &CA).unwrap().unwrap();
        assert_eq!(third.session(), None, "the second command died with it");
    }

    #[test]
    fn commands_at_the_same_time_have_different_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..SLOTS).map(|_| SessionFile::take(dir.path(), &CA).unwrap().unwrap()).collect();
        assert!(SessionFile::take(dir.path(), &CA).unwrap().is_none());
        let other = CaPin([8; 32]);
        assert!(SessionFile::take(dir.path(), &other).unwrap().is_some());
        drop(files);
        assert!(SessionFile::take(dir.path(), &CA).unwrap().is_some());
    }

    #[test]
    fn a_damaged_session_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = SessionFile::take(dir.path(), &CA).unwrap().unwrap();
        std::fs::write(&file.path, b"\x09damaged").unwrap();
        drop(file);
        assert_eq!(SessionFile::take(dir.path(), &CA).unwrap().unwrap().session(), None);
    }
}
