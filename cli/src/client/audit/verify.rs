//! `acb audit verify`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use acb_sdk::{AuditClaim, AuditQuery, Client, audit_record};
use acb_tlog::{
    checkpoint::Checkpoint,
    note::Verifier,
    tree::Hash,
    verification::{Verification, Verified, Wrong},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{TryStreamExt as _, pin_mut};
use serde::Deserialize;
use serde_json::json;

use super::view::Says;
use crate::{
    client::{refusal::refused, target::Target},
    output::{self, Failure, Output},
};

/// Verifies the trail.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    #[command(flatten)]
    target: Target,
    /// What `acb audit export` printed, of all agents and operations [default: what the hub has].
    file: Option<PathBuf>,
    #[command(flatten)]
    by: By,
}

/// By what it is verified.
#[derive(Debug, clap::Args)]
struct By {
    /// The public key that signs, as NAME+HASH+BASE64; may be given several times [default: the ones that the file or the hub names].
    #[arg(long, value_name = "KEY")]
    key: Vec<Verifier>,
    /// A checkpoint that was kept from before: the trail must still have what it had then. May be given several times.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Keeps the latest checkpoint in this file, once all is verified.
    #[arg(long, value_name = "FILE")]
    keep_checkpoint: Option<PathBuf>,
    /// Accepts a trail of which no record is signed. Nothing shows then that nobody changed it.
    #[arg(long)]
    allow_unsigned: bool,
}

/// What is verified, and by what.
struct Subject {
    verification: Verification,
    verifiers: Vec<Verifier>,
    /// The largest checkpoint, and its note.
    latest: Option<(u64, String)>,
}

impl Subject {
    /// Its size.
    fn expect(&mut self, note: &str, place: &str) -> Result<u64, Failure> {
        let checkpoint = Checkpoint::open(note, &self.verifiers).map_err(|error| wrong(format!("{place}: {error}")))?;
        self.verification.expect(&checkpoint).map_err(wrong)?;
        if self.latest.as_ref().is_none_or(|(size, _)| *size < checkpoint.size) {
            self.latest = Some((checkpoint.size, note.to_owned()));
        }
        Ok(checkpoint.size)
    }
}

fn wrong(what: impl std::fmt::Display) -> Failure {
    Failure::failed(format_args!("audit trail: {what}"))
}

/// A line of what was exported: of one kind, with nothing else in it. What is not looked at could say anything.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Checkpoint {
        checkpoint: String,
        size: u64,
        verifiers: Vec<String>,
    },
    Prefix {
        prefix: u64,
        hashes: Vec<String>,
    },
    #[serde(rename_all = "camelCase")]
    Consistency {
        grew_from: u64,
        hashes: Vec<String>,
    },
    #[serde(rename_all = "camelCase")]
    Record {
        number: u64,
        record: String,
        leaf_hash: String,
        says: Option<Box<Says>>,
    },
}

impl Verify {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let Self { target, file, by } = self;
        let mut subject = Subject { verification: Verification::default(), verifiers: by.key.clone(), latest: None };
        if by.allow_unsigned {
            subject.verification.allow_unsigned();
        }
        let verified = match &file {
            Some(file) => by.file(file, &mut subject)?,
            None => by.hub(&target.connect().await?, &mut subject).await?,
        };
        if let (Some(path), Some((_, note))) = (&by.keep_checkpoint, &subject.latest) {
            std::fs::write(path, note).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))?;
        }
        by.tell(&verified, output)
    }
}

/// How often the oldest records may be forgotten while all are read.
const FORGETTING: usize = 5;

/// The number of the oldest record that is kept.
async fn first_number(client: &Client) -> Result<Option<u64>, Failure> {
    let records = client.audit_records(AuditQuery::all());
    pin_mut!(records);
    let first = records.try_next().await.map_err(|error| refused("audit records", &error))?;
    Ok(first.map(|logged| logged.number))
}

impl By {
    /// Checkpoints that were kept.
    fn kept(&self, subject: &mut Subject) -> Result<(), Failure> {
        for path in &self.checkpoint {
            subject.expect(&note(path)?, &path.display().to_string())?;
        }
        Ok(())
    }

    fn file(&self, path: &Path, subject: &mut Subject) -> Result<Verified, Failure> {
        let named = self.key.is_empty();
        // What is signed comes first, wherever it stands: the roots are looked at while the tree grows.
        for (number, line) in lines(path)? {
            if let Line::Checkpoint { checkpoint, size, verifiers } = line? {
                if named {
                    let new = verifiers.iter().filter_map(|text| text.parse().ok()).collect::<Vec<_>>();
                    subject.verifiers.extend(new);
                }
                if subject.expect(&checkpoint, &format!("{} line {number}", path.display()))? != size {
                    return Err(wrong(format_args!("{} line {number}: its checkpoint is of another size", path.display())));
                }
            }
        }
        self.kept(subject)?;
        let verification = &mut subject.verification;
        for (place, line) in lines(path)? {
            match line? {
                Line::Checkpoint { .. } => {}
                Line::Prefix { prefix, hashes } => {
                    verification.prefix(prefix, hashes_of(path, place, &hashes)?).map_err(wrong)?;
                }
                Line::Consistency { grew_from, hashes } => {
                    verification.grew_from(grew_from, &hashes_of(path, place, &hashes)?).map_err(wrong)?;
                }
                Line::Record { number, record, leaf_hash, says } => {
                    let record = BASE64_STANDARD.decode(record).map_err(|_| wrong(Wrong::Changed(number)))?;
                    verification.record(number, &record, hash(&leaf_hash)).map_err(wrong)?;
                    if says.as_deref() != audit_record(&record).as_ref().map(Says::of).as_ref() {
                        return Err(wrong(format_args!("record {number} says in the file what its bytes do not")));
                    }
                }
            }
        }
        std::mem::take(verification).end().map_err(wrong)
    }

