//! What a server is told at start.
//!
//! What: `Settings`, one layer with everything optional (a TOML file, the environment, or flags), and `ServerConfig`, what
//! the layers resolve to. Flags win over `SHOAL_*`, that over the file, that over defaults. Source: DESIGN §12.
//! Invariants: an unknown key in a file is refused. Unknown `SHOAL_*` variables are not, because Kubernetes itself sets
//! some for a service called shoal. A secret is never shown: `ServerConfig::show` says only how many there are.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shoal_protocol::id::ClusterId;

use super::limits::{LimitSettings, ServerLimits};
use super::peers::ADDRESSES_COUNT_MAX;
use super::secret::{ClusterSecrets, SecretError};
pub use crate::storage::CELLS_COUNT_MAX;
use crate::system::JoinMode;

/// One layer of settings: what it does not name comes from the next layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where this node keeps its data.
    #[cfg_attr(feature = "cli", arg(long, value_name = "DIR"))]
    pub data_dir: Option<PathBuf>,
    /// Address and UDP port to listen on [default: 127.0.0.1:7400].
    #[cfg_attr(feature = "cli", arg(long, value_name = "IP:PORT"))]
    pub listen: Option<SocketAddr>,
    /// This node's name, unique in the cluster and the same at every start.
    #[cfg_attr(feature = "cli", arg(long))]
    pub name: Option<String>,
    /// What fails together: rack, room or provider zone [default: default].
    #[cfg_attr(feature = "cli", arg(long))]
    pub zone: Option<String>,
    /// This node's share of the data, relative to the others' weights [default: 100].
    #[cfg_attr(feature = "cli", arg(long))]
    pub weight: Option<u32>,
    /// The cluster's name [default: shoal].
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub cluster: Option<String>,
    /// The cluster's id (`shoal status` shows it); needed once its first secret is being replaced.
    #[cfg_attr(feature = "cli", arg(long, value_name = "HEX"))]
    pub cluster_id: Option<String>,
    /// File with the cluster secret: 64 hex digits or base64 of 32 bytes; during a rotation one per line, newest first.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    pub secret_file: Option<PathBuf>,
    /// Other nodes to contact, `host:port`, comma-separated.
    #[cfg_attr(feature = "cli", arg(long, value_name = "HOST:PORT", value_delimiter = ','))]
    pub seeds: Option<Vec<String>>,
    /// Nodes to wait for before the cluster is formed [default: 3].
    #[cfg_attr(feature = "cli", arg(long, value_name = "COUNT"))]
    pub expect: Option<u16>,
    /// What happens when a node comes that is no member: `auto` makes it one, `manual` waits for `shoal cluster commit`
    /// [default: auto].
    #[cfg_attr(feature = "cli", arg(long, value_name = "MODE"))]
    pub join: Option<JoinMode>,
    /// `host:port` under which other nodes reach this one [default: the listen address].
    #[cfg_attr(feature = "cli", arg(long, value_name = "HOST:PORT", value_delimiter = ','))]
    pub advertise_peer: Option<Vec<String>>,
    /// `host:port` under which clients reach this node [default: as for nodes].
    #[cfg_attr(feature = "cli", arg(long, value_name = "HOST:PORT", value_delimiter = ','))]
    pub advertise_client: Option<Vec<String>>,
    /// Stores that the node's data is spread over, each with a log of its own: fixed when the data directory is made, and not
    /// needed later [default: 1].
    #[cfg_attr(feature = "cli", arg(long, value_name = "COUNT"))]
    pub stores: Option<u8>,
    /// What bounds the node.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub limits: LimitSettings,
    /// Found a cluster of this node alone, if the data directory is empty. Never in a file or the environment: it must not
    /// happen by itself after a loss of data.
    #[cfg_attr(feature = "cli", arg(long))]
    #[serde(skip)]
    pub found_alone: bool,
    /// The secret itself, from `SHOAL_SECRET` only.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip)]
    pub secret: Option<ClusterSecrets>,
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// `ConfigError::File` when it cannot be read, `ConfigError::Toml` when it is not a settings file.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        toml::from_str(&text).map_err(|error| ConfigError::Toml { path: path.to_owned(), reason: error.to_string() })
    }

    /// Picks this layer's settings from environment variables.
    ///
    /// # Errors
    /// `ConfigError::Variable` or `ConfigError::Secret` when one does not parse.
    pub fn from_env(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for (name, value) in variables {
            settings.read_variable(&name, value)?;
        }
        Ok(settings)
    }

    fn read_variable(&mut self, name: &str, value: String) -> Result<(), ConfigError> {
        let list = || value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
        match name {
            "SHOAL_DATA_DIR" => self.data_dir = Some(value.into()),
            "SHOAL_LISTEN" => self.listen = Some(parse(name, &value)?),
            "SHOAL_NAME" => self.name = Some(value),
            "SHOAL_ZONE" => self.zone = Some(value),
            "SHOAL_WEIGHT" => self.weight = Some(parse(name, &value)?),
            "SHOAL_CLUSTER" => self.cluster = Some(value),
            "SHOAL_CLUSTER_ID" => self.cluster_id = Some(value),
            "SHOAL_SECRET" => {
                let secret = ClusterSecrets::parse(&value);
                self.secret = Some(secret.map_err(|error| ConfigError::Secret { from: name.to_owned(), error })?);
            }
            "SHOAL_SECRET_FILE" => self.secret_file = Some(value.into()),
            "SHOAL_SEEDS" => self.seeds = Some(list()),
            "SHOAL_EXPECT" => self.expect = Some(parse(name, &value)?),
            "SHOAL_JOIN" => self.join = Some(parse(name, &value)?),
            "SHOAL_ADVERTISE_PEER" => self.advertise_peer = Some(list()),
            "SHOAL_ADVERTISE_CLIENT" => self.advertise_client = Some(list()),
            "SHOAL_STORES" => self.stores = Some(parse(name, &value)?),
            _ => self.limits.read_variable(name, &value)?,
        }
        Ok(())
    }

    /// These settings, and where they are silent those of `lower`. A secret and a secret file are one setting: a layer that
    /// names either hides the other of the layers below.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        let (secret, secret_file) = if self.secret.is_some() || self.secret_file.is_some() {
            (self.secret, self.secret_file)
        } else {
            (lower.secret, lower.secret_file)
        };
        Self {
            data_dir: self.data_dir.or(lower.data_dir),
            listen: self.listen.or(lower.listen),
            name: self.name.or(lower.name),
            zone: self.zone.or(lower.zone),
            weight: self.weight.or(lower.weight),
            cluster: self.cluster.or(lower.cluster),
            cluster_id: self.cluster_id.or(lower.cluster_id),
            secret_file,
            seeds: self.seeds.or(lower.seeds),
            expect: self.expect.or(lower.expect),
            join: self.join.or(lower.join),
            advertise_peer: self.advertise_peer.or(lower.advertise_peer),
            advertise_client: self.advertise_client.or(lower.advertise_client),
            stores: self.stores.or(lower.stores),
            limits: self.limits.over(lower.limits),
            found_alone: self.found_alone || lower.found_alone,
            secret,
        }
    }

    /// Checks the settings, reads the secret's file and fills in defaults.
    ///
    /// # Errors
    /// `ConfigError` for the first setting that is missing or wrong.
    pub fn resolve(self) -> Result<ServerConfig, ConfigError> {
        let secrets = match (self.secret, self.secret_file) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoSecrets),
            (Some(secrets), None) => Some(secrets),
            (None, Some(path)) => Some(
                ClusterSecrets::parse(&read(&path)?)
                    .map_err(|error| ConfigError::Secret { from: path.display().to_string(), error })?,
            ),
            (None, None) => None,
        };
        let cluster_id = self.cluster_id.map(|text| cluster_id(&text)).transpose()?;
        let listen = self.listen.unwrap_or(LISTEN_DEFAULT);
        let config = ServerConfig {
            data_dir: self.data_dir.ok_or(ConfigError::Missing { setting: "data_dir" })?,
            listen,
            name: self.name.ok_or(ConfigError::Missing { setting: "name" })?,
            zone: self.zone.unwrap_or_else(|| "default".to_owned()),
            weight: self.weight.unwrap_or(WEIGHT_DEFAULT),
            cluster: self.cluster.unwrap_or_else(|| "shoal".to_owned()),
            cluster_id,
            secrets,
            seeds: self.seeds.unwrap_or_default(),
            expect: self.expect.unwrap_or(EXPECT_DEFAULT),
            join: self.join.unwrap_or_default(),
            found_alone: self.found_alone,
            advertise_peer: self.advertise_peer.unwrap_or_default(),
            advertise_client: self.advertise_client.unwrap_or_default(),
            stores: self.stores,
            limits: self.limits.resolve(),
        };
        config.check()?;
        Ok(config)
    }
}

