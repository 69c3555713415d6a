//! What attacks the walls between tenants: what of it is planned, the Job that is not, and what is said of how it ended.

use acb_crds::{Tenant, tenant::IsolationStatus};
use acb_operator::{
    condition::{Outcome, isolation_verified},
    platform::{Platform, PlatformIsolation},
    tenant::{
        self,
        isolation::{self, Mission, Neighbour},
        status::Seen,
    },
};
use serde_json::Value;

use crate::given::{apply, converged, first, holds, kafka_platform, plan, sample, tenancy, tenant_text};

fn on() -> Platform {
    let isolation = PlatformIsolation {
        image: "acb:0.1.0".into(),
        interval_seconds: 86_400,
        neighbours: vec!["canary".into(), "gone".into()],
    };
    Platform { isolation: Some(isolation), ..kafka_platform() }
}

#[test]
fn what_a_job_needs_is_there_while_the_platform_wants_it() {
    let given = sample("acme.yaml");
    let mut world = converged(&given, &kafka_platform());
    let added = plan(&first(&given), &world, &on());
    holds("isolation-on", &added);
    apply(&mut world, &added);
    assert!(plan(&first(&given), &world, &on()).steps.is_empty());
    let removed = plan(&first(&given), &world, &kafka_platform());
    holds("isolation-off", &removed);
    apply(&mut world, &removed);
    assert!(plan(&first(&given), &world, &kafka_platform()).steps.is_empty());
}

fn deployment(world: &tenant::World) -> Value {
    let hub = world.objects.values().find(|object| object["kind"] == "Deployment");
    hub.unwrap().clone()
}