    async fn hub(&self, client: &Client, subject: &mut Subject) -> Result<Verified, Failure> {
        let signed = client.audit_checkpoint().await.map_err(|error| refused("audit checkpoint", &error))?;
        if self.key.is_empty() {
            subject.verifiers = signed.verifiers.iter().filter_map(|text| text.parse().ok()).collect();
        }
        subject.expect(&signed.note, "the hub's checkpoint")?;
        self.kept(subject)?;
        let begun = subject.verification.clone();
        for _ in 0..FORGETTING {
            let result = Self::records(client, &mut subject.verification).await?;
            match result {
                // The oldest may be forgotten while they are read, page after page: then the trail begins later.
                Err(Wrong::Missing(at, _)) if first_number(client).await?.is_none_or(|first| first > at) => {
                    subject.verification = begun.clone();
                }
                result => {
                    result.map_err(wrong)?;
                    return std::mem::take(&mut subject.verification).end().map_err(wrong);
                }
            }
        }
        Err(Failure::failed("records are forgotten faster than they are read: try again"))
    }

    /// Reads all that the hub has. What is wrong with them, apart from what kept them from being read.
    async fn records(client: &Client, verification: &mut Verification) -> Result<Result<(), Wrong>, Failure> {
        let records = client.audit_records(AuditQuery::all());
        pin_mut!(records);
        let mut is_first = true;
        while let Some(logged) = records.try_next().await.map_err(|error| refused("audit records", &error))? {
            if std::mem::take(&mut is_first) && logged.number > 0 {
                let hashes = client.audit_proof(AuditClaim::Prefix { size: logged.number }).await;
                let hashes = hashes.map_err(|error| refused("audit proof", &error))?;
                if let Err(wrong) = verification.prefix(logged.number, hashes) {
                    return Ok(Err(wrong));
                }
                for first in verification.to_prove() {
                    let proof = client.audit_proof(AuditClaim::Consistency { first, second: logged.number }).await;
                    let proof = proof.map_err(|error| refused("audit proof", &error))?;
                    if let Err(wrong) = verification.grew_from(first, &proof) {
                        return Ok(Err(wrong));
                    }
                }
            }
            let leaf = logged.leaf_hash.as_ref().try_into().ok();
            if let Err(wrong) = verification.record(logged.number, &logged.record, leaf) {
                return Ok(Err(wrong));
            }
        }
        Ok(Ok(()))
    }

    fn tell(&self, verified: &Verified, output: Output) -> Result<(), Failure> {
        let Verified { records: (first, end), signed, before } = *verified;
        let proved = signed.clamp(first, end);
        if let Output::Document(syntax) = output {
            let document = json!({"first": first, "end": end, "signed": proved, "checkpointsBeforeFirst": before});
            return syntax.document(&document);
        }
        if proved > first {
            match proved - first {
                1 => output::line(format_args!("Record {first} is as it was logged and signed."))?,
                _ => output::line(format_args!("Records {first} to {} are as they were logged and signed.", proved - 1))?,
            }
        }
        if proved < end {
            match end - proved {
                1 => output::line(format_args!("Record {proved} is not signed: nothing proves it."))?,
                _ => output::line(format_args!("Records {proved} to {} are not signed: nothing proves them.", end - 1))?,
            }
        }
        if before > 0 {
            output::line(format_args!("The trail went on from {before} checkpoints of before record {first}."))?;
        }
        if self.key.is_empty() {
            output::note(output, "the key is the one that the trail itself names: keep it, and give it as --key the next time");
        }
        Ok(())
    }
}

/// A checkpoint that was kept.
pub(super) fn note(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))
}

fn hash(text: &str) -> Option<Hash> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

fn hashes_of(path: &Path, line: usize, hashes: &[String]) -> Result<Vec<Hash>, Failure> {
    let hashes = hashes.iter().map(|text| hash(text)).collect::<Option<_>>();
    hashes.ok_or_else(|| wrong(format_args!("{} line {line} has no hashes", path.display())))
}

/// The lines of a file with their numbers, from 1.
fn lines(path: &Path) -> Result<impl Iterator<Item = (usize, Result<Line, Failure>)>, Failure> {
    let place = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::failed(format_args!("{place}: {error}")))?;
    let read = move |(index, line): (usize, std::io::Result<String>)| {
        let number = index + 1;
        let problem = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{place} line {number}: {error}"));
        let line = line
            .map_err(|error| problem(&error))
            .and_then(|line| serde_json::from_str(&line).map_err(|_| problem(&"it is no line of an exported audit trail")));
        (number, line)
    };
    Ok(BufReader::new(file).lines().enumerate().map(read))
}
