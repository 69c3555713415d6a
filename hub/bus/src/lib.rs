//! acb-hub-bus
