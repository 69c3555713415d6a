//! What the operator did becomes leaves of the tree: once, whatever ends or goes back in between.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use acb_hub_core::{
    audit::{
        ports::{AuditStore as _, KeptRecord},
        record::{AuditRecord, OPERATOR, Phase},
    },
    log::bus::{AppendError, Bounds, Bus, BusError, Logged, Offset, Partition, Pending, Record, Tail, TopicInfo, TopicName},
};
use acb_testbed::Postgres;
use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::time::sleep;
use uuid::Uuid;

use crate::world::{TIMES, World, objects, record, root};

fn operations(kept: &[KeptRecord]) -> Vec<String> {
    kept.iter().map(|kept| AuditRecord::decode(&kept.record).unwrap().operation).collect()
}

/// How often the log has the record of this call.
async fn logged(world: &World, call: Uuid) -> usize {
    let records = world.bus.read(&world.topic, 0, 0, 10_000).await.unwrap();
    let read = records.iter().filter_map(|logged| AuditRecord::decode(logged.record.value.as_ref()?).ok());
    read.filter(|read| read.call == call).count()
}

#[tokio::test]
async fn what_the_operator_did_is_in_the_trail_once_and_in_its_order() {
    let world = World::new().await;
    let _sinks = [world.sink("hub-0"), world.sink("hub-1")];
    let mut row = world.tenant.agent_row("planner");
    let agent = world.tenant.project(&row).await;
    row.role = "observer".to_owned();
    world.tenant.project(&row).await;
    // Nothing changes by it.
    world.tenant.project(&row).await;
    world.tenant.remove(agent.id).await;
    let kept = world.grown(4).await;
    assert_eq!(operations(&kept), ["AgentAdded", "ApiKeyIssued", "AgentChanged", "AgentRemoved"]);
    let changed = AuditRecord::decode(&kept[2].record).unwrap();
    assert_eq!((changed.source.as_str(), changed.replica.as_str(), changed.outcome.as_str()), (OPERATOR, "operator", "done"));
    assert_eq!((changed.phase, changed.agent_id, changed.agent.as_str(), changed.key.as_str()), (Phase::Outcome, None, "", ""));
    assert_eq!((changed.object.as_str(), changed.change.as_str()), ("agent planner", "role agent-full to observer"));
    let issued = AuditRecord::decode(&kept[1].record).unwrap();
    let mut parts = agent.api_key.split('_').skip(1);
    assert_eq!(issued.change, format!("key {}", parts.next().unwrap()));
    let secret = parts.next().unwrap().as_bytes();
    assert!(kept.iter().all(|kept| kept.record.windows(secret.len()).all(|part| part != secret)), "no secret is in it");

    sleep(TIMES.hold_every * 5).await;
    let kept = world.grown(4).await;
    assert_eq!(world.store.acts(10).await.unwrap(), []);
    for kept in &kept {
        assert_eq!(logged(&world, AuditRecord::decode(&kept.record).unwrap().call).await, 1);
    }
    assert_eq!(world.signed(4).await.root, root(&kept), "they are signed with the rest");
}

#[tokio::test]
async fn what_a_replica_appended_before_it_ended_is_not_appended_again() {
    let world = World::new().await;
    world.log(0..3).await;
    world.tenant.project(&world.tenant.agent_row("planner")).await;
    let acts = world.store.acts(10).await.unwrap();
    assert_eq!(acts.len(), 2);
    // As a replica does that is killed right after it.
    let appended = Record { key: None, headers: Vec::new(), value: Some(acts[0].clone().record().encode()) };
    world.bus.append(&world.topic, 0, appended).await.unwrap().await.unwrap();
    let _sink = world.sink("hub-1");
    let kept = world.grown(5).await;
    assert_eq!(operations(&kept)[3..], ["AgentAdded", "ApiKeyIssued"]);
    sleep(TIMES.hold_every * 5).await;
    world.grown(5).await;
    for act in acts {
        assert_eq!(logged(&world, act.call).await, 1);
    }
}

/// A log that takes the first act a while after it said that it does not know whether it did.
struct Late {
    bus: Arc<dyn Bus>,
    acts: Arc<AtomicU32>,
}

#[async_trait]
impl Bus for Late {
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        self.bus.topic(topic).await
    }

    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
        let read = record.value.as_ref().and_then(|value| AuditRecord::decode(value).ok());
        if read.is_some_and(|read| read.source == OPERATOR) && self.acts.fetch_add(1, Ordering::SeqCst) == 0 {
            let (bus, topic) = (self.bus.clone(), topic.clone());
            tokio::spawn(async move {
                sleep(TIMES.hold_for / 2).await;
                bus.append(&topic, partition, record).await.unwrap().await.unwrap();
            });
            return Err(AppendError::Unknown("the answer was lost".into()));
        }
        self.bus.append(topic, partition, record).await
    }

    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError> {
        self.bus.tail(topic, from).await
    }

    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        self.bus.read(topic, partition, offset, limit).await
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        self.bus.bounds(topic).await
    }

    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        self.bus.offsets_at(topic, time).await
    }
}

