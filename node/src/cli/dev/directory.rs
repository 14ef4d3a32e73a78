//! The directory of a development cluster: secret, size, data, logs, and what runs.
//!
//! Invariant: one `shoal dev` at a time, by a lock that the system releases when the process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shoal_client::url::ClusterUrl;

use super::super::connect::DevInfo;
use super::super::failure::{CONFIG, DATA_DIR, Failure, SYSTEM};
use super::super::session_file::{private, replace};
use crate::host::secret::{ClusterSecrets, SECRET_BYTES};
use crate::host::tls::ClusterCa;

/// An open directory.
pub(super) struct Directory {
    path: PathBuf,
    secrets: ClusterSecrets,
    _lock: File,
}

impl Directory {
    /// Opens it, or makes a new one for so many nodes.
    pub(super) fn open(path: &Path, nodes: u16) -> Result<Self, Failure> {
        std::fs::create_dir_all(path).map_err(|error| Failure::file(path, &error))?;
        // Children run elsewhere in spirit, and the paths shown to people should work from anywhere.
        let path = path.canonicalize().map_err(|error| Failure::file(path, &error))?;
        let lock_path = path.join("lock");
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true)).open(&lock_path);
        let lock = lock.map_err(|error| Failure::file(&lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(DATA_DIR, format!("another `shoal dev` runs on {}", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(Failure::file(&lock_path, &error)),
        }
        size(&path, nodes)?;
        let secrets = secrets(&path.join("secret"))?;
        Ok(Self { path, secrets, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn secret_file(&self) -> PathBuf {
        self.path.join("secret")
    }

    pub(super) fn data(&self, node: &str) -> PathBuf {
        self.path.join(node)
    }

    pub(super) fn log(&self, node: &str) -> PathBuf {
        self.path.join(format!("{node}.log"))
    }

    /// Where clients reach the nodes at `addresses`.
    pub(super) fn url(&self, addresses: impl Iterator<Item = SocketAddr>) -> Result<ClusterUrl, Failure> {
        let ca = ClusterCa::derive(self.secrets.first())?.pin().parse()?;
        Ok(ClusterUrl { addresses: addresses.map(|address| address.to_string()).collect(), ca })
    }

    /// Tells the other commands what runs.
    pub(super) fn announce(&self, info: &DevInfo) -> Result<(), Failure> {
        let path = DevInfo::path(&self.path);
        let bytes = serde_json::to_vec_pretty(info).map_err(std::io::Error::from)?;
        replace(&path, &bytes).map_err(|error| Failure::file(&path, &error))
    }

    /// Whether the last `shoal dev` here ended without stopping its nodes.
    pub(super) fn was_abandoned(&self) -> bool {
        DevInfo::path(&self.path).exists()
    }

    /// Nothing runs any more.
    pub(super) fn withdraw(&self) {
        // It may not have been announced.
        let _ = std::fs::remove_file(DevInfo::path(&self.path));
    }

    /// The end of a node's log.
    pub(super) fn last_lines(&self, node: &str) -> String {
        let path = self.log(node);
        let log = std::fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN));
        format!("the end of {}:\n{}", path.display(), last.copied().collect::<Vec<_>>().join("\n"))
    }
}

/// A cluster does not change its size here: its layout is fixed when it is formed.
fn size(path: &Path, nodes: u16) -> Result<(), Failure> {
    let file = path.join("nodes");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim() == nodes.to_string() => Ok(()),
        Ok(text) => Err(Failure::new(
            CONFIG,
            format!("{} holds a cluster of {} nodes, not {nodes}", path.display(), text.trim()),
        )
        .hint("give its number with --nodes, or another directory with --data-dir")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            replace(&file, format!("{nodes}\n").as_bytes()).map_err(|error| Failure::file(&file, &error))
        }
        Err(error) => Err(Failure::file(&file, &error)),
    }
}

/// The secret of this cluster, drawn at its first start.
fn secrets(path: &Path) -> Result<ClusterSecrets, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut secret = [0; SECRET_BYTES];
            getrandom::fill(&mut secret).map_err(|error| Failure::new(SYSTEM, error))?;
            let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            replace(path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file(path, &error))?;
            text
        }
        Err(error) => return Err(Failure::file(path, &error)),
    };
    ClusterSecrets::parse(&text).map_err(|error| Failure::new(CONFIG, format!("{}: {error}", path.display())))
}

/// Enough to see why a node did not start.
const LINES_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_secret_and_size_and_takes_one_cluster_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path(), 3).unwrap();
        let url = first.url(std::iter::empty()).unwrap();
        assert_eq!(Directory::open(dir.path(), 3).err().map(|failure| failure.code()), Some("data_dir"));
        drop(first);
        assert_eq!(Directory::open(dir.path(), 5).err().map(|failure| failure.code()), Some("config"));
        let again = Directory::open(dir.path(), 3).unwrap();
        assert_eq!(again.url(std::iter::empty()).unwrap(), url);
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path(), 3).unwrap();
        assert_eq!(directory.secret_file().metadata().unwrap().permissions().mode() & 0o077, 0);
    }
}
