//! `acb isolation`: attacks a tenant's neighbours with that tenant's own credentials, as the state folder has them, or the pod that this runs in.

mod arguments;
mod pod;
mod report;
mod state;

pub(crate) use self::arguments::IsolationArgs;
use self::report::{attack, say};
use crate::output::{Failure, Output};

/// Runs the attacks. Fails where one was not refused.
pub(crate) async fn run(args: &IsolationArgs, output: Output) -> Result<(), Failure> {
    if args.cluster {
        return pod::run(args, output).await;
    }
    let (attacker, victims) = state::prepare(args).await?;
    if victims.is_empty() {
        return Err(Failure::failed(format!("{} has no neighbour to attack: add another Tenant to the folder", args.tenant)));
    }
    let report = attack(&attacker, &victims, output, |_| ()).await;
    say(&report, output)?;
    match report.breaches().count() {
        0 => Ok(()),
        breaches => Err(Failure::failed(format!("{breaches} attacks of {} were not refused", args.tenant))),
    }
}
