//! Settings of a client.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::Client;
use super::engine::{Engine, Settings};
use super::shared_session::SharedSession;
use crate::error::Error;
use crate::quic::QuicDial;
use crate::retry::RetryBudget;
use crate::session::StoredSession;
use crate::transport::{Clock, Dial, Greeting, Pool, RouteTable};
use crate::url::ClusterUrl;

/// Settings; `Client::builder()` begins.
#[derive(Debug)]
pub struct Builder {
    access_token: Option<String>,
    deadline: Duration,
    session: Option<StoredSession>,
    sessionless: bool,
    unrouted: bool,
    software: String,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            access_token: None,
            deadline: DEADLINE_DEFAULT,
            session: None,
            sessionless: false,
            unrouted: false,
            software: concat!("shoal-client/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

impl Builder {
    /// The access token to present. Without it, `SHOAL_TOKEN` or the file that `SHOAL_TOKEN_FILE` names is used.
    #[must_use]
    pub fn access_token(self, token: impl Into<String>) -> Self {
        Self { access_token: Some(token.into()), ..self }
    }

    /// How long a request may take, retries included, unless its handle says otherwise. 5 s by default.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Goes on with a session that another process has suspended.
    #[must_use]
    pub fn session(self, session: StoredSession) -> Self {
        Self { session: Some(session), ..self }
    }

    /// Lets nodes mint every write: at least once, and never repeated once it may have happened. For callers that cannot
    /// hold any state; everybody else is better off with a session.
    #[must_use]
    pub fn sessionless(self) -> Self {
        Self { sessionless: true, ..self }
    }

    /// Asks the nodes of the URL only, never those it learns of: behind a tunnel, or to see things from one node's side.
    #[must_use]
    pub fn unrouted(self) -> Self {
        Self { unrouted: true, ..self }
    }

    /// What this program calls itself in the nodes' logs.
    #[must_use]
    pub fn software(self, name_and_version: impl Into<String>) -> Self {
        Self { software: name_and_version.into(), ..self }
    }

    /// Connects to some node of the cluster.
    ///
    /// # Errors
    /// `config`, `connect`, `untrusted`, or what the node said.
    pub async fn connect(self, url: &str) -> Result<Client, Error> {
        let url: ClusterUrl = url.parse()?;
        let access_token = match self.access_token.clone() {
            Some(token) => Some(token),
            None => token_of_environment()?,
        };
        let dial = Arc::new(QuicDial::new(url.ca)?);
        self.connect_over(dial, url.addresses, access_token).await
    }

    pub(crate) async fn connect_over(
        self,
        dial: Arc<dyn Dial>,
        addresses: Vec<String>,
        access_token: Option<String>,
    ) -> Result<Client, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Error::Config { reason: format!("no randomness: {error}") })?;
        let engine = Engine {
            settings: Settings { deadline: self.deadline, sessionless: self.sessionless, unrouted: self.unrouted },
            pool: Pool::new(dial, Greeting { access_token, software: self.software }),
            clock: Clock::start(),
            rng: Mutex::new(ChaCha8Rng::from_seed(seed)),
            budget: Mutex::new(RetryBudget::default()),
            routes: RouteTable::new(&addresses),
            keyspaces: Mutex::default(),
            session: Mutex::new(self.session.map(|stored| Arc::new(SharedSession::new(stored.resume())))),
            renewing: tokio::sync::Mutex::default(),
        };
        engine.reach().await?;
        Ok(Client { engine: Arc::new(engine) })
    }
}

#[expect(clippy::disallowed_methods, reason = "the client's one reading of a file: the access token its user named")]
fn token_of_environment() -> Result<Option<String>, Error> {
    if let Ok(token) = std::env::var("SHOAL_TOKEN") {
        return Ok(Some(token));
    }
    let Some(path) = std::env::var_os("SHOAL_TOKEN_FILE") else { return Ok(None) };
    let wrong = |reason: String| Error::Config { reason: format!("SHOAL_TOKEN_FILE: {reason}") };
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let token = String::from_utf8(bytes).map_err(|_| wrong("not text".into()))?;
    Ok(Some(token.trim().to_owned()))
}

/// DESIGN §12.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
