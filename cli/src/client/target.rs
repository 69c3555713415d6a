//! Which hub a command speaks to.

use acb_sdk::Client;

use super::profile::Profiles;
use crate::output::Failure;

/// Which hub, as whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The context to use; default: the current one, see `acb contexts list`.
    #[arg(short, long, env = "ACB_CONTEXT")]
    context: Option<String>,
}

impl Target {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let profiles = Profiles::load()?;
        let profile = profiles.choose(self.context.as_deref())?;
        profile.connect(&format!("context {:?}", profile.name)).await
    }
}
