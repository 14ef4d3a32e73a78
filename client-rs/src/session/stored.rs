//! A session between two processes: what a command line keeps in a file.
//!
//! Rule for whoever keeps it: one process at a time, and take it out of the file before the first operation (remove the
//! file, put the new one in its place at the end). A process that dies in between then leaves no session, and the next one
//! asks for a new one: dots are never used twice, totals never lost.
//! Shape: a version byte, then MessagePack.

use serde::{Deserialize, Serialize};
use shoal_protocol::address::Place;
use shoal_protocol::client::SessionGrant;
use shoal_protocol::codec;
use shoal_protocol::object::{Path, Totals};
use shoal_protocol::time::Hlc;

use super::Session;
use super::chain::Chain;
use super::totals::TotalsTable;

/// A suspended session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    grant: SessionGrant,
    last_dot: u64,
    hlc: Hlc,
    places: Vec<(Place, u64)>,
    has_forgotten: bool,
    totals: Vec<((Place, Path), Totals)>,
}

/// The bytes are no stored session. Take a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stored session: {reason}")]
pub struct StoredSessionError {
    reason: String,
}

impl StoredSession {
    pub(super) fn of(session: Session) -> Self {
        let (places, has_forgotten) = session.chain.into_parts();
        Self {
            grant: session.grant,
            last_dot: session.last_dot,
            hlc: session.hlc,
            places,
            has_forgotten,
            totals: session.totals.into_parts(),
        }
    }

    /// The session, to go on with.
    #[must_use]
    pub fn resume(self) -> Session {
        Session {
            last_dot: self.last_dot,
            hlc: self.hlc,
            chain: Chain::from_parts(self.places, self.has_forgotten),
            totals: TotalsTable::from_parts(self.totals),
            ..Session::new(self.grant)
        }
    }

    /// As bytes for a file. They hold the session's proof: keep the file private.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&codec::encode(self));
        bytes
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// The bytes are anything else, or of a version not known here.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoredSessionError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => {
                codec::decode(rest).map_err(|error| StoredSessionError { reason: error.to_string() })
            }
            Some((version, _)) => Err(StoredSessionError { reason: format!("version {version} is unknown") }),
            None => Err(StoredSessionError { reason: "empty".into() }),
        }
    }
}

const VERSION: u8 = 1;
