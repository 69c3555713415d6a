//! `acb audit export`.

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
}

impl Export {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        // First: every record that it is about is there when the records are read.
        match client.audit_checkpoint().await {
            Ok(signed) => {
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
                let hashes = prefix(&client, logged.number).await.map_err(|error| refused("audit proof", &error))?;
                Syntax::Json.record(&json!({"prefix": logged.number, "hashes": hashes}))?;
            }
            Syntax::Json.record(&view::document(&logged))?;
        }
        Ok(())
    }
}

/// What a verifier needs of the records before.
async fn prefix(client: &Client, size: u64) -> Result<Vec<String>, Error> {
    let hashes = client.audit_proof(AuditClaim::Prefix { size }).await?;
    Ok(hashes.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect())
}
