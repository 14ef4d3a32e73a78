//! The simulated world, checkers, end-to-end tests, and the rules of the house.

pub mod sim;
