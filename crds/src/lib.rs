//! acb-crds