/// What a server runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where this node keeps its data.
    pub data_dir: PathBuf,
    /// Address and UDP port to listen on. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// This node's name.
    pub name: String,
    /// What fails together.
    pub zone: String,
    /// Its share of the data, relative to the others' weights.
    pub weight: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id, when it does not follow from secret and name because secrets are being replaced.
    pub cluster_id: Option<ClusterId>,
    /// The cluster secret(s). `None` confines the node to loopback.
    pub secrets: Option<ClusterSecrets>,
    /// `host:port` of other nodes.
    pub seeds: Vec<String>,
    /// Nodes to see before a first layout is proposed.
    pub expect: u16,
    /// What happens when a node comes that is no member.
    pub join: JoinMode,
    /// Found a cluster of this node alone.
    pub found_alone: bool,
    /// `host:port` for nodes; empty = the address listened on.
    pub advertise_peer: Vec<String>,
    /// `host:port` for clients; empty = as for nodes.
    pub advertise_client: Vec<String>,
    /// Stores of the data directory; `None`: as many as it has, and one if it is made now.
    pub stores: Option<u8>,
    /// What bounds the node.
    pub limits: ServerLimits,
}

impl ServerConfig {
    /// The rules that hold for every server, however its settings came about.
    ///
    /// # Errors
    /// The rule broken.
    pub fn check(&self) -> Result<(), ConfigError> {
        let named = [("name", &self.name), ("zone", &self.zone), ("cluster", &self.cluster)];
        for (setting, value) in named {
            if !(1..=NAME_BYTES_MAX).contains(&value.len()) || value.chars().any(char::is_control) {
                return Err(ConfigError::BadName { setting });
            }
        }
        let advertised = [("advertise_peer", &self.advertise_peer), ("advertise_client", &self.advertise_client)];
        if let Some((setting, _)) = advertised.into_iter().find(|(_, list)| list.len() > ADDRESSES_COUNT_MAX) {
            return Err(ConfigError::TooManyAddresses { setting });
        }
        for address in self.seeds.iter().chain(&self.advertise_peer).chain(&self.advertise_client) {
            if !is_address(address) {
                return Err(ConfigError::BadAddress { address: address.clone() });
            }
        }
        for (setting, count) in [("expect", u32::from(self.expect)), ("weight", self.weight)] {
            if count == 0 {
                return Err(ConfigError::Zero { setting });
            }
        }
        if self.stores.is_some_and(|stores| !(1..=CELLS_COUNT_MAX).contains(&stores)) {
            return Err(ConfigError::BadStores);
        }
        if self.secrets.is_none() && !self.listen.ip().is_loopback() {
            return Err(ConfigError::NoSecret { listen: self.listen });
        }
        if self.secrets.as_ref().is_some_and(|secrets| secrets.iter().count() > 1) && self.cluster_id.is_none() {
            return Err(ConfigError::Missing { setting: "cluster_id" });
        }
        self.limits.check()?;
        if self.listen.ip().is_unspecified() && self.advertise_peer.is_empty() {
            return Err(ConfigError::Missing { setting: "advertise_peer" });
        }
        Ok(())
    }

