//! The seam under a connection: an address becomes a byte stream.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A bidirectional byte stream to a node; it ends when both halves are dropped.
pub(crate) struct Stream {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Why there is no stream. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    /// Nobody answers there.
    #[error("{address}: {reason}")]
    Unreachable { address: String, reason: String },
    /// Somebody answers who is not of the cluster.
    #[error("{address}: {reason}")]
    Untrusted { address: String, reason: String },
}

/// A stream on its way.
pub(crate) type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send + 'a>>;

/// Makes streams.
pub(crate) trait Dial: Send + Sync + 'static {
    /// A stream to the node at `address` (`host:port`), the name resolved anew.
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a>;
}
