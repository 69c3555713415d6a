//! One writer, whatever becomes of it: a leader that is stopped, or killed, with every kind of write on its way. Another one leads, and
//! what arrives late does no harm.

mod stage;
mod writes;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use acb_testbed::relay::{Hold, Protocol};

use self::{
    stage::Stage,
    writes::{Act, Write},
};
use super::World;
use crate::{
    error::{Error, Result, wrong},
    process::eventually,
    say,
};

/// The lease lasts 15 s, and is looked at twice a second.
const TAKEOVER_SECONDS: u64 = 30;
const CONVERGE_SECONDS: u64 = 60;
/// What an old leader wrote late is undone by then: the next renewal of the lease after 5 s, and a pass.
const UNDONE_SECONDS: u64 = 20;

const WAKE_EVERY: Duration = Duration::from_secs(2);

/// What becomes of the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// SIGSTOP, and SIGCONT when the other has done its work.
    Paused,
    /// SIGKILL.
    Killed,
}

/// `leader-paused`.
pub(super) fn paused(world: &mut World) -> Result<()> {
    run(world, Fate::Paused)
}

/// `leader-killed`.
pub(super) fn killed(world: &mut World) -> Result<()> {
    run(world, Fate::Killed)
}

fn run(world: &mut World, fate: Fate) -> Result<()> {
    let mut stage = Stage::new(world)?;
    let result = stage.set().and_then(|()| rounds(&mut stage, fate));
    let struck = stage.strike();
    result.and(struck)
}

fn rounds(stage: &mut Stage<'_>, fate: Fate) -> Result<()> {
    let rounds = [("Kafka", writes::KAFKA), ("PostgreSQL", writes::POSTGRES), ("Kubernetes", writes::KUBERNETES)];
    let all = || rounds.iter().flat_map(|(_, writes)| *writes);
    let there: Vec<&'static str> = all().filter(|write| write.is_there).map(|write| write.tenant).collect();
    for tenant in &there {
        stage.edit(tenant, |_| {});
    }
    stage.apply(there)?;
    let before: Vec<(&'static str, &'static [Act])> = all().map(|write| (write.tenant, write.before)).collect();
    writes::act(stage, &before)?;
    stage.converge(CONVERGE_SECONDS * 2)?;
    for (name, writes) in rounds {
        let begun = Instant::now();
        let note = match fate {
            Fate::Paused => pause(stage, writes)?,
            Fate::Killed => kill(stage, writes)?,
        };
        say(&format!("         {} kinds of write to {name}: {note}; {:.0} s", writes.len(), begun.elapsed().as_secs_f64()));
    }
    Ok(())
}

fn acts(writes: &'static [Write], of: fn(&'static Write) -> &'static [Act]) -> Vec<(&'static str, &'static [Act])> {
    writes.iter().map(|write| (write.tenant, of(write))).collect()
}

/// Causes the writes, and stops the leader when all of them are on their way.
fn stop_in_the_middle(stage: &mut Stage<'_>, leader: usize, writes: &'static [Write]) -> Result<Vec<Arc<Hold>>> {
    let mut holds = Vec::new();
    for write in writes {
        let id = if write.is_there { stage.id(write.tenant)? } else { String::new() };
        holds.push(stage.hold(write.via, write.matches(id))?);
    }
    writes::act(stage, &acts(writes, |write| write.cause))?;
    let missing = || -> Vec<&'static str> {
        let pairs = writes.iter().zip(&holds);
        pairs.filter(|(_, hold)| !hold.is_held()).map(|(write, _)| write.tenant).collect()
    };
    // A sender that has waited for too long asks again, later and later. It is woken, so that all are under way at the same time.
    let mut woken = Instant::now();
    eventually(120, "every kind of write is on its way", || {
        let waiting = missing();
        if waiting.is_empty() {
            stage.pause(leader).map_err(|error| error.to_string())?;
            // What it hung up on in its last moment is seen by now.
            std::thread::sleep(Duration::from_millis(50));
            if missing().is_empty() {
                return Ok(());
            }
            stage.go_on(leader).map_err(|error| error.to_string())?;
        } else if woken.elapsed() > WAKE_EVERY {
            stage.wake(&waiting).map_err(|error| error.to_string())?;
            woken = Instant::now();
        }
        Err(format!("not yet: {waiting:?}"))
    })?;
    match writes.iter().zip(&holds).find(|(_, hold)| !hold.seal()) {
        Some((write, _)) => wrong(format!("{} was given up by a process that is stopped", write.tenant)),
        None => Ok(holds),
    }
}