    /// The configuration as `shoal config show` prints it: TOML, the secret left out.
    #[must_use]
    pub fn show(&self) -> Shown<'_> {
        Shown(self)
    }
}

/// A configuration that can be printed.
pub struct Shown<'a>(&'a ServerConfig);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        let settings = Settings {
            data_dir: Some(config.data_dir.clone()),
            listen: Some(config.listen),
            name: Some(config.name.clone()),
            zone: Some(config.zone.clone()),
            weight: Some(config.weight),
            cluster: Some(config.cluster.clone()),
            cluster_id: config.cluster_id.map(|id| id.to_string()),
            seeds: Some(config.seeds.clone()),
            expect: Some(config.expect),
            join: Some(config.join),
            advertise_peer: Some(config.advertise_peer.clone()),
            advertise_client: Some(config.advertise_client.clone()),
            stores: config.stores,
            limits: LimitSettings::of(&config.limits),
            ..Settings::default()
        };
        let secrets_count = config.secrets.as_ref().map_or(0, |secrets| secrets.iter().count());
        f.write_str(&toml::to_string(&settings).map_err(|_| fmt::Error)?)?;
        writeln!(f, "# secrets: {secrets_count}, not shown")
    }
}

/// What is wrong with a configuration. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not TOML, or has a key that does not exist, or a value of the wrong type.
    #[error("{}: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        reason: String,
    },
    /// A variable does not parse.
    #[error("{name}: {reason}")]
    Variable {
        /// The variable.
        name: String,
        /// Why.
        reason: String,
    },
    /// The cluster secret is not one.
    #[error("{from}: {error}")]
    Secret {
        /// The file or variable.
        from: String,
        /// Why.
        error: SecretError,
    },
    /// `SHOAL_SECRET` and `SHOAL_SECRET_FILE` at once.
    #[error("the secret is given twice, directly and by file")]
    TwoSecrets,
    /// A setting without a default.
    #[error("setting `{setting}` is missing")]
    Missing {
        /// Which.
        setting: &'static str,
    },
    /// A name that is empty, too long, or has control characters.
    #[error("setting `{setting}` must have 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    BadName {
        /// Which.
        setting: &'static str,
    },
    /// An address that is not `host:port`.
    #[error("`{address}` is not host:port")]
    BadAddress {
        /// The address.
        address: String,
    },
    /// More addresses than travel in a hello.
    #[error("setting `{setting}` has more than {ADDRESSES_COUNT_MAX} addresses")]
    TooManyAddresses {
        /// Which.
        setting: &'static str,
    },
    /// Not 16 hex digits.
    #[error("`{text}` is not a cluster id (16 hex digits)")]
    BadClusterId {
        /// The text.
        text: String,
    },
    /// A count that must be at least 1.
    #[error("setting `{setting}` must not be 0")]
    Zero {
        /// Which.
        setting: &'static str,
    },
    /// No stores, or more than a node can have.
    #[error("setting `stores` must be from 1 to {CELLS_COUNT_MAX}")]
    BadStores,
    /// A limit of nothing, or beyond what frames and codec can carry.
    #[error("setting `limits.{setting}` must be from 1 to {max}")]
    BadLimit {
        /// Which.
        setting: &'static str,
        /// The largest value it may have.
        max: usize,
    },
    /// Beyond loopback without a secret.
    #[error("refusing to listen on {listen}, beyond loopback, without a cluster secret")]
    NoSecret {
        /// The address.
        listen: SocketAddr,
    },
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
    String::from_utf8(bytes)
        .map_err(|_| ConfigError::Toml { path: path.to_owned(), reason: "not UTF-8 text".to_owned() })
}

