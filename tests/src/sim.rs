//! The simulated world: everything around the real code that can fail, failing on purpose and from a seed.

pub mod disk;
