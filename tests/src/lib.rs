//! The simulated world, checkers, tools, and the rules of the house.

pub mod oracle;
pub mod replay;
pub mod sim;
pub mod tidy;
