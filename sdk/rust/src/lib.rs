//! acb-sdk
