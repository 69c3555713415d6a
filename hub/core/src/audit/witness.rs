//! A witness outside of the platform (<https://c2sp.org/tlog-witness>). It is shown each checkpoint, with the proof that the trail grew from the one which
//! it saw last, and remembers it. So a trail that was rewritten, by whoever has all rights here, does not go on there.

use std::{fmt, sync::Arc, time::Duration};

use acb_tlog::tree::Hash;
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::sync::watch;

use super::{
    ports::SignedCheckpoint,
    reading::{AuditTrail, Statement},
};
use crate::metrics::audit::AuditMetrics;

/// When the latest checkpoint is shown again, after one was not taken.
pub const AGAIN: Duration = Duration::from_secs(60);

/// Lines of a proof that a witness takes.
const MAX_PROOF: usize = 63;

/// Where a witness is asked.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// What it answers to this body of `add-checkpoint`: the status, and what it says.
    async fn add_checkpoint(&self, body: String) -> Result<(u16, String), String>;
}

/// What a witness said of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It has signed it.
    Signed,
    /// What it saw last is a tree of this size.
    Saw(u64),
    /// It did not take it.
    Refused(String),
}

/// The body that shows a checkpoint, after a tree of size `old`.
fn body(old: u64, proof: &[Hash], note: &str) -> String {
    let proof: String = proof.iter().map(|hash| BASE64_STANDARD.encode(hash) + "\n").collect();
    format!("old {old}\n{proof}\n{note}")
}

fn verdict(status: u16, text: &str) -> Verdict {
    match status {
        200 if text.starts_with('\u{2014}') => Verdict::Signed,
        409 => match text.trim_end().parse() {
            Ok(size) => Verdict::Saw(size),
            Err(_) => Verdict::Refused("it has another tree, and does not say of which size".to_owned()),
        },
        200 => Verdict::Refused("it answers without a signature".to_owned()),
        403 => Verdict::Refused(
            "it does not know the key that signs this trail: give it the verifiers that `acb audit export` begins with"
                .to_owned(),
        ),
        404 => Verdict::Refused("it does not know this trail: it has to be told the trail's name and key".to_owned()),
        422 => Verdict::Refused("the trail did not grow from what it saw: the trail was rewritten".to_owned()),
        other => Verdict::Refused(format!("it answers with status {other}")),
    }
}

/// Shows checkpoints to a witness.
pub struct Witnessing {
    trail: AuditTrail,
    witness: Arc<dyn Witness>,
    metrics: AuditMetrics,
    again: Duration,
    /// The size that the witness saw last, as far as is known here.
    seen: u64,
}

impl fmt::Debug for Witnessing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witnessing").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Witnessing {
    /// Of this trail.
    #[must_use]
    pub fn new(trail: AuditTrail, witness: Arc<dyn Witness>, metrics: AuditMetrics, again: Duration) -> Self {
        Self { trail, witness, metrics, again, seen: 0 }
    }

    /// Shows what is signed, for as long as it is polled. What is signed meanwhile takes the place of what waits: it says all that this did.
    pub async fn run(mut self, mut signed: watch::Receiver<Option<SignedCheckpoint>>) {
        loop {
            let latest = signed.borrow_and_update().clone();
            if !self.has_shown(latest).await {
                tokio::time::sleep(self.again).await;
            } else if signed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn has_shown(&mut self, latest: Option<SignedCheckpoint>) -> bool {
        let size = latest.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let shown = match &latest {
            Some(checkpoint) => self.show(checkpoint).await,
            None => Ok(()),
        };
        match shown {
            Ok(()) => self.metrics.witnessed(size),
            Err(why) => {
                self.metrics.unwitnessed();
                tracing::warn!(size, why, "the witness of the audit trail did not take a checkpoint");
                return false;
            }
        }
        true
    }

    async fn show(&mut self, checkpoint: &SignedCheckpoint) -> Result<(), String> {
        // What it saw last is told by its first answer, where another replica showed it, or this one has just begun.
        for _ in 0..2 {
            let old = self.seen;
            if old > checkpoint.size {
                // It is asked anew the next time: it may have been told to begin with this trail once more.
                self.seen = 0;
                return Err(format!("it saw a tree of {old} records before: the trail went back, or a newer one is on its way"));
            }
            let proof = self.proof(old, checkpoint.size).await?;
            let (status, text) = self.witness.add_checkpoint(body(old, &proof, &checkpoint.note)).await?;
            match verdict(status, &text) {
                Verdict::Signed => {
                    self.seen = checkpoint.size;
                    return Ok(());
                }
                Verdict::Saw(size) if size == old => {
                    return Err(format!("it saw another tree of {size} records: the trail was rewritten"));
                }
                Verdict::Saw(size) => self.seen = size,
                Verdict::Refused(why) => return Err(why),
            }
        }
        Err("it sees other checkpoints at the same time".to_owned())
    }

    async fn proof(&self, old: u64, size: u64) -> Result<Vec<Hash>, String> {
        if old == 0 || old == size {
            return Ok(Vec::new());
        }
        let proof = self.trail.prove(Statement::Consistency { first: old, second: size }).await.map_err(|fault| fault.message)?;
        if proof.len() > MAX_PROOF { Err("the proof is too long".to_owned()) } else { Ok(proof) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_shown_as_the_protocol_has_it() {
        let zeros = "A".repeat(43);
        assert_eq!(body(0, &[], "a\n1\nroot\n\n\u{2014} a key\n"), "old 0\n\na\n1\nroot\n\n\u{2014} a key\n");
        assert_eq!(body(7, &[[0; 32], [0; 32]], "note\n"), format!("old 7\n{zeros}=\n{zeros}=\n\nnote\n"));
    }

    #[test]
    fn what_a_witness_says_is_understood() {
        assert_eq!(verdict(200, "\u{2014} witness.example/w1 CMp+\n"), Verdict::Signed);
        assert_eq!(verdict(409, "20852163\n"), Verdict::Saw(20_852_163));
        for (status, text, why) in [
            (200, "<html>", "without a signature"),
            (409, "", "of which size"),
            (403, "", "the key"),
            (404, "", "this trail"),
            (422, "", "rewritten"),
            (500, "9", "status 500"),
        ] {
            let Verdict::Refused(said) = verdict(status, text) else { panic!("{status} is taken") };
            assert!(said.contains(why), "{said}");
        }
    }
}
