//! What is to be done later, and once.

mod timer;
