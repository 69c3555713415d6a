//! How much is measured.

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) samples: u32,
    pub(crate) runs: u32,
    pub(crate) tenants: u32,
    pub(crate) acknowledged: u32,
    pub(crate) agents: u32,
}
