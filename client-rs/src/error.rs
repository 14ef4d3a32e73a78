//! What can go wrong, as an application sees it: one enum with stable codes.
//!
//! Shape: what a node answered (`Request`), or what this client found. `docs/errors.md` lists every code with what is true
//! then, what the caller may do, and the exit code of the command line; a test keeps the list and this file equal.
//! Invariant: `unknown` is never reported as success or as failure.

use shoal_protocol::address::AddressError;
use shoal_protocol::error::RequestError;
use shoal_protocol::object::TypeTag;

use crate::session::BoundOperation;

/// Why an operation did not return what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node refused, and nothing happened. What is true and what to do: see the inner error.
    #[error(transparent)]
    Request(RequestError),
    /// Some replica may have applied the operation. `Client::repeat` with `operation` is the retry and counts once; calling
    /// the method again is a new operation. Without a session there is nothing safe to repeat: read, then decide.
    #[error("unknown outcome: {reason}")]
    Unknown {
        /// The operation, bound; `None` for one that a node was to mint.
        operation: Option<Box<BoundOperation>>,
        /// What the last attempt met.
        reason: String,
    },
    /// No answer before the deadline, and nothing can have changed. Try again, or allow more time.
    #[error("no answer before the deadline")]
    Timeout,
    /// No node could be reached; nothing was sent. Check addresses and network, then try again.
    #[error("no node can be reached: {reason}")]
    Connect {
        /// What the last attempt met.
        reason: String,
    },
    /// A node was reached but is not of the cluster the URL names: its certificate is not from the pinned CA. Nothing was
    /// sent. Take the URL from `shoal connect-info` again.
    #[error("the node is not trusted: {reason}")]
    Untrusted {
        /// What does not fit.
        reason: String,
    },
    /// The URL, an address or another setting is wrong. Nothing was sent; correct it.
    #[error("{reason}")]
    Config {
        /// What is wrong.
        reason: String,
    },
    /// One value was asked for, and there are several siblings. Use `siblings` and write the merged value back.
    #[error("{count} siblings where one value was expected")]
    Siblings {
        /// How many.
        count: usize,
    },
    /// Concurrent writes have left several types under the key. Delete the key, or the types that should go.
    #[error("several types are live: {}", names(types))]
    TypeConflict {
        /// Which.
        types: Vec<TypeTag>,
    },
    /// A value cannot be made from, or read as, the type asked for. Nothing was sent.
    #[error("value: {reason}")]
    Value {
        /// What does not fit.
        reason: String,
    },
    /// A node answered with what this client cannot read. For a write: it may have been applied. Use equal versions.
    #[error("a node answered what this client cannot read: {reason}")]
    Protocol {
        /// What was wrong.
        reason: String,
    },
}

impl Error {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code(),
            Self::Unknown { .. } => "unknown",
            Self::Timeout => "timeout",
            Self::Connect { .. } => "connect",
            Self::Untrusted { .. } => "untrusted",
            Self::Config { .. } => "config",
            Self::Siblings { .. } => "siblings",
            Self::TypeConflict { .. } => "type_conflict",
            Self::Value { .. } => "value",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// The exit code of the command line for this error (DESIGN §12).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        exit_code(self.code())
    }

    /// Whether some replica may have applied the operation all the same.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        match self {
            Self::Request(error) => error.may_have_happened(),
            Self::Unknown { .. } | Self::Protocol { .. } => true,
            Self::Timeout
            | Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::Config { .. }
            | Self::Siblings { .. }
            | Self::TypeConflict { .. }
            | Self::Value { .. } => false,
        }
    }

    /// The bound operation of an unknown outcome.
    #[must_use]
    pub fn operation(&self) -> Option<&BoundOperation> {
        match self {
            Self::Unknown { operation, .. } => operation.as_deref(),
            Self::Request(_)
            | Self::Timeout
            | Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::Config { .. }
            | Self::Siblings { .. }
            | Self::TypeConflict { .. }
            | Self::Value { .. }
            | Self::Protocol { .. } => None,
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Self {
        Self::Config { reason: error.to_string() }
    }
}

/// The exit code of the command line for an error code: 1 failure, 2 usage, 3 not found, 4 unavailable, 5 conflict,
/// 6 timeout or unknown, 7 auth.
#[must_use]
pub fn exit_code(code: &str) -> u8 {
    EXIT_CODES.iter().find(|(listed, _)| *listed == code).map_or(1, |(_, exit)| *exit)
}

/// Every code, and its exit code.
pub const EXIT_CODES: &[(&str, u8)] = &[
    ("bad_request", 2),
    ("unknown_keyspace", 3),
    ("layout_refused", 5),
    ("keyspace_gone", 3),
    ("keyspace_exists", 5),
    ("wrong_type", 5),
    ("limit", 1),
    ("context_mismatch", 5),
    ("context_invalid", 5),
    ("forged_context", 7),
    ("context_lost", 1),
    ("stale", 6),
    ("clock_skew", 1),
    ("session_expired", 7),
    ("foreign_session", 7),
    ("too_few_nodes", 4),
    ("unknown", 6),
    ("unavailable", 4),
    ("overloaded", 4),
    ("not_serving", 4),
    ("disk_full", 4),
    ("hints_full", 4),
    ("incompatible", 1),
    ("timeout", 6),
    ("connect", 4),
    ("untrusted", 7),
    ("config", 2),
    ("siblings", 5),
    ("type_conflict", 5),
    ("value", 1),
    ("protocol", 1),
];

fn names(types: &[TypeTag]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The codes a source file can answer: the strings right of `=>` in its `code` functions.
    fn codes_in(source: &str) -> BTreeSet<&str> {
        source.lines().filter_map(|line| line.trim().split_once("=> \"")?.1.strip_suffix("\",")).collect()
    }

    #[test]
    fn every_code_is_in_the_table_and_in_the_docs_with_its_exit_code() {
        let mut in_code = codes_in(include_str!("../../protocol/src/error.rs"));
        assert!(in_code.len() > 20, "the protocol's codes were not found");
        in_code.extend(codes_in(include_str!("error.rs")));
        let in_table: BTreeSet<&str> = EXIT_CODES.iter().map(|(code, _)| *code).collect();
        assert_eq!(in_table, in_code);
        assert_eq!(in_table.len(), EXIT_CODES.len(), "a code is listed twice");

        let rows = include_str!("../../docs/errors.md").lines().filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let code = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            assert_eq!(cells.len(), 6, "{line}");
            assert!(!cells[2].is_empty() && !cells[3].is_empty(), "{code} says nothing");
            Some((code, cells[4].parse().unwrap()))
        });
        let in_docs: BTreeSet<(&str, u8)> = rows.collect();
        assert_eq!(in_docs, EXIT_CODES.iter().copied().collect());
    }

    #[test]
    fn an_unknown_outcome_has_its_own_code_whoever_found_it() {
        let found = Error::Unknown { operation: None, reason: String::new() };
        let answered = Error::from(RequestError::Unknown { acked: 1, needed: 2 });
        assert_eq!((found.code(), found.exit_code()), ("unknown", 6));
        assert_eq!(answered.code(), found.code());
    }
}
