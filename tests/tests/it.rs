//! The integration tests of the whole project, in one binary: one link instead of many.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests write files and start processes; the worlds in src do not"
)]

mod it {
    mod client;
    mod e2e_cli;
    mod e2e_debian;
    mod host;
    mod oracle;
    mod replay;
    mod sim;
    mod storage;
    mod tidy;
}
