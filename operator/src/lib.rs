//! acb-operator
