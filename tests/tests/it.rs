//! The integration tests of the whole project, one binary.

mod it {
    mod oracle;
    mod replay;
}
