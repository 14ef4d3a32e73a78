//! A node of a Shoal cluster.

pub mod ring;
pub mod system;
