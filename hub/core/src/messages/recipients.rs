//! Whether anybody can receive what is sent to an address. What nobody ever could is refused: its sender would take it for sent.

use super::message::Address;
use crate::{
    directory::{
        agent::{Agent, AgentId, Permission},
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::quoted::quoted,
};

/// What a sender wants of the recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// That one of them gets it, some day.
    Delivery,
    /// That one of them answers, soon: who is suspended can't.
    Reply,
}

/// The agents that the address names, in its order. A fault where nobody but `from` can receive what goes there, or one of several can't.
pub(super) fn resolve(
    snapshot: &Snapshot,
    from: Option<AgentId>,
    address: &Address,
    wants: Wants,
) -> Result<Vec<AgentId>, Fault> {
    match address {
        // The caller of a request waits for its reply on that call, whatever its role.
        Address::Request { agent: name, .. } => named(snapshot, name).map(|agent| vec![agent.id]),
        Address::Agent(name) => receiver(snapshot, name, wants).map(|agent| vec![agent.id]),
        // All of them, or nothing is sent.
        Address::Agents(names) => names.iter().map(|name| receiver(snapshot, name, wants).map(|agent| agent.id)).collect(),
        Address::Group(name) if !snapshot.has_group(name) => Err(unknown("group", name)),
        Address::Group(name) => {
            let members = snapshot.memberships(name).iter().filter(|member| member.left_at.is_none());
            let members = members.filter_map(|member| snapshot.agent(member.agent));
            somebody(members.map(|agent| &**agent), from, wants, &format!("group {name}")).map(|()| Vec::new())
        }
        Address::All => somebody(snapshot.agents().map(|agent| &**agent), from, wants, "the tenant").map(|()| Vec::new()),
    }
}

fn named<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Agent, Fault> {
    snapshot.agent_named(name).map(|agent| &**agent).ok_or_else(|| unknown("agent", name))
}

fn receiver<'a>(snapshot: &'a Snapshot, name: &str, wants: Wants) -> Result<&'a Agent, Fault> {
    let agent = named(snapshot, name)?;
    if !receives(agent) {
        return Err(Fault::new(
            Code::FailedPrecondition,
            "RECIPIENT_CANNOT_RECEIVE",
            format!("agent {name} has role {}, which receives no messages: nothing was sent", agent.role.as_str()),
        ));
    }
    if wants == Wants::Reply && agent.suspended {
        return Err(suspended(format!("agent {name} is suspended")));
    }
    Ok(agent)
}

fn receives(agent: &Agent) -> bool {
    agent.role.allows(Permission::Receive)
}

/// That at least one of them beside the sender gets what the sender wants.
fn somebody<'a>(members: impl Iterator<Item = &'a Agent>, from: Option<AgentId>, wants: Wants, whose: &str) -> Result<(), Fault> {
    let mut receivers = members.filter(|agent| Some(agent.id) != from && receives(agent)).peekable();
    if receivers.peek().is_none() {
        return Err(Fault::new(
            Code::FailedPrecondition,
            "NO_RECIPIENTS",
            format!("{whose} has 0 members beside the sender that receive messages: nothing was sent"),
        ));
    }
    if wants == Wants::Reply && receivers.all(|agent| agent.suspended) {
        return Err(suspended(format!("{whose} has nobody beside the sender who is not suspended")));
    }
    Ok(())
}

fn suspended(why: String) -> Fault {
    let why = format!("{why}, so nobody would reply: nothing was sent. A message without a wait is kept until it is resumed");
    Fault::new(Code::FailedPrecondition, "RECIPIENT_SUSPENDED", why)
}

