//! A server met from outside: by strangers, by clients that break the rules, and by its own kind.

mod caller;
mod cluster;
mod limits;
mod meeting;
mod members;
mod refusals;
mod start;
