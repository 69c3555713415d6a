//! acb-hub-store
