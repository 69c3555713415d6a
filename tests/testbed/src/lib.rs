//! acb-testbed