/// Tenants that are gone come back under their names.
fn make_anew(stage: &mut Stage<'_>, writes: &'static [Write]) -> Result<()> {
    let anew: Vec<&'static str> = writes.iter().filter(|write| write.anew).map(|write| write.tenant).collect();
    for tenant in &anew {
        stage.wait_gone(tenant)?;
    }
    stage.apply(anew)
}

fn pause(stage: &mut Stage<'_>, writes: &'static [Write]) -> Result<String> {
    let leader = stage.wait_leader(&[0, 1], TAKEOVER_SECONDS)?;
    let other = 1 - leader;
    let holds = stop_in_the_middle(stage, leader, writes)?;
    writes::act(stage, &acts(writes, |write| write.meanwhile))?;
    stage.wait_leader(&[other], TAKEOVER_SECONDS)?;
    make_anew(stage, writes)?;
    stage.converge(CONVERGE_SECONDS)?;
    for hold in &holds {
        hold.deliver();
    }
    stage.go_on(leader)?;
    let late = Instant::now();
    for (write, hold) in writes.iter().zip(&holds) {
        eventually(20, &format!("the late write of {} is answered as it must be", write.tenant), || {
            let answer = hold.answer();
            if write.is_right(&answer) { Ok(()) } else { Err(format!("{:?}", String::from_utf8_lossy(&answer))) }
        })?;
    }
    stage.wait_standing_by(leader)?;
    // Kafka took what it was sent: the old leader must have noticed, and have said so.
    if writes.iter().any(|write| matches!(write.late, writes::Late::Arrives) && write.via == Protocol::Kafka) {
        eventually(20, "the old leader asks the new one to look again", || {
            let log = stage.log(leader).map_err(|error| error.to_string())?;
            if log.contains("may have come late") { Ok(()) } else { Err("its log says nothing of it".to_owned()) }
        })?;
    }
    stage.converge(UNDONE_SECONDS)?;
    let undone = late.elapsed();
    if stage.wait_leader(&[0, 1], 5)? != other {
        return wrong("the leader changed without need");
    }
    Ok(format!("as it should be {:.1} s after they arrived", undone.as_secs_f64()))
}

fn kill(stage: &mut Stage<'_>, writes: &'static [Write]) -> Result<String> {
    let leader = stage.wait_leader(&[0, 1], TAKEOVER_SECONDS)?;
    let other = 1 - leader;
    let holds = stop_in_the_middle(stage, leader, writes)?;
    stage.kill(leader)?;
    let died = Instant::now();
    // Of what a process sent last, some arrives.
    for (index, hold) in holds.iter().enumerate() {
        if index % 2 == 0 { hold.deliver() } else { hold.lose() }
    }
    stage.wait_leader(&[other], TAKEOVER_SECONDS)?;
    let led = died.elapsed();
    make_anew(stage, writes)?;
    stage.converge(CONVERGE_SECONDS)?;
    let converged = died.elapsed();
    stage.start(leader)?;
    stage.wait_standing_by(leader).map_err(|error| Error::Wrong(format!("the one that was killed, started again: {error}")))?;
    Ok(format!("the other led after {:.1} s, all was as it should be after {:.1} s", led.as_secs_f64(), converged.as_secs_f64()))
}
