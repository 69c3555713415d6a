//! Who attacks whom.

use std::path::PathBuf;

use acb_isolation::Thing;
use clap::Args;
use uuid::Uuid;

use crate::standalone::State;

/// Who attacks whom.
#[derive(Args, Debug)]
pub(crate) struct IsolationArgs {
    /// The tenant whose credentials are used.
    pub(super) tenant: String,
    /// A tenant to attack; can be repeated [default: every other tenant].
    #[arg(long, value_name = "TENANT", conflicts_with = "cluster")]
    pub(super) against: Vec<String>,
    /// A context of the tenant under attack, by its id [default: one that does not exist].
    #[arg(long, value_name = "ID")]
    pub(super) context: Option<Uuid>,
    /// An upload of the tenant under attack, by its id [default: one that does not exist].
    #[arg(long, value_name = "ID")]
    pub(super) upload: Option<Uuid>,
    /// Attack from within a cluster, as the Job that the operator starts: with what the hub has in the folder ACB_CONFIG_DIR, whom ACB_ISOLATION_MISSION names. What came of it is the termination message of the container.
    #[arg(long)]
    pub(super) cluster: bool,
    /// Where `--cluster` writes what came of it [default: /dev/termination-log].
    #[arg(long, value_name = "FILE", requires = "cluster", hide = true)]
    pub(super) told: Option<PathBuf>,
    #[command(flatten)]
    pub(super) state: State,
}

impl IsolationArgs {
    /// What of the neighbours is not named by hand, and has an id that nothing has.
    pub(super) fn invented(&self) -> impl Iterator<Item = Thing> {
        let context = self.context.is_none().then_some(Thing::Context);
        context.into_iter().chain(self.upload.is_none().then_some(Thing::Upload))
    }
}

/// An id that nothing has, of the form that all have: what is not there and what is not shown must look the same.
pub(super) const NONEXISTENT: Uuid = Uuid::from_u128(0x6f1d_7c1e_52a4_4c3b_9d0e_8a7b_6c5d_4e3f);