#[test]
fn a_job_has_what_the_hub_logs_in_and_signs_with_and_no_right() {
    let given = sample("acme.yaml");
    let mut hub = deployment(&converged(&given, &on()));
    let placed = serde_json::json!({"nodeAffinity": {}});
    hub["spec"]["template"]["spec"]["affinity"] = placed.clone();
    let neighbour = Neighbour { tenant: "globex".into(), authority: "PEM".into(), ..Neighbour::default() };
    let mission = Mission { neighbours: vec![neighbour], ..Mission::default() };
    let job = isolation::job("acme", "isolation-7", &hub, &mission, &on().isolation.unwrap()).unwrap();
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(job["metadata"]["namespace"], "acbhub-acme");
    assert_eq!(
        (&job["spec"]["backoffLimit"], &pod["restartPolicy"], &pod["automountServiceAccountToken"]),
        (&0.into(), &"Never".into(), &false.into())
    );
    assert_eq!(pod["serviceAccountName"], "isolation");
    let deadline = job["spec"]["activeDeadlineSeconds"].as_u64().unwrap();
    assert!(isolation::PROGRAM_SECONDS + 120 <= deadline, "what it found goes with its pod");
    assert_eq!(pod["affinity"], placed, "a node that the hub may not be on");
    let volumes: Vec<String> = pod["volumes"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(volumes.len(), 5, "{volumes:?}");
    let of = |name: &str| volumes.iter().find(|volume| volume.contains(&format!("\"name\":\"{name}\""))).unwrap();
    assert!(of("keys").contains(r#""items":[{"key":"signing.key","path":"signing.key"}]"#), "{}", of("keys"));
    assert!(of("tls").contains(r#""items":[{"key":"ca.crt","path":"ca.crt"}]"#), "{}", of("tls"));
    assert!(of("postgres").contains("hub-postgres-1") && of("kafka").contains("hub-kafka-1"));
    let text = pod.to_string();
    for hardened in
        [r#""runAsNonRoot":true"#, r#""readOnlyRootFilesystem":true"#, r#""allowPrivilegeEscalation":false"#, r#""drop":["ALL"]"#]
    {
        assert!(text.contains(hardened), "{hardened}");
    }
    let told = pod["containers"][0]["env"].as_array().unwrap().iter().find(|found| found["name"] == isolation::MISSION).unwrap();
    assert_eq!(serde_json::from_str::<Mission>(told["value"].as_str().unwrap()).unwrap(), mission);
    assert_eq!(isolation::job("acme", "isolation-7", &Value::Null, &mission, &on().isolation.unwrap()), None);
}

fn there(name: &str, index: usize) -> Tenant {
    let mut tenant = first(&tenancy(&tenant_text(name, "{tier: Free}")));
    tenant.metadata.uid = Some(format!("uid-{index}"));
    let status = serde_json::json!({
        "tenantId": format!("{index:020x}"), "hub": {"replicas": 1, "readyReplicas": 1},
        "endpoints": [{"type": "NodePort", "address": "*:30000"}, {"type": "ClusterIP", "address": format!("hub.acbhub-{name}.svc:8443")}],
    });
    tenant.status = Some(serde_json::from_value(status).unwrap());
    tenant
}

#[test]
fn those_that_are_named_are_attacked_and_twenty_others() {
    let own = there("acme", 0);
    let mut all: Vec<Tenant> = (1..60).map(|index| there(&format!("other-{index}"), index)).collect();
    all.push(there("canary", 60));
    all.push(own.clone());
    // Who has no hub, or is on its way out, is nobody to attack.
    let mut without = there("hubless", 61);
    without.status = None;
    all.push(without);
    let all: Vec<&Tenant> = all.iter().collect();
    let isolation = on().isolation.unwrap();
    let draw = |lot: fn(&str) -> String| -> Vec<String> {
        let drawn = isolation::draw(&own, &all, &isolation, lot);
        drawn.iter().map(|tenant| tenant.metadata.name.clone().unwrap()).collect()
    };
    let (first, second) = (draw(str::to_owned), draw(|uid| uid.chars().rev().collect()));
    assert_eq!((first.len(), first[0].as_str()), (21, "canary"));
    assert!(!first.contains(&"acme".to_owned()) && !first.contains(&"hubless".to_owned()));
    assert_ne!(first, second);
    let few: Vec<&Tenant> = all.iter().copied().filter(|tenant| tenant.metadata.name.as_deref() == Some("acme")).collect();
    assert!(isolation::draw(&own, &few, &isolation, str::to_owned).is_empty());
}

#[test]
fn who_was_not_refused_the_last_time_is_attacked_again() {
    let mut own = there("acme", 0);
    let last = IsolationStatus { succeeded: vec!["postgres.read.agent against other-59: 3: rows".into()], ..found() };
    own.status.as_mut().unwrap().isolation = Some(last);
    let all: Vec<Tenant> = (1..60).map(|index| there(&format!("other-{index}"), index)).collect();
    let all: Vec<&Tenant> = all.iter().collect();
    for lot in [str::to_owned, |uid: &str| uid.chars().rev().collect()] as [fn(&str) -> String; 2] {
        let drawn = isolation::draw(&own, &all, &on().isolation.unwrap(), lot);
        let names: Vec<_> = drawn.iter().map(|tenant| tenant.metadata.name.clone().unwrap()).collect();
        assert!(names.len() == 21 && names[0] == "other-59", "{names:?}");
    }
}

#[test]
fn what_got_through_is_said_until_it_is_refused() {
    let through = |line: &str| IsolationStatus { succeeded: vec![line.into()], refused: 186, ..found() };
    let line = isolation::line("hub.token.send", "globex", "got in: here");
    let before = through(&line);
    let stays = |found: IsolationStatus| {
        let kept = isolation::kept(Some(&before), found, |_| true);
        let said = isolation_verified(&kept);
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "AttackSucceeded"), "{kept:?}");
        // However often it is looked.
        let again = isolation::kept(Some(&kept), IsolationStatus::default(), |_| true);
        let once_more = isolation::kept(Some(&again), IsolationStatus::default(), |_| true);
        assert_eq!((again.succeeded.len(), &once_more), (kept.succeeded.len(), &again));
        assert!(said.message.contains("hub.token.send against globex: got in: here"), "{}", said.message);
    };
    stays(IsolationStatus { neighbours: vec!["canary".into()], ..found() });
    stays(IsolationStatus { failure: Some("no image".into()), ..IsolationStatus::default() });
    stays(IsolationStatus { failure: Some("not all were made".into()), ..found() });
    stays(IsolationStatus { refused: 186, inconclusive: vec!["hub.token.send against globex: no answer".into()], ..found() });
    stays(IsolationStatus { unreached: vec!["globex".into()], ..found() });
    stays(IsolationStatus::default());
    let other = through("kafka.read.messages against canary: a record");
    stays(IsolationStatus { neighbours: vec!["canary".into()], ..other });
    let refused = isolation::kept(Some(&before), found(), |_| true);
    assert_eq!((isolation_verified(&refused).status.as_str(), refused.succeeded.len()), ("True", 0));
    let behind_a_door_of_ones_own = through("hub.ids.get-context against globex: got the context");
    let unreached = IsolationStatus { unreached: vec!["globex".into()], ..found() };
    assert!(isolation::kept(Some(&behind_a_door_of_ones_own), unreached, |_| true).succeeded.is_empty());
    // Its victim is gone.
    assert!(isolation::kept(Some(&before), IsolationStatus::default(), |_| false).succeeded.is_empty());
    let many = IsolationStatus { succeeded: (0..10).map(|n| format!("a.{n} against canary: x")).collect(), ..found() };
    assert_eq!(isolation::kept(Some(&before), many, |_| true).succeeded.len(), 10, "what is told is bounded");
}

#[test]
fn a_neighbour_is_known_by_what_it_alone_has() {
    let agents = |names: &[(&str, &str)]| -> Vec<acb_crds::Agent> {
        names
            .iter()
            .map(|(name, group)| {
                serde_json::from_value(serde_json::json!({
                    "apiVersion": acb_crds::API_VERSION, "kind": "Agent", "metadata": {"name": name}, "spec": {"role": "AgentFull", "groups": [group]},
                }))
                .unwrap()
            })
            .collect()
    };
    let own = agents(&[("worker", "all")]);
    let found = isolation::neighbour(&there("globex", 1), "PEM", &agents(&[("worker", "all"), ("alice", "guards")]), &own);
    assert_eq!((found.agent.as_str(), found.group.as_str()), ("alice", "guards"));
    assert_eq!(found.endpoints, ["hub.acbhub-globex.svc:8443"], "no node's address is known by a star");
    let found = isolation::neighbour(&there("globex", 1), &"x".repeat(100_000), &agents(&[("worker", "all")]), &own);
    assert_eq!((found.agent.as_str(), found.group.as_str(), found.authority.as_str()), ("globex-only", "globex-only", ""));
}

fn found() -> IsolationStatus {
    IsolationStatus {
        checked_at: "2026-11-27T16:00:00Z".into(),
        attacks: 187,
        refused: 187,
        neighbours: vec!["canary".into(), "globex".into()],
        ..IsolationStatus::default()
    }
}

#[test]
fn only_attacks_that_were_all_refused_verify() {
    let said = |found: &IsolationStatus| {
        let said = isolation_verified(found);
        (said.status, said.reason, said.message)
    };
    let (status, reason, message) = said(&found());
    assert_eq!((status.as_str(), reason.as_str()), ("True", "AttacksRefused"));
    assert_eq!(message, "of 187 attacks on canary, globex at 2026-11-27T16:00:00Z all were refused");
    let (_, _, message) = said(&IsolationStatus { refused: 180, nothing: 7, ..found() });
    assert!(message.ends_with("Z 180 were refused, and 7 had nothing to be tried on"), "{message}");
    let unreached = IsolationStatus { unreached: vec!["globex".into()], ..found() };
    assert!(said(&unreached).2.contains("globex could not be connected to"), "{unreached:?}");
    let through =
        IsolationStatus { refused: 185, succeeded: vec!["postgres.read.agent against globex: 3 rows".into()], ..found() };
    for broken in [
        &through,
        &IsolationStatus { failure: Some("and then it ended".into()), inconclusive: vec!["x".into()], ..through.clone() },
    ] {
        let (status, reason, message) = said(broken);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "AttackSucceeded"));
        assert!(message.contains("postgres.read.agent against globex: 3 rows"), "{message}");
    }
    for (unproved, why) in [
        (IsolationStatus { failure: Some("no image".into()), ..IsolationStatus::default() }, "AttacksNotMade"),
        (IsolationStatus { refused: 186, inconclusive: vec!["kafka.x".into()], ..found() }, "AttacksInconclusive"),
        (IsolationStatus { refused: 186, ..found() }, "AttacksInconclusive"),
        (IsolationStatus { attacks: 0, refused: 0, ..found() }, "AttacksInconclusive"),
        (IsolationStatus::default(), "NoNeighbour"),
    ] {
        let (status, reason, _) = said(&unproved);
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", why));
    }
}

#[test]
fn what_was_found_stays_said_until_something_else_is_or_the_platform_wants_it_no_more() {
    let given = sample("acme.yaml");
    let mut tenant = first(&given);
    let validated = tenant::validate::validate(&tenant, &converged(&given, &on()), &on()).unwrap();
    let status = |tenant: &Tenant, isolation: Option<IsolationStatus>, platform: &Platform| {
        let seen = Seen { isolation, ..Seen::default() };
        tenant::status::status(tenant, Some(&validated), &Outcome::Ready, &seen, platform, "2026-11-27T16:00:05Z")
    };
    let has = |status: &acb_crds::TenantStatus| status.conditions.iter().any(|found| found.r#type == "IsolationVerified");
    assert!(!has(&status(&tenant, None, &on())), "nobody has looked");
    let said = status(&tenant, Some(found()), &on());
    assert!(has(&said) && said.isolation == Some(found()));
    tenant.status = Some(said.clone());
    assert_eq!(status(&tenant, None, &on()), said, "a leader that knows nothing yet");
    let off = status(&tenant, Some(found()), &kafka_platform());
    assert!(!has(&off) && off.isolation.is_none());
}
