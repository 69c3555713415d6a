//! acb-isolation
