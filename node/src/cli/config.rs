//! A server's configuration: file, `SHOAL_*`, flags; and what clients can learn from it without a server.

use std::path::PathBuf;

use shoal_client::url::ClusterUrl;

use super::failure::{CONFIG, Failure};
use super::output::Output;
use crate::host::config::{ServerConfig, Settings};
use crate::host::secret::ClusterSecrets;
use crate::host::tls::ClusterCa;

/// Where a server's settings come from.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Source {
    /// File with settings (TOML).
    #[arg(long, env = "SHOAL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Settings,
}

impl Source {
    /// Flags over `SHOAL_*` over the file over defaults.
    pub(super) fn resolve(self) -> Result<ServerConfig, Failure> {
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let environment = environment.filter(|(name, _)| name.starts_with("SHOAL_"));
        let variables = environment.map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Failure::new(CONFIG, format!("{name} is not UTF-8"))),
        });
        let environment = Settings::from_env(variables.collect::<Result<Vec<_>, _>>()?)?;
        let file = self.config.map(|path| Settings::from_file(&path)).transpose()?.unwrap_or_default();
        Ok(self.flags.over(environment).over(file).resolve()?)
    }

    /// Whether a file was named.
    pub(super) const fn names_a_file(&self) -> bool {
        self.config.is_some()
    }
}

/// Look at a server's configuration, without starting it.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Succeed if a server could start with it.
    Check(Source),
    /// Print it as the server sees it, without secrets.
    Show(Source),
}

pub(super) fn run(command: Command, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Check(source) => {
            source.resolve()?;
            if out.is_json() { out.document(&serde_json::json!({ "ok": true })) } else { out.line("ok") }
        }
        Command::Show(source) => {
            let shown = source.resolve()?.show().to_string();
            if !out.is_json() {
                return out.bytes(shown.as_bytes());
            }
            let table: serde_json::Value = toml::from_str(&shown).map_err(|error| Failure::new(CONFIG, error))?;
            out.document(&table)
        }
    }
}

/// The URL of the one node that runs with `config`.
pub(super) fn url_of(config: &ServerConfig) -> Result<ClusterUrl, Failure> {
    let secrets = config.secrets.clone().unwrap_or_else(ClusterSecrets::public);
    let ca = ClusterCa::derive(secrets.first())?.pin().parse()?;
    let advertised = [&config.advertise_client, &config.advertise_peer].into_iter().find(|list| !list.is_empty());
    let addresses = advertised.cloned().unwrap_or_else(|| vec![config.listen.to_string()]);
    Ok(ClusterUrl { addresses, ca })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(flags: Settings) -> Source {
        Source { config: None, flags }
    }

    #[test]
    fn the_url_of_a_configuration_is_where_clients_reach_it() {
        let least = Settings { data_dir: Some("d".into()), name: Some("a".into()), ..Settings::default() };
        let local = source(least.clone()).resolve().unwrap();
        assert_eq!(url_of(&local).unwrap().addresses, ["127.0.0.1:7400"]);
        let advertised = Settings { advertise_client: Some(vec!["db.example:7400".into()]), ..least };
        let advertised = source(advertised).resolve().unwrap();
        assert_eq!(url_of(&advertised).unwrap().addresses, ["db.example:7400"]);
    }
}
