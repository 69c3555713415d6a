//! Load: an agent that sends numbered messages as fast as they are due, and one that takes them. What was acknowledged to the one has to
//! reach the other, once and in order, whatever is done to the hub meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    World,
    agent_pod::{self, AgentPod},
    tenant,
};
use crate::{
    error::{Result, wrong},
    process::eventually,
    say,
};

/// The tenant that is under load. Nothing else is done to it.
pub(super) const TENANT: &str = "hooli";
/// A hundred messages a second.
const EVERY_MS: &str = "10";

/// The two agents, at work.
pub(super) struct Load {
    sender: AgentPod,
    receiver: AgentPod,
}

/// What became of it.
#[derive(Default)]
pub(super) struct Told {
    /// Number, and when it was acknowledged, in milliseconds since 1970.
    pub(super) acknowledged: BTreeMap<u64, u64>,
    /// How many were not.
    pub(super) refused: usize,
    /// In the order of their arrival, without those that were announced as coming again.
    in_order: Vec<u64>,
    /// All that arrived, in the order of their arrival.
    received: Vec<u64>,
}

/// Makes the tenant, where it is not there yet.
pub(super) fn ready(world: &World) -> Result<()> {
    let kind = |kind: &str, name: &str, spec: Value| {
        let mut object = json!({"apiVersion": "acb.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        if kind != "Tenant" {
            object["metadata"]["namespace"] = json!(format!("acb-{TENANT}"));
        }
        object
    };
    let agent = || json!({"role": "AgentFull"});
    let spec = json!({
        "tier": "Enterprise", "hub": {"replicas": 2}, "deletionPolicy": "Delete", "contextTypes": [{"name": "notes"}],
        // More than an agent has by default.
        "agentLimits": {"messagesPerMinute": 100_000, "concurrentStreams": 1000},
    });
    let rest = json!({"apiVersion": "v1", "kind": "List", "items": [
        kind("Agent", "sender", agent()),
        kind("Agent", "receiver", agent()),
    ]});
    world.kubectl.apply(&kind("Tenant", TENANT, spec).to_string())?;
    world.kubectl.wait_for("Ready", &[&format!("tenant/{TENANT}")], 60)?;
    world.kubectl.apply(&rest.to_string())?;
    world.kubectl.wait_for("Ready", &["--namespace", &format!("acb-{TENANT}"), "agents.acb.dev", "--all"], 60)
}

impl Load {
    /// Makes the tenant where it is not there yet, starts both, and waits until messages flow.
    pub(super) fn start(world: &World) -> Result<Self> {
        ready(world)?;
        Self::begin(world)
    }

    /// The same in the tenant as it is.
    pub(super) fn begin(world: &World) -> Result<Self> {
        let receiver = agent_pod::start_load(world, TENANT, "receiver", &["receive"])?;
        agent_pod::wait_running(world, &receiver)?;
        let sender = agent_pod::start_load(world, TENANT, "sender", &["send", "receiver", "--every-ms", EVERY_MS])?;
        agent_pod::wait_running(world, &sender)?;
        let load = Self { sender, receiver };
        load.flows(world)?;
        Ok(load)
    }

    /// Waits until a second's worth of messages more is acknowledged, and has arrived.
    pub(super) fn flows(&self, world: &World) -> Result<()> {
        let more = self.told(world)?;
        let (sent, received) = (more.acknowledged.len() + 100, more.received.len() + 100);
        eventually(120, "messages flow", || {
            let now = self.told(world).map_err(|error| error.to_string())?;
            if now.acknowledged.len() >= sent && now.received.len() >= received {
                return Ok(());
            }
            Err(format!(
                "{} of {sent} are acknowledged, {} of {received} have arrived; the sender said last: {}",
                now.acknowledged.len(),
                now.received.len(),
                agent_pod::said(world, &self.sender).unwrap_or_default().lines().last().unwrap_or_default()
            ))
        })
    }

    fn told(&self, world: &World) -> Result<Told> {
        let mut told = Told::default();
        told.hear(&agent_pod::said(world, &self.sender)?);
        told.hear(&agent_pod::said(world, &self.receiver)?);
        Ok(told)
    }

    /// Ends the sender, waits until everything that was acknowledged to it has arrived, and holds both to what was promised.
    pub(super) fn finish(self, world: &World) -> Result<Told> {
        agent_pod::end(world, &self.sender)?;
        agent_pod::wait_done(world, &self.sender, 300)?;
        let begun = Instant::now();
        eventually(120, "everything that was acknowledged has arrived", || {
            let told = self.told(world).map_err(|error| error.to_string())?;
            let missing = told.missing();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{} are missing, the first {:?}", missing.len(), missing.first()))
            }
        })?;
        let waited = begun.elapsed().as_secs_f64();
        agent_pod::end(world, &self.receiver)?;
        agent_pod::wait_done(world, &self.receiver, 60)?;
        let told = self.told(world)?;
        say(&format!(
            "         {} messages acknowledged, {} refused, {} arrived, the last {waited:.1} s after the end",
            told.acknowledged.len(),
            told.refused,
            told.received.len()
        ));
        told.check()?;
        agent_pod::remove(world, &self.sender)?;
        agent_pod::remove(world, &self.receiver)?;
        Ok(told)
    }
}

