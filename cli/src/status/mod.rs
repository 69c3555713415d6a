//! `acb status`: how a tenant is, on one page.

mod cluster;
mod dev;
mod lag;
mod page;

use acb_crds::names::TenantName;
use clap::Args;

use crate::{
    output::{Failure, Output},
    platform::PlatformArgs,
};

/// Whose status.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(subcommand)]
    of: Of,
}

#[derive(clap::Subcommand, Debug)]
enum Of {
    /// A tenant: its hub, agents and credentials, what happened last, and what it waits for.
    Tenant(OfTenant),
}

#[derive(Args, Debug)]
struct OfTenant {
    /// Its name.
    #[arg(value_parser = TenantName::parse)]
    name: TenantName,
    #[command(flatten)]
    platform: PlatformArgs,
}

/// Shows it.
pub(crate) async fn run(args: &StatusArgs, output: Output) -> Result<(), Failure> {
    let Of::Tenant(of) = &args.of;
    of.platform.say(output);
    let status = if of.platform.is_cluster() {
        cluster::look(&of.platform.cluster.place().open().await?, &of.name).await?
    } else {
        dev::look(&of.platform.state, &of.name).await?
    };
    match output {
        Output::Document(syntax) => syntax.document(&status),
        Output::Table { .. } => status.show(),
    }
}
