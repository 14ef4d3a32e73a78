//! A node of a Shoal cluster.

#[cfg(feature = "host")]
pub mod host;
