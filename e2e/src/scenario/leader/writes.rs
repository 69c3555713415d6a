//! Every kind of write of an operator: what causes it, how it is known on its way, what is wanted next while it is on its way, and what
//! becomes of it where it arrives late.

use acb_operator::plan::KafkaStep;
use acb_testbed::relay::{Matches, Protocol};
use serde_json::{Value, json};

use super::stage::{Stage, agent};
use crate::error::Result;

/// What is done about a tenant.
pub(super) enum Act {
    /// Another spec.
    Spec(fn(&mut Value)),
    /// Nothing but to have it looked at.
    Touch,
    /// It is deleted.
    Delete,
    /// It gets an agent.
    Agent,
    /// The agent is deleted.
    AgentGone,
    /// The Secret with the agent's key is deleted.
    AgentKeyGone,
    /// The hub's Secret of this name is deleted.
    SecretGone(&'static str),
    /// Somebody does this in Kafka; its user is given.
    Kafka(fn(String) -> KafkaStep),
    /// Somebody bars its login to PostgreSQL.
    NoLogin,
}

/// What becomes of a write that arrives late.
pub(super) enum Late {
    /// It arrives: it changes nothing, or is undone.
    Arrives,
    /// One of these is in the answer.
    Refused(&'static [&'static str]),
    /// Kafka knows no such topic any more.
    UnknownTopic,
}

