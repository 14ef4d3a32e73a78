//! What Shoal is tested with: worlds, checkers, tools.

pub mod oracle;
pub mod replay;
