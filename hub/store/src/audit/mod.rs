//! Who did what.

mod trail;