/// A kind of write.
pub(super) struct Write {
    /// Of its tenant, which is about this kind alone.
    pub(super) tenant: &'static str,
    pub(super) via: Protocol,
    /// Whether the tenant has converged before.
    pub(super) is_there: bool,
    /// Before anything is held.
    pub(super) before: &'static [Act],
    pub(super) cause: &'static [Act],
    /// How it is known: the tenant, its id.
    pub(super) matches: fn(&'static str, String) -> Matches,
    /// Once the write is on its way, so that it would do harm.
    pub(super) meanwhile: &'static [Act],
    /// The tenant is gone then, and is made anew before the write arrives.
    pub(super) anew: bool,
    pub(super) late: Late,
}

fn notes(spec: &mut Value, field: &str, value: Value) {
    spec["contextTypes"][0][field] = value;
}

fn bandwidth(spec: &mut Value, megabytes: u64) {
    spec["limits"] = json!({"bytesPerMinute": megabytes * 1_000_000});
}

fn kafka(what: &'static str, part: impl Fn(&str, &str) -> String, tenant: &str, id: &str) -> Matches {
    let part = part(tenant, id);
    Box::new(move |request| request.what == what && request.holds(part.as_bytes()))
}

fn user(_: &str, id: &str) -> String {
    format!("acb_t_{id}")
}

fn topics(tenant: &str, _: &str) -> String {
    format!("acb.{tenant}.")
}

/// A statement that holds `what`, with `part` in what is bound to it.
fn sql(what: &'static str, part: impl AsRef<[u8]>) -> Matches {
    let part = part.as_ref().to_vec();
    Box::new(move |request| request.what.contains(what) && request.holds(&part))
}

/// The COMMIT of a transaction with this statement.
fn commit(statement: &'static str, part: impl AsRef<[u8]>) -> Matches {
    let part = part.as_ref().to_vec();
    Box::new(move |request| request.what == "COMMIT" && request.holds(statement.as_bytes()) && request.holds(&part))
}

fn bytes(id: &str) -> Vec<u8> {
    hex::decode(id).unwrap_or_default()
}

/// A request by its method and path, with `part` in its body.
fn http(method: &'static str, path: String, part: &'static str) -> Matches {
    Box::new(move |request| {
        let asked = request.what.strip_prefix(method).map(str::trim_start).and_then(|path| path.split('?').next());
        asked == Some(path.as_str()) && (part.is_empty() || request.holds(part.as_bytes()))
    })
}

fn hub(kind: &str, tenant: &str) -> String {
    format!("/apis/apps/v1/namespaces/acbhub-{tenant}/{kind}")
}

fn resource(tenant: &str, part: &str) -> String {
    format!("/apis/acb.dev/v1alpha1/tenants/{tenant}{part}")
}

const CONFLICT: Late = Late::Refused(&[" 409 "]);
/// By its epoch, or because PostgreSQL has ended the transaction of somebody who said nothing for 10 s.
const NOT_THE_LEADER: Late = Late::Refused(&["ACB01", "25P03"]);

const SAMPLE: Write = Write {
    tenant: "",
    via: Protocol::Http,
    is_there: true,
    before: &[],
    cause: &[Act::Touch],
    matches: |_, _| Box::new(|_| false),
    meanwhile: &[],
    anew: false,
    late: Late::Arrives,
};

/// To Kafka, which refuses nobody: what comes late is undone.
pub(super) const KAFKA: &[Write] = &[
    Write {
        tenant: "topic-made",
        via: Protocol::Kafka,
        cause: &[Act::Spec(|spec| {
            let notes = spec["contextTypes"][0].clone();
            spec["contextTypes"] = json!([notes, {"name": "more", "partitions": 1, "retention": "1d"}]);
        })],
        matches: |tenant, id| kafka("CreateTopics", |tenant, _| format!("acb.{tenant}.more"), tenant, &id),
        meanwhile: &[Act::Spec(|spec| spec["contextTypes"][1]["retention"] = json!("2d"))],
        ..SAMPLE
    },
    Write {
        tenant: "topic-configured",
        via: Protocol::Kafka,
        cause: &[Act::Spec(|spec| notes(spec, "retention", json!("2d")))],
        matches: |tenant, id| kafka("IncrementalAlterConfigs", topics, tenant, &id),
        meanwhile: &[Act::Spec(|spec| notes(spec, "retention", json!("3d")))],
        ..SAMPLE
    },
    Write {
        tenant: "topic-grown",
        via: Protocol::Kafka,
        cause: &[Act::Spec(|spec| notes(spec, "partitions", json!(2)))],
        matches: |tenant, id| kafka("CreatePartitions", topics, tenant, &id),
        meanwhile: &[Act::Spec(|spec| notes(spec, "partitions", json!(3)))],
        ..SAMPLE
    },
    Write {
        tenant: "topic-removed",
        via: Protocol::Kafka,
        cause: &[Act::Delete],
        matches: |_, _| Box::new(|_| false),
        anew: true,
        late: Late::UnknownTopic,
        ..SAMPLE
    },
    Write {
        tenant: "user-made",
        via: Protocol::Kafka,
        cause: &[Act::Kafka(|username| KafkaStep::RemoveUser { username }), Act::Touch],
        matches: |tenant, id| kafka("AlterUserScramCredentials", user, tenant, &id),
        meanwhile: &[Act::SecretGone("hub-kafka-1")],
        ..SAMPLE
    },
    Write {
        tenant: "quota-set",
        via: Protocol::Kafka,
        cause: &[Act::Spec(|spec| bandwidth(spec, 600))],
        matches: |tenant, id| kafka("AlterClientQuotas", user, tenant, &id),
        meanwhile: &[Act::Spec(|spec| bandwidth(spec, 900))],
        ..SAMPLE
    },
    Write {
        tenant: "rights-given",
        via: Protocol::Kafka,
        cause: &[Act::Kafka(|username| KafkaStep::RemoveUser { username }), Act::Touch],
        matches: |tenant, id| kafka("CreateAcls", user, tenant, &id),
        ..SAMPLE
    },
    Write {
        tenant: "rights-taken",
        via: Protocol::Kafka,
        cause: &[Act::Kafka(|username| KafkaStep::EnsureAcls { username, prefix: "acb.somebody-else.".to_owned() }), Act::Touch],
        matches: |tenant, id| kafka("DeleteAcls", user, tenant, &id),
        ..SAMPLE
    },
];

/// To PostgreSQL, which checks who leads.
pub(super) const POSTGRES: &[Write] = &[
    Write {
        tenant: "login-made",
        via: Protocol::Postgres,
        cause: &[Act::NoLogin, Act::Touch],
        matches: |_, id| sql("acb_provision.ensure_login", id),
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
    Write {
        tenant: "row-written",
        via: Protocol::Postgres,
        cause: &[Act::Spec(|spec| bandwidth(spec, 600))],
        matches: |tenant, _| sql("INSERT INTO acb.tenant", tenant),
        meanwhile: &[Act::Spec(|spec| bandwidth(spec, 900))],
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
    Write {
        tenant: "row-committed",
        via: Protocol::Postgres,
        cause: &[Act::Spec(|spec| bandwidth(spec, 600))],
        matches: |tenant, _| commit("INSERT INTO acb.tenant", tenant),
        meanwhile: &[Act::Spec(|spec| bandwidth(spec, 900))],
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
    Write {
        tenant: "agent-committed",
        via: Protocol::Postgres,
        cause: &[Act::Agent],
        matches: |tenant, _| commit("INSERT INTO acb.agent", agent(tenant)),
        meanwhile: &[Act::AgentKeyGone],
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
    Write {
        tenant: "agent-removed",
        via: Protocol::Postgres,
        before: &[Act::Agent],
        cause: &[Act::AgentGone],
        matches: |_, id| sql("DELETE FROM acb.agent WHERE tenant_id = $1 AND agent_id = $2", bytes(&id)),
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
    Write {
        tenant: "login-barred",
        via: Protocol::Postgres,
        cause: &[Act::Delete],
        matches: |_, id| sql("acb_provision.disable_login", id),
        anew: true,
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
    Write {
        tenant: "sessions-ended",
        via: Protocol::Postgres,
        cause: &[Act::Delete],
        matches: |_, id| sql("acb_provision.end_sessions", id),
        anew: true,
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
    Write {
        tenant: "row-removed",
        via: Protocol::Postgres,
        cause: &[Act::Delete],
        matches: |_, id| commit("DELETE FROM acb.tenant", bytes(&id)),
        anew: true,
        late: NOT_THE_LEADER,
        ..SAMPLE
    },
];

/// To Kubernetes, which refuses what is about an older version.
pub(super) const KUBERNETES: &[Write] = &[
    // Nothing can say to it that there must be none yet, but of Secrets: what comes late is undone as soon as it is seen.
    Write {
        tenant: "namespace-made",
        is_there: false,
        matches: |tenant, _| http("PATCH", format!("/api/v1/namespaces/acb-{tenant}"), ""),
        meanwhile: &[Act::Spec(|spec| spec["tier"] = json!("Starter"))],
        ..SAMPLE
    },
    Write {
        tenant: "deployment-made",
        is_there: false,
        matches: |tenant, _| http("PATCH", hub("deployments/hub", tenant), ""),
        meanwhile: &[Act::Spec(|spec| spec["hub"]["replicas"] = json!(2))],
        ..SAMPLE
    },
    Write {
        tenant: "secret-made",
        is_there: false,
        matches: |tenant, _| http("POST", format!("/api/v1/namespaces/acbhub-{tenant}/secrets"), "hub-postgres-1"),
        late: CONFLICT,
        ..SAMPLE
    },
    Write {
        tenant: "key-made",
        cause: &[Act::Agent],
        matches: |tenant, _| http("POST", format!("/api/v1/namespaces/acb-{tenant}/secrets"), "-worker-api-key-1"),
        late: CONFLICT,
        ..SAMPLE
    },
    Write {
        tenant: "deployment-changed",
        cause: &[Act::Spec(|spec| spec["hub"]["replicas"] = json!(2))],
        matches: |tenant, _| http("PATCH", hub("deployments/hub", tenant), ""),
        meanwhile: &[Act::Spec(|spec| spec["hub"]["replicas"] = json!(3))],
        late: CONFLICT,
        ..SAMPLE
    },
    Write {
        tenant: "deployment-removed",
        cause: &[Act::Delete],
        matches: |tenant, _| http("DELETE", hub("deployments/hub", tenant), ""),
        anew: true,
        late: CONFLICT,
        ..SAMPLE
    },
    Write {
        tenant: "status-written",
        cause: &[Act::Spec(|spec| bandwidth(spec, 600))],
        matches: |tenant, _| http("PATCH", resource(tenant, "/status"), ""),
        meanwhile: &[Act::Spec(|spec| bandwidth(spec, 900))],
        late: CONFLICT,
        ..SAMPLE
    },
    Write {
        tenant: "finalizer-added",
        is_there: false,
        matches: |tenant, _| http("PATCH", resource(tenant, ""), ""),
        late: CONFLICT,
        ..SAMPLE
    },
    Write {
        tenant: "finalizer-removed",
        cause: &[Act::Delete],
        matches: |tenant, _| http("PATCH", resource(tenant, ""), ""),
        anew: true,
        late: CONFLICT,
        ..SAMPLE
    },
];

impl Write {
    pub(super) fn matches(&self, id: String) -> Matches {
        match self.late {
            // By its id; the name is nowhere in it. Of this round it is the only one.
            Late::UnknownTopic => Box::new(|request| request.what == "DeleteTopics"),
            _ => (self.matches)(self.tenant, id),
        }
    }

    /// Whether what came back is as it must be.
    pub(super) fn is_right(&self, answer: &[u8]) -> bool {
        match self.late {
            Late::Arrives => !answer.is_empty(),
            Late::Refused(texts) => {
                let text = String::from_utf8_lossy(answer);
                texts.iter().any(|wanted| text.contains(wanted))
            }
            // Version 6: length, correlation, no tags, throttle, one topic more than there are, no name, its id, the code.
            Late::UnknownTopic => answer.get(31..33) == Some(&100_i16.to_be_bytes()),
        }
    }
}

/// Does what is to be done about several tenants: what the operators see comes last, and at once.
pub(super) fn act(stage: &mut Stage<'_>, acts: &[(&'static str, &'static [Act])]) -> Result<()> {
    let (mut applied, mut deleted, mut agents) = (Vec::new(), Vec::new(), Vec::new());
    for (tenant, acts) in acts {
        for act in *acts {
            match act {
                Act::Spec(edit) => {
                    stage.edit(tenant, |manifest| edit(&mut manifest["spec"]));
                    applied.push(*tenant);
                }
                Act::Touch => {
                    stage.edit(tenant, |manifest| {
                        let before = manifest["metadata"]["labels"]["touched"].as_str().and_then(|text| text.parse::<u64>().ok());
                        manifest["metadata"]["labels"]["touched"] = json!((before.unwrap_or_default() + 1).to_string());
                    });
                    applied.push(*tenant);
                }
                Act::Delete => deleted.push(*tenant),
                Act::Agent => agents.push(*tenant),
                Act::AgentGone => {
                    let (name, space) = (agent(tenant), format!("acb-{tenant}"));
                    stage.kubectl(&["--namespace", &space, "delete", "agents.acb.dev", &name, "--wait=false"])?;
                }
                Act::AgentKeyGone => {
                    let (name, space) = (format!("{}-api-key-1", agent(tenant)), format!("acb-{tenant}"));
                    stage.kubectl(&["--namespace", &space, "delete", "secret", &name])?;
                }
                Act::SecretGone(name) => {
                    stage.kubectl(&["--namespace", &format!("acbhub-{tenant}"), "delete", "secret", name])?;
                }
                Act::Kafka(step) => stage.kafka(&[step(user("", &stage.id(tenant)?))])?,
                Act::NoLogin => stage.sql(&format!("ALTER ROLE {} NOLOGIN", user("", &stage.id(tenant)?)))?,
            }
        }
    }
    applied.dedup();
    stage.apply(applied)?;
    for tenant in agents {
        stage.apply_agent(tenant)?;
    }
    if !deleted.is_empty() {
        let mut arguments = vec!["delete", "--wait=false", "tenants.acb.dev"];
        arguments.extend(deleted);
        stage.kubectl(&arguments)?;
    }
    Ok(())
}