#[tokio::test]
async fn what_the_log_took_without_saying_so_is_not_appended_again() {
    let world = World::new().await;
    world.tenant.project(&world.tenant.agent_row("planner")).await;
    let acts = Arc::new(AtomicU32::default());
    let _sink = world.sink_on(Arc::new(Late { bus: world.bus.clone(), acts: acts.clone() }), "hub-0");
    assert_eq!(operations(&world.grown(2).await), ["AgentAdded", "ApiKeyIssued"]);
    sleep(TIMES.hold_for * 2).await;
    world.grown(2).await;
    assert_eq!(acts.load(Ordering::SeqCst), 2, "each was sent once");
}

#[tokio::test]
async fn after_the_database_went_back_no_act_is_in_the_trail_twice() {
    let world = World::new().await;
    let sink = world.sink("hub-0");
    world.tenant.project(&world.tenant.agent_row("one")).await;
    world.grown(2).await;
    world.tenant.project(&world.tenant.agent_row("two")).await;
    world.grown(4).await;
    let before = world.signed(4).await;
    drop(sink);
    for rows in [
        "DELETE FROM acb.audit_growth WHERE tenant_id = $1",
        "DELETE FROM acb.audit_checkpoint WHERE tenant_id = $1",
        "DELETE FROM acb.audit_node WHERE tenant_id = $1",
        "DELETE FROM acb.audit_record WHERE tenant_id = $1",
        "DELETE FROM acb.operator_act_kept WHERE tenant_id = $1",
        // Of what came last the log alone knows.
        "DELETE FROM acb.operator_act WHERE tenant_id = $1 AND change LIKE 'uid%' AND object = 'agent two'",
    ] {
        assert_ne!(world.sql(rows).await, 0, "{rows}");
    }
    let _sink = world.sink("hub-1");
    let kept = world.grown(4).await;
    assert_eq!((before.root, before.size), (root(&kept), 4), "what was signed before is still true");
    sleep(TIMES.hold_every * 5).await;
    world.grown(4).await;
    // And what is done from then on is there.
    world.tenant.project(&world.tenant.agent_row("three")).await;
    assert_eq!(operations(&world.grown(6).await)[4..], ["AgentAdded", "ApiKeyIssued"]);
}

#[tokio::test]
async fn many_acts_that_waited_are_all_taken() {
    let world = World::new().await;
    let many = "INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change)
                SELECT $1, 'test', 'AgentChanged', 'agent ' || number, '' FROM generate_series(1, 250) AS number";
    assert_eq!(world.sql(many).await, 250);
    let _sink = world.sink("hub-0");
    let kept = world.grown(250).await;
    assert_eq!(objects(&kept), (1..=250).map(|number| format!("agent {number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_hub_wrote_as_an_act_that_was_none_hides_none() {
    let world = World::new().await;
    let forged = AuditRecord { source: OPERATOR.to_owned(), operation: "AgentRemoved".to_owned(), ..record(1) };
    let logged = Record { key: None, headers: Vec::new(), value: Some(forged.encode()) };
    world.bus.append(&world.topic, 0, logged).await.unwrap().await.unwrap();
    let _sink = world.sink("hub-0");
    world.grown(1).await;
    world.tenant.project(&world.tenant.agent_row("planner")).await;
    assert_eq!(operations(&world.grown(3).await), ["AgentRemoved", "AgentAdded", "ApiKeyIssued"]);
}

#[tokio::test]
async fn a_hub_changes_no_act_and_marks_none_of_its_neighbour() {
    let (world, neighbour) = (World::new().await, World::new().await);
    world.tenant.project(&world.tenant.agent_row("planner")).await;
    neighbour.tenant.project(&neighbour.tenant.agent_row("planner")).await;
    let pool = world.store.pool();
    assert_eq!(world.store.acts(10).await.unwrap().len(), 2, "it sees its own alone");
    for denied in [
        "INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change) VALUES (acb.current_tenant(), '', 'x', '', '')",
        "UPDATE acb.operator_act SET change = ''",
        "DELETE FROM acb.operator_act",
        "UPDATE acb.operator_act_kept SET at = now() - interval '1 day'",
        "DELETE FROM acb.operator_act_kept",
        "INSERT INTO acb.operator_act_kept (tenant_id, act, at) SELECT tenant_id, act, now() - interval '1 day' FROM acb.operator_act",
    ] {
        let refused = sqlx::query(denied).execute(pool).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{denied}: {refused}");
    }
    let theirs = neighbour.store.acts(1).await.unwrap()[0].call;
    let mark = "INSERT INTO acb.operator_act_kept (tenant_id, act) VALUES ($1, $2)";
    let as_theirs = sqlx::query(mark).bind(neighbour.tenant.id_bytes()).bind(theirs).execute(pool).await.unwrap_err();
    assert!(as_theirs.to_string().contains("row-level security"), "{as_theirs}");
    let as_own = sqlx::query(mark).bind(world.tenant.id_bytes()).bind(theirs).execute(pool).await.unwrap_err();
    assert!(as_own.to_string().contains("foreign key"), "{as_own}");
    let waiting =
        format!("SELECT count(*) FROM acb.operator_act_kept WHERE tenant_id = decode('{}', 'hex')", neighbour.tenant.id_hex());
    assert_eq!(Postgres::shared().await.number(&waiting).await, 0);
}
