//! An API server of wood: it keeps objects, their versions and who watches them, so that thousands of tenants fit beside the operator on one
//! machine. It knows no right, no admission and no default, and each Deployment is rolled out as soon as it is written. What the operator asks
//! it, and holds of its answers, is what a real one would be asked; what an answer takes is not.

mod http;
mod path;
mod store;

pub(super) use self::{http::serve, path::Kind, store::Store};
