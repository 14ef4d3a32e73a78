//! Laws of contexts and objects, on random reachable states.
//!
//! What: `history` draws operations of every type by three minters with lost knowledge in between; every law is then tried
//! on joins of random parts of the deltas it made. One fixed seed; other histories with `PROPTEST_RNG_SEED`,
//! more with `PROPTEST_CASES`.

mod laws {
    mod codec;
    mod context;
    mod differential;
    mod history;
    mod merging;
    mod work;
}
