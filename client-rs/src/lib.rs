//! The native client of Shoal.
//!
//! What: `session` binds operations and `retry` decides when to try again, both without I/O, clock or randomness of their
//! own, so that a browser client shares them; with the feature `quic` (default), `Client` does the rest over QUIC.
//!
//! ```no_run
//! # async fn example() -> Result<(), shoal_client::Error> {
//! let client = shoal_client::Client::connect(&std::env::var("SHOAL_URL").unwrap_or_default()).await?;
//! let chat = client.keyspace("app").await?.collection("chat")?;
//! let topic = chat.register("topic")?;
//! topic.update(|_siblings: Vec<String>| "fish".to_owned()).await?;
//! assert_eq!(topic.read().await?.value::<String>()?.as_deref(), Some("fish"));
//! # Ok(()) }
//! ```
//!
//! Rooms: session, retry, nested, value, url, error (no I/O); transport (connections), quic (one transport), client (the
//! handles). Invariant: `cargo check --no-default-features` builds for wasm32.

pub mod error;
pub mod nested;
pub mod retry;
pub mod session;
pub mod url;
pub mod value;

#[cfg(feature = "quic")]
mod client;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "quic")]
mod transport;

pub use shoal_protocol::address::{Address, KeyspaceName};
pub use shoal_protocol::causality::EncodedContext;
pub use shoal_protocol::client::{
    KeyspaceChange, KeyspaceInfo, KeyspaceLayout, KeyspaceSpec, MemberStatus, MemberView, NodeEndpoint, QuorumMode,
    Routes, Status, Written,
};
pub use shoal_protocol::error::RequestError;
pub use shoal_protocol::id::Class;
pub use shoal_protocol::member::Liveness;
pub use shoal_protocol::object::{Conflict, ContentType, Element, Operation, Value, View};

#[cfg(feature = "quic")]
pub use client::{
    Batch, BatchAnswer, Builder, Client, Collection, Count, Counter, Cursor, Entry, Flag, Key, Keyspace, Map, Page,
    Register, Row, Rows, Scan, Set, Snapshot,
};
pub use error::Error;
pub use session::{BoundOperation, StoredSession};
