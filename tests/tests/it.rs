//! The integration tests of the whole project, in one binary: one link instead of many.

mod it {
    mod replay;
    mod tidy;
}
