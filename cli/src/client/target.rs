//! Which hub a command speaks to.

use acb_sdk::Client;

use super::profile::Profiles;
use crate::output::{Exit, Failure};

const PROFILE: &str = "ACB_PROFILE";

/// Which hub, as whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The profile to use [default: the current one, see `acb profile list`].
    #[arg(short, long, env = PROFILE, value_name = "NAME")]
    profile: Option<String>,
    /// Was the name of the same. Named so, it would choose nothing, and the command would speak as somebody else.
    #[arg(short, long, env = "ACB_CONTEXT", hide = true, hide_env = true, value_name = "NAME")]
    context: Option<String>,
}

impl Target {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        if self.context.is_some() {
            let hint = "`--context` (`-c`) is now `--profile` (`-p`), and ACB_CONTEXT is now ACB_PROFILE";
            return Err(Failure::new(Exit::Usage, hint));
        }
        let profiles = Profiles::load()?;
        let profile = profiles.choose(self.profile.as_deref())?;
        profile.connect(&format!("profile {:?}", profile.name)).await
    }

    /// The profile that commands of this shell use.
    pub(super) fn from_environment() -> Option<String> {
        std::env::var(PROFILE).ok().filter(|name| !name.is_empty())
    }
}
