//! Connections to nodes, whatever carries their bytes.
//!
//! Shape: `Dial` makes a byte stream, `Connection` multiplexes requests over it, `Pool` keeps connections to several nodes
//! and knows which of them answer, `RouteTable` knows which of them hold a key. QUIC is one `Dial`; the tests bring another.

mod clock;
mod connection;
mod dial;
mod pool;
mod routes;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use clock::Clock;
pub(crate) use connection::Connection;
pub(crate) use dial::{Dial, DialError, Dialing, Stream};
pub(crate) use pool::{Greeting, Pool, Target};
pub(crate) use routes::{Candidates, RouteTable};

/// Locks a mutex that is never held across a panic that matters: the state behind it stays consistent line by line.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
