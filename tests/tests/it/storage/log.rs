//! The log alone, under crashes, errors and flipped bits.
//!
//! Judged from outside: what was appended well is visited again, in order and unchanged, whatever happened; a torn tail is
//! never called damage; and of damaged content nothing is shown, and what is missing is named.

mod crash;
mod damage;
mod fault;
mod life;
mod rig;
