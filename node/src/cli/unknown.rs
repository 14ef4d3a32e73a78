//! Operations with an unknown outcome, kept for `shoal repeat`.
//!
//! Shape: one file for each cluster, the operations as MessagePack behind a version byte, under a lock of its own. Repeating
//! sends the same bytes, which count once however often they arrive; nodes accept them until the session's grace ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use shoal_client::BoundOperation;
use shoal_client::url::CaPin;
use shoal_protocol::codec;

use super::connect::Connect;
use super::failure::{CONFIG, Failure};
use super::output::{Output, note};
use super::session_file::{private, replace, short, state_dir};

/// The operations of one cluster that may have been applied.
#[derive(Debug)]
pub(super) struct Unknowns {
    path: PathBuf,
    operations: Vec<BoundOperation>,
    _lock: File,
}

impl Unknowns {
    /// Those kept in `dir`, once nobody else works on them.
    pub(super) fn open(dir: &Path, ca: &CaPin) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).map_err(|error| Failure::file(dir, &error))?;
        let path = dir.join(format!("{}.unknown", short(ca)));
        let lock_path = path.with_extension("unknown-lock");
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true)).open(&lock_path);
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.map_err(|error| Failure::file(&lock_path, &error))?;
        let operations = match std::fs::read(&path) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| {
                Failure::new(CONFIG, format!("{} does not hold operations of this version", path.display()))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Failure::file(&path, &error)),
        };
        Ok(Self { path, operations, _lock: lock })
    }

    /// Keeps one more.
    pub(super) fn add(mut self, operation: &BoundOperation) -> Result<(), Failure> {
        self.operations.push(operation.clone());
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&codec::encode(&self.operations));
        replace(&self.path, &bytes).map_err(|error| Failure::file(&self.path, &error))
    }
}

/// `shoal repeat`: sends them again, and keeps those whose outcome stays unknown.
pub(super) async fn repeat(connect: &Connect, out: &mut Output) -> Result<(), Failure> {
    let mut unknowns = Unknowns::open(&state_dir()?, &connect.url()?.ca)?;
    let client = connect.open().await?;
    let mut left = Vec::new();
    let mut failure = None;
    let mut confirmed = 0;
    for operation in std::mem::take(&mut unknowns.operations) {
        match client.repeat(&operation).await {
            Ok(_written) => confirmed += 1,
            Err(error) => {
                failure = Some(Failure::from(error));
                left.push(operation);
            }
        }
    }
    unknowns.operations = left;
    unknowns.save()?;
    let left = unknowns.operations.len();
    if out.is_json() {
        out.document(&json!({ "confirmed": confirmed, "unknown": left }))?;
    } else {
        note(format_args!("{confirmed} operations are confirmed, {left} stay unknown"));
    }
    failure.map_or(Ok(()), |failure| Err(failure.hint("`shoal repeat` can be tried again")))
}

fn decode(bytes: &[u8]) -> Option<Vec<BoundOperation>> {
    let (version, operations) = bytes.split_first()?;
    (*version == VERSION).then(|| codec::decode(operations).ok()).flatten()
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_protocol::address::Place;
    use shoal_protocol::causality::Dot;
    use shoal_protocol::client::SessionGrant;
    use shoal_protocol::id::{Actor, KeyspaceId};

    use super::*;

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
    fn what_is_unknown_is_kept_by_cluster_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let open = |byte| Unknowns::open(dir.path(), &CaPin([byte; 32])).unwrap();
        open(1).add(&bound(1)).unwrap();
        open(1).add(&bound(2)).unwrap();
        assert_eq!(open(1).operations, [bound(1), bound(2)]);
        assert_eq!(open(2).operations, []);
        std::fs::write(open(1).path, b"\x02").unwrap();
        assert_eq!(Unknowns::open(dir.path(), &CaPin([1; 32])).unwrap_err().code(), "config");
    }
}