pub(super) fn parse<T: std::str::FromStr<Err: fmt::Display>>(name: &str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|error: T::Err| ConfigError::Variable { name: name.to_owned(), reason: error.to_string() })
}

/// `host:port`, both present, the host no longer than a DNS name may be.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    (1..=HOST_BYTES_MAX).contains(&host.len()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn cluster_id(text: &str) -> Result<ClusterId, ConfigError> {
    let bad = || ConfigError::BadClusterId { text: text.to_owned() };
    if text.len() != 16 {
        return Err(bad());
    }
    u64::from_str_radix(text, 16).map(ClusterId).map_err(|_| bad())
}

/// Where a node listens when it is not told.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT_DEFAULT);
/// The UDP port for everything.
pub const PORT_DEFAULT: u16 = 7400;
/// The smallest cluster that survives the loss of a node.
const EXPECT_DEFAULT: u16 = 3;
/// Any number will do as long as all nodes that are alike have the same; a hundred leaves room below.
const WEIGHT_DEFAULT: u32 = 100;
/// RFC 1035 §2.3.4.
const HOST_BYTES_MAX: usize = 255;
/// Names travel in every hello.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Settings, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Settings::from_file(file.path())
    }

    fn env(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::from_env(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn least() -> Settings {
        Settings { data_dir: Some("d".into()), name: Some("a".into()), ..Settings::default() }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = file("name = \"f\"\nzone = \"f\"\ncluster = \"f\"\ndata_dir = \"f\"").unwrap();
        let env =
            env(&[("SHOAL_NAME", "e"), ("SHOAL_ZONE", "e"), ("SHOAL_SEEDS", "x:1, y:2"), ("SHOAL_PORT", "tcp://")]);
        let flags = Settings { name: Some("flag".to_owned()), ..Settings::default() };
        let config = flags.over(env.unwrap()).over(file).resolve().unwrap();
        assert_eq!((&*config.name, &*config.zone, &*config.cluster), ("flag", "e", "f"));
        assert_eq!(config.seeds, ["x:1", "y:2"]);
        assert_eq!(config.listen, LISTEN_DEFAULT);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = file("nmae = \"a\"").unwrap_err().to_string();
        assert!(error.contains("nmae"), "{error}");
        // Founding alone must be asked for each time; a secret does not belong in a file others may read.
        assert!(file("found_alone = true").is_err());
        assert!(file("secret = \"00\"").is_err());
    }

    #[test]
    fn limits_come_from_all_layers_and_are_checked() {
        let lowest = file("name = \"a\"\ndata_dir = \"d\"\n[limits]\nrequests_max = 1\nsiblings_max = 2").unwrap();
        let env = env(&[("SHOAL_SIBLINGS_MAX", "3"), ("SHOAL_REQUEST_BYTES_MAX", "4")]).unwrap();
        let limits = env.over(lowest).resolve().unwrap().limits;
        assert_eq!((limits.node.requests_max, limits.node.objects.siblings_max), (1, 3));
        assert_eq!(limits.load.request_bytes_max, 4);
        let none = LimitSettings { link_requests_max: Some(0), ..LimitSettings::default() };
        let refused = Settings { limits: none, ..least() }.resolve().unwrap_err();
        assert!(matches!(refused, ConfigError::BadLimit { setting: "link_requests_max", .. }), "{refused}");
        assert!(file("[limits]\nrequest_max = 1").unwrap_err().to_string().contains("request_max"));
    }

    #[test]
    fn beyond_loopback_a_secret_is_needed() {
        let open = Settings { listen: Some("192.0.2.1:7400".parse().unwrap()), ..least() };
        assert!(matches!(open.clone().resolve(), Err(ConfigError::NoSecret { .. })));
        let secret = ClusterSecrets::parse(&"ab".repeat(32)).unwrap();
        assert!(Settings { secret: Some(secret), ..open }.resolve().is_ok());
    }

    #[test]
    fn a_secret_of_the_wrong_length_is_named_as_such() {
        let error = env(&[("SHOAL_SECRET", "abcd")]).unwrap_err();
        assert!(matches!(&error, ConfigError::Secret { error: SecretError::WrongLength { bytes: 2 }, .. }));
        assert!(!error.to_string().contains("abcd"));
    }

    #[test]
    fn bad_values_are_told_apart() {
        let check = |settings: Settings| settings.resolve().unwrap_err();
        assert!(matches!(check(Settings::default()), ConfigError::Missing { setting: "data_dir" }));
        let seeds = |seed: &str| Settings { seeds: Some(vec![seed.to_owned()]), ..least() };
        for seed in ["host", ":1", "host:", "host:0", "host:70000"] {
            assert!(matches!(check(seeds(seed)), ConfigError::BadAddress { .. }), "{seed}");
        }
        assert!(matches!(check(Settings { expect: Some(0), ..least() }), ConfigError::Zero { setting: "expect" }));
        assert!(matches!(check(Settings { zone: Some(String::new()), ..least() }), ConfigError::BadName { .. }));
        let id = |id: &str| Settings { cluster_id: Some(id.to_owned()), ..least() };
        assert!(matches!(check(id("12")), ConfigError::BadClusterId { .. }));
        assert_eq!(id("00000000000000ff").resolve().unwrap().cluster_id, Some(ClusterId(255)));
    }

    #[test]
    fn what_is_shown_reads_back_the_same_and_hides_the_secret() {
        let secret = "ab".repeat(32);
        let limits = LimitSettings { requests_max: Some(7), ..LimitSettings::default() };
        let config = Settings { secret: ClusterSecrets::parse(&secret).ok(), limits, ..least() }.resolve().unwrap();
        let shown = config.show().to_string();
        assert!(!shown.contains("abab") && shown.contains("secrets: 1"), "{shown}");
        assert!(shown.contains("[limits]\nrequests_max = 7\n"), "{shown}");
        let again = file(&shown).unwrap().resolve().unwrap();
        assert_eq!(ServerConfig { secrets: None, ..config }, again);
    }
}
