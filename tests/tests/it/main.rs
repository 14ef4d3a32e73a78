//! All integration tests in one binary: one link, not one for each file.

mod tidy;
