//! How a command fails: a code, a sentence, perhaps a hint, and the exit code.
//!
//! Codes of the client and the cluster come from `shoal_client`; the others are the constants here, listed in docs/cli.md.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use shoal_client::BoundOperation;
use shoal_protocol::address::{Address, AddressError};

use super::output::note;
use crate::host::config::ConfigError;
use crate::host::tls::TlsError;
use crate::host::{ServerFailure, StartError};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
    /// What may have been applied, and can be sent again.
    operation: Option<Box<BoundOperation>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Coded {
        code: &'static str,
        exit: u8,
    },
    /// Whoever read our standard output has gone: nothing to say, and nobody to say it to.
    ReaderGone,
}

impl Failure {
    pub(super) fn new((code, exit): (&'static str, u8), message: impl fmt::Display) -> Self {
        Self { kind: Kind::Coded { code, exit }, message: message.to_string(), hint: None, operation: None }
    }

    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::new(USAGE, message)
    }

    pub(super) fn not_found(address: &Address) -> Self {
        Self::new(NOT_FOUND, format!("nothing at {address}"))
    }

    /// A file that cannot be read, written or locked.
    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        Self::new(IO, format!("{}: {error}", path.display()))
    }

    pub(super) fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// The operation of an unknown outcome.
    pub(super) fn operation(&self) -> Option<&BoundOperation> {
        self.operation.as_deref()
    }

    /// Says it on standard error.
    pub(super) fn report(&self) -> ExitCode {
        match self.kind {
            Kind::ReaderGone => ExitCode::SUCCESS,
            Kind::Coded { exit, .. } => {
                note(self);
                ExitCode::from(exit)
            }
        }
    }

    pub(super) const fn code(&self) -> &'static str {
        match self.kind {
            Kind::Coded { code, .. } => code,
            Kind::ReaderGone => "reader_gone",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code(), self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

impl From<shoal_client::Error> for Failure {
    fn from(error: shoal_client::Error) -> Self {
        let operation = error.operation().cloned().map(Box::new);
        let failure = Self { operation, ..Self::new((error.code(), error.exit_code()), &error) };
        match error.code() {
            "unknown" => failure.hint("read before you repeat it: running the command again is a new operation"),
            "unknown_keyspace" => failure.hint("`shoal keyspace list` shows what there is"),
            "wrong_type" => failure.hint("`shoal del` removes what is there, of any type"),
            _ => failure,
        }
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Self::usage(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { kind: Kind::ReaderGone, message: String::new(), hint: None, operation: None };
        }
        Self::new(IO, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(CONFIG, error)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::new(SYSTEM, error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => error.into(),
            StartError::PortInUse { .. } => Self::new(PORT_IN_USE, error),
            StartError::Listen { .. } => Self::new(LISTEN, error),
            StartError::Store { .. } | StartError::State { .. } => Self::new(DATA_DIR, error),
            StartError::Tls(error) => error.into(),
            StartError::System { .. } => Self::new(SYSTEM, error),
        }
    }
}

impl From<ServerFailure> for Failure {
    fn from(error: ServerFailure) -> Self {
        Self::new(ENDED, error)
    }
}

/// The command line asks for something that makes no sense.
pub(super) const USAGE: (&str, u8) = ("usage", 2);
/// A setting is missing or wrong. The same code as the client's.
pub(super) const CONFIG: (&str, u8) = ("config", 2);
/// The key holds nothing.
pub(super) const NOT_FOUND: (&str, u8) = ("not_found", 3);
/// A file or stream of this machine.
pub(super) const IO: (&str, u8) = ("io", 1);
/// Somebody listens there already.
pub(super) const PORT_IN_USE: (&str, u8) = ("port_in_use", 1);
/// The address cannot be listened on.
pub(super) const LISTEN: (&str, u8) = ("listen", 1);
/// The data directory is locked, of another node, of a newer format, or damaged.
pub(super) const DATA_DIR: (&str, u8) = ("data_dir", 1);
/// The system gave no thread, randomness or certificate.
pub(super) const SYSTEM: (&str, u8) = ("system", 1);
/// A node ended by itself.
pub(super) const ENDED: (&str, u8) = ("node_ended", 1);
/// A node runs, and takes no requests yet. The same code as the cluster's.
pub(super) const NOT_SERVING: (&str, u8) = ("not_serving", 4);
/// Replicas were missing: rows may be, too.
pub(super) const INCOMPLETE: (&str, u8) = ("incomplete", 4);
/// Some lines were not imported.
pub(super) const IMPORT: (&str, u8) = ("import", 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_code_sentence_and_hint() {
        let failure = Failure::usage("no").hint("yes");
        assert_eq!(failure.to_string(), "error[usage]: no\n  hint: yes");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(gone.kind, Kind::ReaderGone);
        assert_eq!(Failure::from(io::Error::other("x")).code(), "io");
    }

    #[test]
    fn the_document_lists_every_code_of_the_command_line_with_its_exit_code() {
        let document = include_str!("../../../docs/cli.md");
        for (code, exit) in [USAGE, NOT_FOUND, IO, PORT_IN_USE, LISTEN, DATA_DIR, SYSTEM, ENDED, INCOMPLETE, IMPORT] {
            let row = document.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
            let row = row.unwrap_or_else(|| panic!("{code} is not in docs/cli.md"));
            assert!(row.ends_with(&format!("| {exit} |")), "{row}");
        }
    }
}
