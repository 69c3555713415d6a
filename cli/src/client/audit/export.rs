//! `acb audit export`.

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{TryStreamExt as _, pin_mut};
use serde_json::json;

use acb_sdk::{AuditClaim, Client, Code, Error};

use super::{filter::Filter, view};
use crate::{
    client::{refusal::refused, target::Target},
    output::{Failure, Syntax},
};

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
}

impl Export {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut sizes = self.checkpoint.iter().map(|path| size(path)).collect::<Result<Vec<_>, _>>()?;
        let client = self.target.connect().await?;
        // First: every record that it is about is there when the records are read.
        match client.audit_checkpoint().await {
            Ok(signed) => {
                sizes.push(signed.size);
                Syntax::Json.record(&json!({"checkpoint": signed.note, "size": signed.size, "verifiers": signed.verifiers}))?;
            }
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(refused("audit checkpoint", &error)),
        }
        let records = client.audit_records(self.filter.query());
        pin_mut!(records);
        let mut is_first = true;
        while let Some(logged) = records.try_next().await.map_err(|error| refused("audit records", &error))? {
            if std::mem::take(&mut is_first) && logged.number > 0 {
                let hashes = proof(&client, AuditClaim::Prefix { size: logged.number })
                    .await
                    .map_err(|error| refused("audit proof", &error))?;
                Syntax::Json.record(&json!({"prefix": logged.number, "hashes": hashes}))?;
                for first in sizes.iter().copied().filter(|first| (1..logged.number).contains(first)) {
                    let claim = AuditClaim::Consistency { first, second: logged.number };
                    let hashes = proof(&client, claim).await.map_err(|error| refused("audit proof", &error))?;
                    Syntax::Json.record(&json!({"grewFrom": first, "hashes": hashes}))?;
                }
            }
            Syntax::Json.record(&view::document(&logged))?;
        }
        Ok(())
    }
}

/// What a verifier needs of the records before.
async fn proof(client: &Client, claim: AuditClaim) -> Result<Vec<String>, Error> {
    let hashes = client.audit_proof(claim).await?;
    Ok(hashes.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect())
}

/// Of how many records a kept checkpoint is. Whether it is signed is asked by who verifies.
fn size(path: &Path) -> Result<u64, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {error}", path.display()));
    let note = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    note.lines().nth(1).and_then(|line| line.parse().ok()).ok_or_else(|| failed(&"it is no checkpoint"))
}
