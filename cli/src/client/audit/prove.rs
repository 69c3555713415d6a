//! `acb audit prove`.

use acb_sdk::{AuditClaim, AuditQuery};
use acb_tlog::{checkpoint::Checkpoint, note::Verifier, proof::verify_inclusion, tree::leaf_hash};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{TryStreamExt as _, pin_mut};
use serde_json::json;

use super::view;
use crate::{
    client::{refusal::refused, target::Target},
    output::{self, Exit, Failure, Output},
};

/// Proves that one record is in the signed trail.
#[derive(Debug, clap::Args)]
pub(super) struct Prove {
    #[command(flatten)]
    target: Target,
    /// Its number, as `acb audit list` shows it.
    number: u64,
    /// The public key that signs, as NAME+HASH+BASE64; may be given several times [default: the ones that the hub names].
    #[arg(long, value_name = "KEY")]
    key: Vec<Verifier>,
}

impl Prove {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let number = self.number;
        let client = self.target.connect().await?;
        let signed = client.audit_checkpoint().await.map_err(|error| refused("audit checkpoint", &error))?;
        let verifiers = match self.key {
            keys if keys.is_empty() => signed.verifiers.iter().filter_map(|text| text.parse().ok()).collect(),
            keys => keys,
        };
        let failed = |why: &dyn std::fmt::Display| Failure::failed(format_args!("audit record {number}: {why}"));
        let checkpoint = Checkpoint::open(&signed.note, &verifiers).map_err(|error| failed(&error))?;
        if number >= checkpoint.size {
            let why = format!("audit record {number}: {} are signed so far; more are within a minute", checkpoint.size);
            return Err(Failure::new(Exit::NotFound, why));
        }
        let records = client.audit_records(AuditQuery::all().from_number(number));
        pin_mut!(records);
        let record = records.try_next().await.map_err(|error| refused("audit records", &error))?;
        let Some(record) = record.filter(|record| record.number == number) else {
            return Err(Failure::new(Exit::NotFound, format_args!("audit record {number} is not there any more")));
        };
        let claim = AuditClaim::Inclusion { number, size: checkpoint.size };
        let proof = client.audit_proof(claim).await.map_err(|error| refused("audit proof", &error))?;
        verify_inclusion(number, checkpoint.size, leaf_hash(&record.record), &proof, &checkpoint.root)
            .map_err(|error| failed(&error))?;
        match output {
            Output::Document(syntax) => {
                let mut value = view::document(&record);
                value["proof"] = json!(proof.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect::<Vec<_>>());
                value["checkpoint"] = json!(signed.note);
                syntax.document(&value)
            }
            Output::Table { .. } => {
                output::line(format_args!("Record {number} is in the trail of {} records that was signed:\n", checkpoint.size))?;
                output::line(signed.note.trim_end())
            }
        }
    }
}
