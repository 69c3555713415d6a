//! acb-hub-api
