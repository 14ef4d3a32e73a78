//! The native client of Shoal.
//!
//! What: `session` and `retry` decide (no I/O, no clock, no tokio: they build for a browser too).
pub mod retry;
pub mod session;
