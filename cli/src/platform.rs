//! Which of the two a command looks at: what `acb dev` runs here, or a cluster. One rule for all commands, and it is said first.

use clap::Args;

use crate::{
    cluster::ClusterArgs,
    output::{self, Output},
    standalone::State,
};

/// Where ACB runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Platform {
    /// What `acb dev` runs on this machine.
    #[default]
    Dev,
    /// A cluster.
    Cluster,
}

/// Which of them.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlatformArgs {
    /// What `acb dev` runs on this machine, or a cluster. `--cluster`, `--kube-context` and `--kubeconfig` say `cluster`, too.
    #[arg(long, value_enum, default_value_t, env = "ACB_TARGET", value_name = "WHERE")]
    target: Platform,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

impl PlatformArgs {
    /// Whether it is a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.target == Platform::Cluster || self.cluster.is_given()
    }

    /// Says which one it is, before anything is done or shown.
    pub(crate) fn say(&self, output: Output) {
        let place = if self.is_cluster() {
            self.cluster.place().describe()
        } else {
            format!("acb dev, state in {}", self.state.path().display())
        };
        output::note(output, &format!("On {place}:"));
    }
}