impl Told {
    fn hear(&mut self, said: &str) {
        // A last line may be half there.
        for line in said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let number = |name: &str| line[name].as_u64();
            if let (Some(acknowledged), Some(at)) = (number("acknowledged"), number("at")) {
                self.acknowledged.insert(acknowledged, at);
            } else if line["refused"].is_u64() {
                self.refused += 1;
            } else if let Some(received) = number("received") {
                self.received.push(received);
                if line["again"] != true {
                    self.in_order.push(received);
                }
            }
        }
    }

    fn missing(&self) -> Vec<u64> {
        let received: BTreeSet<u64> = self.received.iter().copied().collect();
        self.acknowledged.keys().filter(|number| !received.contains(number)).copied().collect()
    }

    fn check(&self) -> Result<()> {
        let once: BTreeSet<u64> = self.received.iter().copied().collect();
        if once.len() < self.received.len() {
            return wrong(format!("{} messages arrived twice", self.received.len() - once.len()));
        }
        match self.in_order.windows(2).find(|pair| pair[0] > pair[1]) {
            Some(pair) => wrong(format!("message {} arrived after {}", pair[1], pair[0])),
            None => Ok(()),
        }
    }

    /// Whether there is no pause between these times, in milliseconds since 1970, in which nothing was acknowledged for so long.
    pub(super) fn was_steady(&self, from: u64, to: u64, pause: u64) -> Result<()> {
        let within = self.acknowledged.values().copied().filter(|at| (from..to).contains(at));
        let mut times: Vec<u64> = within.chain([from, to]).collect();
        times.sort_unstable();
        match times.windows(2).find(|pair| pair[1] - pair[0] > pause) {
            Some(pair) => wrong(format!("nothing was acknowledged for {} ms", pair[1] - pair[0])),
            None => Ok(()),
        }
    }
}

/// Waits until both replicas of the hub are of an image.
pub(super) fn rolled(world: &World, image: &str) -> Result<()> {
    eventually(300, &format!("every hub is of {image}"), || {
        let hub = world.kubectl.get(&["--namespace", &format!("acbhub-{TENANT}"), "deployment", "hub"]);
        let hub = hub.map_err(|error| error.to_string())?;
        let (spec, status) = (&hub["spec"]["template"]["spec"]["containers"][0]["image"], &hub["status"]);
        let of_it = status["observedGeneration"] == hub["metadata"]["generation"] && status["updatedReplicas"] == 2;
        if *spec == json!(image) && of_it && status["replicas"] == 2 && status["readyReplicas"] == 2 {
            return Ok(());
        }
        Err(format!("{spec}: {status}"))
    })
}

/// Names of the hub's pods, and how often each one's container was started again.
pub(super) fn hubs(world: &World) -> Result<BTreeMap<String, u64>> {
    let namespace = format!("acbhub-{TENANT}");
    let starts = |pod: &String| -> Result<u64> {
        let object = world.kubectl.get(&["--namespace", &namespace, "pod", pod])?;
        Ok(object["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default())
    };
    tenant::hub_pods(world, TENANT)?.into_iter().map(|pod| starts(&pod).map(|count| (pod, count))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Told {
        let mut told = Told::default();
        told.hear(&lines.join("\n"));
        told
    }

    #[test]
    fn what_was_acknowledged_and_never_came_is_missing() {
        let told = told(&[
            r#"{"session":"hub-0","at":1}"#,
            r#"{"acknowledged":1,"id":"a","at":10}"#,
            r#"{"refused":2,"why":"away","at":11}"#,
            r#"{"acknowledged":3,"id":"c","at":12}"#,
            r#"{"received":1,"id":"a","again":false,"at":11}"#,
            r#"{"received":3"#,
        ]);
        assert_eq!((told.missing(), told.refused), (vec![3], 1));
    }

    #[test]
    fn twice_and_out_of_order_are_told_apart_from_what_is_announced() {
        let line = |number: u64, again: bool| format!(r#"{{"received":{number},"again":{again},"at":1}}"#);
        let check = |lines: &[(u64, bool)]| {
            let lines: Vec<String> = lines.iter().map(|(number, again)| line(*number, *again)).collect();
            told(&lines.iter().map(String::as_str).collect::<Vec<_>>()).check()
        };
        check(&[(1, false), (4, false), (2, true), (5, false)]).unwrap();
        assert!(check(&[(1, false), (1, true)]).unwrap_err().to_string().contains("twice"));
        assert!(check(&[(2, false), (1, false)]).unwrap_err().to_string().contains("1 arrived after 2"));
    }

    #[test]
    fn a_pause_is_found() {
        let told = told(&[r#"{"acknowledged":1,"at":100}"#, r#"{"acknowledged":2,"at":900}"#]);
        told.was_steady(50, 1000, 800).unwrap();
        assert!(told.was_steady(50, 1000, 700).is_err());
        assert!(told.was_steady(50, 2000, 800).is_err());
    }
}
