//! The data directory of a node that does not run, for the command line to look into.
//!
//! Shape: `DirectoryDisk` is opened like a server opens it, so that nothing runs on it meanwhile; the rest is what storage
//! and node say of their own files.

pub use super::disk::DirectoryDisk;
pub use crate::node::stored_digest_key;
pub use crate::storage::CellPlace;
pub use crate::storage::engine::cells::{directory, directory_name};
pub use crate::storage::engine::inspect::{Identity, Inspection, StoppedStore, Verification};
pub use crate::storage::engine::log::{SegmentInfo, SegmentState};
pub use crate::storage::engine::{LogMode, OpenError};
