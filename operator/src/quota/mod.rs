//! From a Quota and the world to a status. A Quota has no steps of its own: it is an input of the plans of its Tenant and Agents, so
//! that an effective limit is decided in one place.

pub mod status;
pub mod validate;
