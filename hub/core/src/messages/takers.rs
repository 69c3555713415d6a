//! Who took a message that several may take.

use std::collections::{BTreeSet, HashMap};

use super::{
    catch_up,
    cursor::CursorState,
    log::Log,
    parts::Parts,
    ports::{IndexEntry, MailboxAddress},
};
use crate::{
    directory::{agent::AgentId, snapshot::Snapshot},
    fault::Fault,
    log::bus::Partition,
};

/// Which recipients of a message to a group or to all acknowledged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takers {
    Nobody,
    One(AgentId),
    Several,
}

impl Takers {
    pub(super) fn of(log: &Log, snapshot: &Snapshot, cursors: &Cursors, row: &IndexEntry) -> Self {
        let acknowledged =
            |agent: &AgentId| cursors.get(&(*agent, row.partition)).is_some_and(|cursor| cursor.acknowledged(row.position));
        let mut takers = recipients(log, snapshot, row).into_iter().filter(acknowledged);
        match takers.next() {
            None => Self::Nobody,
            Some(first) if takers.next().is_none() => Self::One(first),
            Some(_) => Self::Several,
        }
    }

    /// A message is taken once anybody but its sender acknowledged it. The sender's own cursor passes it without a delivery.
    pub(super) fn took(self, sender: AgentId) -> bool {
        match self {
            Self::Nobody => false,
            Self::One(agent) => agent != sender,
            Self::Several => true,
        }
    }
}

pub(super) type Cursors = HashMap<(AgentId, Partition), CursorState>;

/// For whom a message to a group or to all is. Nobody where it is for one agent: the store says whether that one took it.
fn recipients(log: &Log, snapshot: &Snapshot, row: &IndexEntry) -> BTreeSet<AgentId> {
    let members: Vec<AgentId> = match &row.address {
        MailboxAddress::Agent(_) => Vec::new(),
        MailboxAddress::Group(group) => snapshot.memberships(group).iter().map(|membership| membership.agent).collect(),
        MailboxAddress::All => snapshot.agents().map(|agent| agent.id).collect(),
    };
    members.into_iter().filter(|agent| catch_up::is_for(log, snapshot, *agent, row)).collect()
}

/// The cursors of all for whom these rows are, with one question.
pub(super) async fn cursors(parts: &Parts, snapshot: &Snapshot, rows: &[IndexEntry]) -> Result<Cursors, Fault> {
    let mut agents = BTreeSet::new();
    let mut partitions = BTreeSet::new();
    for row in rows {
        let recipients = recipients(&parts.log, snapshot, row);
        if !recipients.is_empty() {
            partitions.insert(row.partition);
            agents.extend(recipients);
        }
    }
    if agents.is_empty() {
        return Ok(Cursors::new());
    }
    let (agents, partitions): (Vec<_>, Vec<_>) = (agents.into_iter().collect(), partitions.into_iter().collect());
    let cursors = parts.cursors.cursors(parts.log.epoch, &agents, &partitions).await?;
    Ok(cursors.into_iter().map(|(agent, partition, cursor)| ((agent, partition), cursor)).collect())
}
