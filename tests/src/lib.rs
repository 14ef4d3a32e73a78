//! What the tests of Shoal share.

pub mod tidy;
