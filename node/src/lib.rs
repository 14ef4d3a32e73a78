//! A node of a Shoal cluster: rooms without I/O, and the host that runs them.

pub mod storage;
