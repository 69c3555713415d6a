//! `acb audit`: who did what, and whether anybody changed what is written about it.

mod export;
mod filter;
mod follow;
mod list;
mod prove;
mod verify;
mod view;

use crate::output::{Failure, Output};

/// Lists, exports and verifies the audit trail of the tenant. Takes the role auditor or admin.
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists audit records, in the order in which they were logged.
    List(list::List),
    /// Shows audit records as they are logged.
    ///
    /// For a copy that can be verified: `acb audit export --follow`.
    Follow(follow::Follow),
    /// Prints audit records as JSON lines, with the latest signed checkpoint before them: what `acb audit verify` reads.
    Export(export::Export),
    /// Verifies that no record was changed, removed, put in between or reordered since it was signed, and names the first that is wrong.
    ///
    /// Of a file that was exported, or of what the hub has.
    Verify(verify::Verify),
    /// Proves that one record is in the signed trail.
    Prove(prove::Prove),
}

impl Audit {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(output).await,
            Command::Follow(follow) => follow.run(output).await,
            Command::Export(export) => export.run().await,
            Command::Verify(verify) => verify.run(output).await,
            Command::Prove(prove) => prove.run(output).await,
        }
    }
}
