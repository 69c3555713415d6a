//! A witness outside of the platform is shown what is signed, and takes no trail that was rewritten.

use std::sync::{Arc, Mutex};

use acb_hub_core::audit::witness::Witness;
use acb_tlog::{checkpoint::Checkpoint, proof::verify_consistency, tree::Hash};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::world::{World, signing};

/// A witness as its protocol has it, of one trail.
#[derive(Default)]
struct TestWitness {
    saw: Mutex<Option<Checkpoint>>,
    answers: Mutex<Vec<u16>>,
    /// How many questions it does not answer yet.
    away: Mutex<usize>,
}

impl TestWitness {
    fn size(&self) -> u64 {
        self.saw.lock().unwrap().as_ref().map_or(0, |saw| saw.size)
    }

    fn answered(&self, status: u16) -> bool {
        self.answers.lock().unwrap().contains(&status)
    }

    fn judge(&self, body: &str) -> (u16, String) {
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let proof: Vec<Hash> = lines.map(|line| BASE64_STANDARD.decode(line).unwrap().try_into().unwrap()).collect();
        let checkpoint = Checkpoint::open(note, &[signing().verifier().clone()]).unwrap();
        let mut saw = self.saw.lock().unwrap();
        let (size, root) = saw.as_ref().map_or((0, [0; 32]), |saw| (saw.size, saw.root));
        if old != size || (old == checkpoint.size && root != checkpoint.root) {
            return (409, format!("{size}\n"));
        }
        if old > 0 && verify_consistency((old, &root), (checkpoint.size, &checkpoint.root), &proof).is_err() {
            return (422, String::new());
        }
        *saw = Some(checkpoint);
        (200, "\u{2014} witness.example/w1 CMp+\n".to_owned())
    }
}

#[async_trait]
impl Witness for TestWitness {
    async fn add_checkpoint(&self, body: String) -> Result<(u16, String), String> {
        let mut away = self.away.lock().unwrap();
        if *away > 0 {
            *away -= 1;
            return Err("no answer".to_owned());
        }
        let (status, text) = self.judge(&body);
        self.answers.lock().unwrap().push(status);
        Ok((status, text))
    }
}

#[tokio::test]
async fn a_witness_sees_the_trail_grow_whichever_replica_shows_it() {
    let (world, witness) = (World::new().await, Arc::new(TestWitness { away: Mutex::new(2), ..TestWitness::default() }));
    let first = world.witnessed_sink(witness.clone());
    world.log(0..3).await;
    world.until(|| async { witness.size() == 3 }).await;
    assert_eq!(*witness.away.lock().unwrap(), 0, "it was asked again");
    world.log(3..8).await;
    world.until(|| async { witness.size() == 8 }).await;
    drop(first);

    let next = world.witnessed_sink(witness.clone());
    world.log(8..9).await;
    world.until(|| async { witness.size() == 9 }).await;
    assert!(witness.answered(409), "the next one asks what it saw");
    drop(next);
    let signed = world.signed(9).await;
    assert_eq!(*witness.saw.lock().unwrap(), Some(signed));
}

#[tokio::test]
async fn a_witness_takes_no_other_trail_of_the_same_name() {
    let (world, witness) = (World::new().await, Arc::new(TestWitness::default()));
    let sink = world.witnessed_sink(witness.clone());
    world.log(0..5).await;
    world.until(|| async { witness.size() == 5 }).await;
    drop(sink);
    let saw = witness.saw.lock().unwrap().clone();

    // Written anew with all rights: fewer records, as many, and more.
    let rewritten = World::new().await;
    let _sink = rewritten.witnessed_sink(witness.clone());
    rewritten.log(10..13).await;
    rewritten.signed(3).await;
    rewritten.log(13..15).await;
    rewritten.signed(5).await;
    rewritten.log(15..20).await;
    rewritten.signed(10).await;
    rewritten.until(|| async { witness.answered(422) }).await;
    assert_eq!(*witness.saw.lock().unwrap(), saw);
    let metrics = rewritten.metrics.render();
    let counted = |name: &str| metrics.lines().find(|line| line.starts_with(name)).and_then(|line| line.split(' ').next_back());
    assert_ne!(counted("acb_audit_witness_failures_total").unwrap(), "0");
    assert_eq!(counted("acb_audit_witnessed_size"), Some("0"));
}