fn unknown(what: &str, name: &str) -> Fault {
    let why = format!("there is no {what} {} in this tenant: AgentRegistry.ListAgents shows all", quoted(name));
    Fault::not_found("RECIPIENT_NOT_FOUND", why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::directory::{agent::Role, membership::Membership};

    fn agent(number: u128, name: &str, role: Role, suspended: bool) -> Agent {
        Agent {
            id: AgentId(Uuid::from_u128(number)),
            name: name.to_owned(),
            kind: String::new(),
            capabilities: Vec::new(),
            groups: Vec::new(),
            location: String::new(),
            metadata: std::collections::BTreeMap::new(),
            role,
            publishes: Vec::new(),
            subscribes: Vec::new(),
            limits: Default::default(),
            suspended,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Agents with the first as the sender, all but the last of them in group `pair`, which the last one left.
    fn outcome(agents: &[Agent], to: &Address, wants: Wants) -> &'static str {
        let members = agents.iter().enumerate().map(|(index, agent)| Membership {
            group: "pair".to_owned(),
            agent: agent.id,
            joined_at: OffsetDateTime::UNIX_EPOCH,
            left_at: (index + 1 == agents.len()).then_some(OffsetDateTime::UNIX_EPOCH),
        });
        let snapshot = Snapshot::new(1, agents.to_vec(), members.collect());
        resolve(&snapshot, Some(agents[0].id), to, wants).map_or_else(|fault| fault.reason, |_| "fine")
    }

    #[test]
    fn what_nobody_could_ever_receive_is_refused() {
        use Role::{Consumer, Full, Observer, Producer};
        use Wants::{Delivery, Reply};
        let sender = || agent(1, "alice", Full, false);
        let to = |name: &str| Address::Agent(name.to_owned());
        let group = || Address::Group("pair".to_owned());
        for role in [Observer, Producer] {
            let two = [sender(), agent(2, "bob", role, false)];
            for wants in [Delivery, Reply] {
                assert_eq!(outcome(&two, &to("bob"), wants), "RECIPIENT_CANNOT_RECEIVE");
                assert_eq!(outcome(&two, &Address::All, wants), "NO_RECIPIENTS");
                let request = Address::Request { agent: "bob".to_owned(), request_id: Uuid::nil() };
                assert_eq!(outcome(&two, &request, wants), "fine", "it waits on its call");
            }
        }
        let alone = [sender()];
        assert_eq!(outcome(&alone, &Address::All, Delivery), "NO_RECIPIENTS");
        assert_eq!(outcome(&alone, &to("alice"), Delivery), "fine", "to itself");
        // Bob has left.
        let left = [sender(), agent(2, "bob", Full, false)];
        assert_eq!(outcome(&left, &group(), Delivery), "NO_RECIPIENTS");
        assert_eq!(outcome(&left, &Address::All, Delivery), "fine");
        let pair = |role, suspended| [sender(), agent(2, "bob", role, suspended), agent(3, "carol", Full, false)];
        assert_eq!(outcome(&pair(Consumer, false), &group(), Delivery), "fine");
        assert_eq!(outcome(&pair(Observer, false), &group(), Delivery), "NO_RECIPIENTS");
        // Who is suspended gets it when it is resumed, and answers nobody before.
        assert_eq!(outcome(&pair(Full, true), &group(), Delivery), "fine");
        assert_eq!(outcome(&pair(Full, true), &group(), Reply), "RECIPIENT_SUSPENDED");
        assert_eq!(outcome(&pair(Full, true), &to("bob"), Delivery), "fine");
        assert_eq!(outcome(&pair(Full, true), &to("bob"), Reply), "RECIPIENT_SUSPENDED");
        assert_eq!(outcome(&pair(Full, true), &Address::All, Reply), "fine", "carol is there");
        let both = |other: &str| Address::agents(vec!["bob".to_owned(), other.to_owned()]).unwrap();
        assert_eq!(outcome(&pair(Full, true), &both("carol"), Delivery), "fine");
        assert_eq!(outcome(&pair(Observer, false), &both("carol"), Delivery), "RECIPIENT_CANNOT_RECEIVE");
        for unknown in [to("nobody"), both("nobody"), Address::Group("none".to_owned())] {
            assert_eq!(outcome(&alone, &unknown, Delivery), "RECIPIENT_NOT_FOUND");
        }
    }
}
