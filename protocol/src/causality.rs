//! Causality: which events a state, a delta or a client has seen.
//!
//! What: a `Dot` is one event; a `Context` is a set of them; an `EncodedContext` is a context in a client's hands, sealed
//! so that it cannot be forged or used for another address. Sources: DESIGN §4; Almeida, Shoker, Baquero, "Delta State
//! Replicated Data Types" (2018); Preguiça et al., "Dotted Version Vectors" (2012).

mod actors;
mod context;
mod dot;
mod encoded;

pub(crate) use actors::ActorTable;
pub use context::Context;
pub use dot::Dot;
pub use encoded::{ContextError, ContextKey, ContextKeys, EncodedContext};

pub use crate::msgpack::DecodeError;
