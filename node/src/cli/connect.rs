//! The way to the cluster: which URL, which session.
//!
//! The URL is `--url`, else `SHOAL_URL`, else that of the development cluster in the current directory. Commands that write
//! go on with a stored session, so that repeating inside a command counts once and objects do not collect an actor for
//! every command; commands that only read, and long jobs, take a session of their own.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_client::Client;
use shoal_client::url::ClusterUrl;
use shoal_protocol::address::Address;

use super::failure::{CONFIG, Failure};
use super::session_file::{SessionFile, state_dir};
use super::unknown::Unknowns;

/// Which cluster, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connect {
    /// Where the cluster is: shoal://HOST:PORT,HOST:PORT/?ca=sha256:... [default: the `shoal dev` of this directory].
    #[arg(long, global = true, env = "SHOAL_URL", value_name = "URL")]
    url: Option<String>,
    /// Ask this node and no other, instead of those of the URL.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    via: Option<String>,
    /// How long a request may take, retries included.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// Let a node mint the writes: at least once, never repeated once they may have happened.
    #[arg(long, global = true)]
    sessionless: bool,
}

impl Connect {
    /// The cluster's URL.
    pub(super) fn url(&self) -> Result<ClusterUrl, Failure> {
        let mut url: ClusterUrl = match &self.url {
            Some(url) => url.parse()?,
            None => DevInfo::read(Path::new(DEV_DIR_DEFAULT))?.ok_or_else(no_cluster)?.url.parse()?,
        };
        if let Some(node) = &self.via {
            url.addresses = format!("shoal://{node}/?ca={}", url.ca).parse::<ClusterUrl>()?.addresses;
        }
        Ok(url)
    }

    /// Whether a cluster was named, or is found in this directory.
    pub(super) fn names_a_cluster(&self) -> bool {
        self.url.is_some() || DevInfo::path(Path::new(DEV_DIR_DEFAULT)).exists()
    }

    /// Connects with a session that ends with this process.
    pub(super) async fn open(&self) -> Result<Client, Failure> {
        self.open_at(&self.url()?).await
    }

    /// As `open`, at a URL found otherwise.
    pub(super) async fn open_at(&self, url: &ClusterUrl) -> Result<Client, Failure> {
        Ok(self.builder().connect(&url.to_string()).await?)
    }

    /// Runs `work` in the stored session.
    pub(super) async fn in_session<T, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let url = self.url()?;
        if self.sessionless {
            return work(self.open_at(&url).await?).await;
        }
        let Some(mut file) = SessionFile::take(&state_dir()?, &url.ca)? else {
            return work(self.open_at(&url).await?).await;
        };
        let client = match file.session() {
            Some(session) => self.builder().session(session).connect(&url.to_string()).await?,
            None => self.open_at(&url).await?,
        };
        let result = work(client.clone()).await;
        if let Some(session) = client.suspend() {
            file.put_back(&session)?;
        }
        match result {
            Err(failure) => Err(remember(&url, failure)),
            Ok(done) => Ok(done),
        }
    }

    fn builder(&self) -> shoal_client::Builder {
        let builder = Client::builder().deadline(self.timeout).software(SOFTWARE);
        let builder = if self.via.is_some() { builder.unrouted() } else { builder };
        if self.sessionless { builder.sessionless() } else { builder }
    }
}

/// Keeps what may have been applied, so that it can be sent again and counts once.
fn remember(url: &ClusterUrl, failure: Failure) -> Failure {
    let Some(operation) = failure.operation() else { return failure };
    let kept = state_dir().and_then(|dir| Unknowns::open(&dir, &url.ca)?.add(operation));
    match kept {
        Ok(()) => {
            failure.hint("`shoal repeat` sends it again, and it counts once; this command again is a new operation")
        }
        Err(error) => failure.hint(format_args!("it cannot be kept for `shoal repeat`: {error}")),
    }
}

/// What `shoal dev` leaves in its directory while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DevInfo {
    /// The cluster's URL.
    pub(super) url: String,
    /// Its nodes.
    pub(super) nodes: Vec<DevNode>,
}

/// One node of a development cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DevNode {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) pid: u32,
}

impl DevInfo {
    /// The development cluster that runs on `dir`, as far as is written there.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Failure::new(CONFIG, format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file(&path, &error)),
        }
    }

    pub(super) fn path(dir: &Path) -> std::path::PathBuf {
        dir.join("connect-info")
    }
}

/// An address on the command line.
pub(super) fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|error| error.to_string())
}

/// A time in seconds, 0.001 or more.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(1) || time > SECONDS_MAX {
        return Err(format!("from 0.001 to {} seconds", SECONDS_MAX.as_secs()));
    }
    Ok(time)
}

fn no_cluster() -> Failure {
    Failure::new(CONFIG, "no cluster is named, and none was started here").hint(
        "give --url or SHOAL_URL (`shoal connect-info` prints it), or work in the directory where `shoal dev` was started",
    )
}

/// Where `shoal dev` keeps its cluster when it is not told.
pub(super) const DEV_DIR_DEFAULT: &str = "shoal-dev";
/// A day: whatever takes longer is not a request.
const SECONDS_MAX: Duration = Duration::from_secs(86_400);
const SOFTWARE: &str = concat!("shoal/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_cluster_names_none_and_a_damaged_file_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DevInfo::read(dir.path()).unwrap(), None);
        std::fs::write(DevInfo::path(dir.path()), "{").unwrap();
        assert_eq!(DevInfo::read(dir.path()).unwrap_err().code(), "config");
        let info = DevInfo {
            url: "shoal://a".into(),
            nodes: vec![DevNode { name: "n1".into(), address: "a:1".into(), pid: 1 }],
        };
        std::fs::write(DevInfo::path(dir.path()), serde_json::to_vec(&info).unwrap()).unwrap();
        assert_eq!(DevInfo::read(dir.path()).unwrap(), Some(info));
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["0", "-1", "x", "nan", "1e9", "1e300"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
