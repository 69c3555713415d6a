//! `acb audit export`.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{TryStreamExt as _, pin_mut};
use serde_json::{Value, json};

use acb_sdk::{AuditClaim, AuditQuery, Client, Code, Error, v1::GetAuditCheckpointResponse};

use super::{filter::Filter, verify::note, view};
use crate::{
    client::{refusal::refused, target::Target},
    output::{self, Failure, Syntax},
    stop::Stop,
};

/// How often is asked what was signed since, while the trail is followed: the hub signs every minute.
const SIGNED_EVERY: Duration = Duration::from_secs(30);

/// Prints audit records as JSON lines.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    filter: Filter,
    /// A checkpoint that was kept: adds the proof that the trail went on from it, where the export begins after it. May be given several times.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Goes on with what is logged from then on, and with each checkpoint that is signed, until it is stopped.
    #[arg(long, conflicts_with = "older_than")]
    follow: bool,
}

impl Export {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut sizes = self.checkpoint.iter().map(|path| size(path)).collect::<Result<Vec<_>, _>>()?;
        let client = self.target.connect().await?;
        let mut next = self.filter.from();
        let query = self.filter.query();
        // First: every record that it is about is there when the records are read.
        match client.audit_checkpoint().await {
            Ok(signed) => {
                sizes.push(signed.size);
                Syntax::Json.record(&checkpoint(&signed))?;
            }
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(refused("audit checkpoint", &error)),
        }
        let records = client.audit_records(query.clone());
        pin_mut!(records);
        let mut is_first = true;
        while let Some(logged) = records.try_next().await.map_err(|error| refused("audit records", &error))? {
            if std::mem::take(&mut is_first) {
                before(&client, logged.number, &sizes).await?;
            }
            next = logged.number + 1;
            Syntax::Json.record(&view::document(&logged))?;
        }
        if !self.follow {
            return Ok(());
        }
        follow(&client, query, next, is_first.then_some(&sizes), sizes.last().copied().unwrap_or(0)).await
    }
}

/// What a verifier needs of the records before this one: their hashes, and the proofs that the trail grew from these sizes.
async fn before(client: &Client, number: u64, sizes: &[u64]) -> Result<(), Failure> {
    if number == 0 {
        return Ok(());
    }
    let hashes = proof(client, AuditClaim::Prefix { size: number }).await.map_err(|error| refused("audit proof", &error))?;
    Syntax::Json.record(&json!({"prefix": number, "hashes": hashes}))?;
    for first in sizes.iter().copied().filter(|first| (1..number).contains(first)) {
        let claim = AuditClaim::Consistency { first, second: number };
        let hashes = proof(client, claim).await.map_err(|error| refused("audit proof", &error))?;
        Syntax::Json.record(&json!({"grewFrom": first, "hashes": hashes}))?;
    }
    Ok(())
}

/// What is logged from this number on, and what is signed of it beyond this size. Where nothing was printed before, with the proofs of these sizes.
async fn follow(
    client: &Client,
    query: AuditQuery,
    next: u64,
    mut unproved: Option<&Vec<u64>>,
    mut signed: u64,
) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let mut unread = pin!(output::unread());
    let mut look = tokio::time::interval(SIGNED_EVERY);
    let mut trail = client.follow_audit(query, Some(next)).await.map_err(|error| refused("audit records", &error))?;
    loop {
        tokio::select! {
            logged = trail.next() => {
                let logged = logged.map_err(|error| refused("audit records", &error))?;
                if let Some(sizes) = unproved.take() {
                    before(client, logged.number, sizes).await?;
                }
                Syntax::Json.record(&view::document(&logged))?;
            }
            _ = look.tick() => match client.audit_checkpoint().await {
                // One of more than was printed comes with the next look: nobody could verify it yet.
                Ok(latest) if latest.size > signed && latest.size <= trail.next_number() => {
                    signed = latest.size;
                    Syntax::Json.record(&checkpoint(&latest))?;
                }
                Ok(_) => {}
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => return Err(refused("audit checkpoint", &error)),
            },
            () = stop.asked() => return Ok(()),
            failure = &mut unread => return Err(failure),
        }
    }
}

fn checkpoint(signed: &GetAuditCheckpointResponse) -> Value {
    json!({"checkpoint": signed.note, "size": signed.size, "verifiers": signed.verifiers})
}

/// What a verifier needs of the records before.
async fn proof(client: &Client, claim: AuditClaim) -> Result<Vec<String>, Error> {
    let hashes = client.audit_proof(claim).await?;
    Ok(hashes.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect())
}

/// Of how many records a kept checkpoint is. Whether it is signed is asked by who verifies.
fn size(path: &Path) -> Result<u64, Failure> {
    let size = note(path)?.lines().nth(1).and_then(|line| line.parse().ok());
    size.ok_or_else(|| Failure::failed(format_args!("{}: it is no checkpoint", path.display())))
}
