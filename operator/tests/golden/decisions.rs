//! What is decided while something is wrong: a system is away, a namespace is gone, a Tenant is stalled, a newer version wrote a resource.

use acb_crds::{Agent, Tenant, schema::Kind};
use acb_operator::{
    agent,
    condition::Reason,
    effect::{EffectError, kubernetes::ObjectKey},
    plan::{AgentRow, Plan, Step},
    platform::Platform,
    tenancy::{Tenancy, Unreadable},
    tenant::{self, Decision, Read, Stage, adoption},
};
use serde_json::json;

use crate::given::{
    agent_named, agent_text, agent_world, apply, census, converged, first, holds, kafka_platform, plan, platform, sample,
    tenancy, tenant_text,
};

fn away<T>(system: &str) -> Read<T> {
    Read::Away(EffectError::unavailable(system, "down"))
}

fn deleted(tenancy: &Tenancy) -> Tenant {
    let mut tenant = first(tenancy);
    tenant.metadata.deletion_timestamp = tenant.metadata.creation_timestamp.clone();
    tenant
}

fn stages(tenant: &Tenant, world: &tenant::World, platform: &Platform) -> Vec<Stage> {
    match tenant::decide(tenant, world, platform) {
        Decision::TakeDown { stages, .. } => stages,
        other => panic!("{other:?}"),
    }
}

/// What a driver would do of the stages, and what it would wait for.
fn taken_down(tenant: &Tenant, world: &mut tenant::World, platform: &Platform) -> (String, Vec<&'static str>) {
    let (mut steps, mut left) = (Vec::new(), Vec::new());
    for stage in stages(tenant, world, platform) {
        if stage.is_last && !left.is_empty() {
            left.push(stage.what);
            continue;
        }
        steps.extend(stage.plan.steps);
        left.extend(stage.away.map(|_| stage.what));
    }
    let plan = Plan { steps };
    apply(world, &plan);
    (plan.to_string(), left)
}

fn given(policy: &str) -> Tenancy {
    tenancy(&tenant_text("acme", &format!("{{tier: Free, deletionPolicy: {policy}, contextTypes: [{{name: documents}}]}}")))
}

#[test]
fn a_system_that_is_away_holds_up_its_own_stage_and_the_last_ones() {
    let kafka = kafka_platform();
    for policy in ["Retain", "Delete"] {
        let given = given(policy);
        let tenant = deleted(&given);
        let mut world = converged(&given, &kafka);
        let observed = std::mem::replace(&mut world.kafka, away("Kafka"));
        let (done, left) = taken_down(&tenant, &mut world, &kafka);
        assert!(done.contains("- Deployment acbhub-acme/hub") && done.contains("- postgres login"), "{done}");
        assert!(!done.contains("every row") && !done.contains("- Namespace") && !done.contains("kafka"), "{done}");
        assert_eq!(left[0], "the user in Kafka", "{left:?}");
        // It comes back, and only what was left is done.
        world.kafka = observed;
        let (rest, left) = taken_down(&tenant, &mut world, &kafka);
        assert!(rest.contains("- kafka user") && !rest.contains("Deployment") && left.is_empty(), "{rest} {left:?}");
        assert_eq!(rest.contains("- kafka topic"), policy == "Delete");
        let left = plan(&tenant, &world, &kafka);
        // A login that is barred is not seen to be without sessions.
        let is_bar = |step: &acb_operator::plan::Step| step.to_string().contains("barred");
        assert!(policy == "Retain" || left == Plan::default(), "removed once: {left}");
        assert!(left.steps.iter().all(is_bar), "removed once: {left}");
    }
    // And the other way round.
    let given = given("Delete");
    let mut world = converged(&given, &kafka);
    world.postgres = away("PostgreSQL");
    let (done, left) = taken_down(&deleted(&given), &mut world, &kafka);
    assert!(done.contains("- Deployment") && done.contains("- kafka user") && !done.contains("topic"), "{done}");
    assert_eq!(left, ["the login in PostgreSQL", "the topics in Kafka", "the rows in PostgreSQL", "the namespaces"]);
}

#[test]
fn sessions_that_outlived_the_bar_are_ended() {
    let given = given("Retain");
    let mut world = converged(&given, &platform());
    // The login was barred, and PostgreSQL was gone before its sessions were ended.
    world.postgres.known_mut().unwrap().login.as_mut().unwrap().enabled = false;
    let (done, _) = taken_down(&deleted(&given), &mut world, &platform());
    assert!(done.contains("- postgres login"), "{done}");
    world.postgres.known_mut().unwrap().login = None;
    let (done, _) = taken_down(&deleted(&given), &mut world, &platform());
    assert!(!done.contains("- postgres login"), "{done}");
}

#[test]
fn topics_that_no_row_speaks_for_are_not_said_to_be_gone() {
    let kafka = kafka_platform();
    let given = given("Delete");
    let mut world = converged(&given, &kafka);
    // A database that was restored to a time before the tenant, or set up anew.
    world.postgres.known_mut().unwrap().tenant = None;
    let (done, left) = taken_down(&deleted(&given), &mut world, &kafka);
    assert!(!done.contains("topic") && !done.contains("- Namespace"), "{done}");
    assert_eq!(left, ["the topics in Kafka", "the rows in PostgreSQL", "the namespaces"]);
    let stages = stages(&deleted(&given), &world, &kafka);
    let refusal = stages.iter().find_map(|stage| stage.away.clone()).unwrap();
    assert!(matches!(refusal, EffectError::Refused { .. }), "{refusal}");
    let text = refusal.to_string();
    assert!(text.contains("acb.acme.documents, acb.acme.sys.audit") && text.len() < 600, "{text}");
    // They were removed by hand.
    world.kafka.known_mut().unwrap().topics.clear();
    assert_eq!(taken_down(&deleted(&given), &mut world, &kafka).1, Vec::<&str>::new());
}

#[test]
fn a_namespace_that_is_gone_or_lost_its_label_protects_nothing() {
    let kafka = kafka_platform();
    let text = "{tier: Free, agentNamespace: team-a, deletionPolicy: Delete, admins: [{kind: Group, name: team-a}]}";
    let given = tenancy(&tenant_text("acme", text));
    let mut world = crate::given::world(&given);
    let key = ObjectKey::new("v1", "Namespace", "", "team-a");
    let labelled =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"acb.dev/tenant": "acme"}}});
    world.objects.insert(key.clone(), labelled);
    let steps = plan(&first(&given), &world, &kafka);
    apply(&mut world, &steps);
    let tenant = deleted(&given);

    let mut gone = world.clone();
    gone.objects.retain(|known, _| known.namespace != "team-a" && *known != key);
    let removal = plan(&tenant, &gone, &kafka);
    holds("deleted-given-namespace-gone", &removal);
    let mut unlabelled = world.clone();
    unlabelled.objects.insert(key.clone(), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}));
    let all = plan(&tenant, &unlabelled, &kafka).to_string();
    for removed in [
        "- Deployment acbhub-acme/hub",
        "- Namespace acbhub-acme",
        "- kafka topic acb.acme.sys.messages",
        "- postgres every row of tenant",
    ] {
        assert!(removal.to_string().contains(removed), "gone: {removed} is not in\n{removal}");
        assert!(all.contains(removed), "unlabelled: {removed} is not in\n{all}");
    }
    // What ACB has in it is known by its own label. The platform's namespace stays, as the platform left it.
    assert!(all.contains("- RoleBinding team-a/acb-operator") && all.contains("- RoleBinding team-a/acb-tenant-admins"), "{all}");
    assert!(!all.contains("Namespace team-a"), "{all}");
    // Another Tenant's by now: nothing in it is touched.
    let theirs =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"acb.dev/tenant-uid": "x"}}});
    unlabelled.objects.insert(key, theirs);
    assert!(!plan(&tenant, &unlabelled, &kafka).to_string().contains("team-a"));
    // A hub's namespace that lost its UID is known by the Tenant's own row.
    let hub = ObjectKey::new("v1", "Namespace", "", "acbhub-acme");
    world.objects.insert(hub, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acbhub-acme"}}));
    assert!(plan(&tenant, &world, &kafka).to_string().contains("- Deployment acbhub-acme/hub"));
}

#[test]
fn a_namespace_that_the_platform_gave_is_released_with_retained_data_too() {
    let given = tenancy(&tenant_text("acme", "{tier: Free, agentNamespace: team-a, admins: [{kind: Group, name: team-a}]}"));
    let mut world = crate::given::world(&given);
    let space =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"acb.dev/tenant": "acme"}}});
    world.objects.insert(ObjectKey::of(&space).unwrap(), space);
    let steps = plan(&first(&given), &world, &platform());
    apply(&mut world, &steps);
    let removal = plan(&deleted(&given), &world, &platform()).to_string();
    for released in ["- RoleBinding team-a/acb-tenant-admins", "- RoleBinding team-a/acb-operator", "+ Namespace team-a"] {
        assert!(removal.contains(released), "{removal}");
    }
    assert!(!removal.contains("every row") && !removal.contains("- Namespace"), "{removal}");
}

#[test]
fn a_wrong_annotation_hides_no_adopted_login() {
    let kafka = kafka_platform();
    let given = given("Delete");
    let mut adopting = first(&given);
    let earlier = "00112233445566778899";
    let mut world = crate::given::world(&given);
    let adopt = |tenant: &mut Tenant, id: &str| {
        tenant.metadata.annotations = Some([("acb.dev/adopt".to_owned(), id.to_owned())].into());
    };
    let identify = |tenant: &Tenant, world: &tenant::World| {
        let space = world.objects.get(&ObjectKey::new("v1", "Namespace", "", "acbhub-acme"));
        let wanted = adoption::wanted(tenant, space);
        let identity = adoption::identity(tenant, wanted.as_deref(), &world.tenancy.tenants, Some("acme"));
        Some(identity.or_recorded(adoption::recorded(tenant, space)))
    };
    adopt(&mut adopting, earlier);
    world.identity = identify(&adopting, &world);
    let steps = plan(&adopting, &world, &kafka);
    apply(&mut world, &steps);
    for wrong in ["nonsense", "99887766554433221100"] {
        let mut tenant = deleted(&given);
        adopt(&mut tenant, wrong);
        world.identity = identify(&tenant, &world);
        let removal = plan(&tenant, &world, &kafka).to_string();
        for removed in [format!("login acb_t_{earlier}"), format!("kafka user acb_t_{earlier}"), "- Deployment".to_owned()] {
            assert!(removal.contains(&removed), "{wrong}: {removed} is not in\n{removal}");
        }
    }
}

fn refused(tenant: &Tenant, world: &tenant::World, platform: &Platform) -> (Vec<Reason>, String) {
    match tenant::decide(tenant, world, platform) {
        Decision::Refused { problems, restraint, .. } => {
            (problems.iter().map(|problem| problem.reason).collect(), restraint.to_string())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stalled_tenant_is_suspended_and_what_it_lost_is_taken_away() {
    let kafka = kafka_platform();
    let given = sample("acme.yaml");
    let mut world = converged(&given, &kafka);
    // The platform lowers a tier, and the spec is above it.
    let mut lowered = kafka.clone();
    lowered.tiers = serde_json::from_value(
        json!({"Professional": {"replicas": 1, "tenant": {"maxAgents": 2}}, "Starter": {"replicas": 1}, "Free": {"replicas": 1}}),
    )
    .unwrap();
    let mut tenant = first(&given);
    let (reasons, smaller) = refused(&tenant, &world, &lowered);
    assert!(reasons.contains(&Reason::AboveTier), "{reasons:?}");
    assert!(smaller.contains("postgres tenant acme") && smaller.contains("maxAgents 2"), "{smaller}");
    // An agent that was let go meanwhile.
    let known = agent_world(&given, &kafka);
    let worker = agent_named(&given, "worker-a");
    let row = tenant_row_of(&worker, &known);
    let postgres = world.postgres.known_mut().unwrap();
    postgres.agents.insert(row.id.clone(), row.clone());
    world.tenancy.agents.retain(|agent| agent.metadata.uid != worker.metadata.uid);
    tenant.spec.suspend = Some(true);
    let (_, all) = refused(&tenant, &world, &lowered);
    assert!(all.contains("postgres tenant acme") && all.contains("suspended"), "{all}");
    assert!(all.contains("agent worker-a (agent-full, suspended"), "{all}");
    // Done once; and it stays stalled.
    let Decision::Refused { restraint, .. } = tenant::decide(&tenant, &world, &lowered) else { panic!("not refused") };
    apply(&mut world, &restraint);
    assert_eq!(refused(&tenant, &world, &lowered).1, Plan::default().to_string());
    // Nothing is loosened while it is stalled: neither by the tier, nor by the spec.
    tenant.spec.suspend = None;
    lowered.tiers =
        serde_json::from_value(json!({"Professional": {"replicas": 1}, "Starter": {"replicas": 1}, "Free": {"replicas": 1}}))
            .unwrap();
    assert_eq!(refused(&tenant, &world, &lowered).1, Plan::default().to_string());
    // What PostgreSQL holds is another tenant's: nothing is done to it.
    world.postgres.known_mut().unwrap().tenant.as_mut().unwrap().name = "globex".into();
    tenant.spec.suspend = Some(true);
    assert_eq!(refused(&tenant, &world, &lowered).1, Plan::default().to_string());
}

fn tenant_row_of(agent: &Agent, world: &agent::World) -> AgentRow {
    agent::plan::agent_row(&agent::validate::validate(agent, world).unwrap())
}

#[test]
fn what_takes_something_away_comes_before_what_an_api_server_may_refuse() {
    let (given, platform) = (sample("acme.yaml"), platform());
    let world = converged(&given, &platform);
    let mut tenant = first(&given);
    tenant.spec.suspend = Some(true);
    tenant.spec.hub.as_mut().unwrap().ingress_peers =
        serde_json::from_value(json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}])).unwrap();
    let steps = plan(&tenant, &world, &platform);
    assert!(steps.steps[0].to_string().contains("postgres tenant acme"), "{steps}");
    assert!(steps.to_string().contains("NetworkPolicy"), "{steps}");
    // One that it would refuse is refused here, and suspended all the same.
    tenant.spec.hub.as_mut().unwrap().ingress_peers =
        serde_json::from_value(json!([{"ipBlock": {"cidr": "10.0.0.0/99"}}])).unwrap();
    let (reasons, restraint) = refused(&tenant, &world, &platform);
    assert_eq!(reasons, [Reason::InvalidSpec]);
    assert!(restraint.contains("suspended"), "{restraint}");
}

#[test]
fn a_store_that_is_away_stops_only_the_steps_that_need_it() {
    let kafka = kafka_platform();
    let given = sample("acme.yaml");
    let world = converged(&given, &kafka);
    let mut tenant = first(&given);
    tenant.spec.suspend = Some(true);
    tenant.spec.hub.as_mut().unwrap().replicas = Some(3);
    tenant.spec.context_types[0].retention = Some(acb_crds::Retention::from_days(1));
    let of = |world: &tenant::World| match tenant::decide(&tenant, world, &kafka) {
        Decision::Converge { plan, away, .. } => (plan.to_string(), away.len()),
        other => panic!("{other:?}"),
    };
    let (without_kafka, away_now) = of(&tenant::World { kafka: away("Kafka"), ..world.clone() });
    assert_eq!(away_now, 1);
    assert!(without_kafka.contains("postgres tenant acme") && without_kafka.contains("(3 replicas)"), "{without_kafka}");
    assert!(!without_kafka.contains("kafka"), "{without_kafka}");
    assert!(!without_kafka.contains("documents (4 partitions, 1d"), "types wait for their topics: {without_kafka}");
    let (without_postgres, _) = of(&tenant::World { postgres: away("PostgreSQL"), ..world.clone() });
    assert!(without_postgres.contains("(3 replicas)") && without_postgres.contains("kafka topic"), "{without_postgres}");
    assert!(!without_postgres.contains("postgres"), "{without_postgres}");
    let (without_cluster, _) = of(&tenant::World { kubernetes: away("the API server"), ..world.clone() });
    assert!(
        without_cluster.starts_with("+ postgres tenant acme") && !without_cluster.contains("Deployment"),
        "{without_cluster}"
    );
    // Nothing is made of a name that PostgreSQL may hold another's data of.
    let fresh = tenant::World { postgres: away("PostgreSQL"), ..crate::given::world(&given) };
    assert_eq!(of(&fresh).0, Plan::default().to_string());
    // A hub is first started when every store knows it.
    let fresh = tenant::World { kafka: away("Kafka"), ..crate::given::world(&given) };
    let steps = of(&fresh).0;
    assert!(steps.contains("+ NetworkPolicy") && !steps.contains("Deployment"), "{steps}");
    // Nor is a row made, which would say that the topics under its name are its own.
    assert!(!steps.contains("+ postgres"), "{steps}");
}

#[test]
fn a_password_is_left_as_it_is_while_nobody_says_whether_it_works() {
    let kafka = kafka_platform();
    let given = sample("acme.yaml");
    let mut world = converged(&given, &kafka);
    let unknown = acb_operator::observed::LoginState::Unknown;
    (world.login, world.previous_login) = (unknown, unknown);
    world.kafka.known_mut().unwrap().user = unknown;
    world.unanswered.push(EffectError::unavailable("PostgreSQL", "logging in was not answered"));
    let Decision::Converge { plan, away, .. } = tenant::decide(&first(&given), &world, &kafka) else { panic!("not converging") };
    assert_eq!((plan, away.len()), (Plan::default(), 1));
}

#[test]
fn an_address_of_a_load_balancer_comes_into_the_certificate_and_costs_one_roll() {
    let given = tenancy(&tenant_text("acme", "{tier: Free, hub: {service: {type: LoadBalancer}}}"));
    let platform = platform();
    let mut world = converged(&given, &platform);
    let key = ObjectKey::new("v1", "Service", "acbhub-acme", "hub");
    // What is done once the load balancer has these addresses.
    let with = |world: &mut tenant::World, hosts: &[&str]| {
        let ingress: Vec<_> = hosts.iter().map(|host| json!({"hostname": host})).collect();
        world.objects.get_mut(&key).unwrap()["status"] = json!({"loadBalancer": {"ingress": ingress}});
        let steps = plan(&first(&given), world, &platform);
        apply(world, &steps);
        assert_eq!(plan(&first(&given), world, &platform), Plan::default(), "it ends");
        (steps.to_string(), serde_json::to_string(&steps).unwrap())
    };
    let (text, json) = with(&mut world, &["203.0.113.7"]);
    assert!(text.contains("hub-tls-2") && text.contains("Deployment") && json.contains("\"203.0.113.7\""), "{text}");
    let none = Plan::default().to_string();
    for hosts in [&[][..], &["203.0.113.7"], &[], &["203.0.113.7"], &["no name"]] {
        assert_eq!(with(&mut world, hosts).0, none, "one that comes and goes: {hosts:?}");
    }
    let (text, json) = with(&mut world, &["lb.example"]);
    assert!(text.contains("hub-tls-3") && json.contains("\"203.0.113.7\",\"lb.example\""), "{json}");
    // There is a bound to what is kept.
    let many: Vec<String> = (0..20).map(|number| format!("lb-{number:02}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(with(&mut world, &many).1.contains("hub-tls") && with(&mut world, &many).0 == none);
    // A new one has what there is.
    let newest = tenant::newest(&world.secrets, "acbhub-acme", "hub-tls");
    world.outdated.insert(newest);
    let (_, json) = with(&mut world, &["lb.example"]);
    assert!(json.contains("lb.example") && !json.contains("203.0.113.7") && !json.contains("lb-00"), "{json}");
}

fn unreadable(kind: Kind, metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Unreadable {
    Unreadable::new(kind, metadata.clone())
}

#[test]
fn what_a_newer_version_wrote_keeps_its_rows_and_loosens_nothing() {
    let platform = platform();
    let text = tenant_text("acme", "{tier: Free, contextTypes: [{name: documents}]}")
        + &agent_text("acb-acme", "one", "{role: AgentFull, publishes: [notes]}")
        + &agent_text("acb-acme", "two", "{role: Observer}")
        + &crate::given::quota_text("acb-acme", "slow", "{limits: {messagesPerMinute: 5}}");
    let given = tenancy(&text);
    let mut world = converged(&given, &platform);
    let one = agent_named(&given, "one");
    let row = tenant_row_of(&one, &agent_world(&given, &platform));
    world.postgres.known_mut().unwrap().agents.insert(row.id.clone(), row.clone());
    assert_eq!(plan(&first(&given), &world, &platform), Plan::default());

    let older = &mut world.tenancy;
    older.agents.retain(|agent| agent.metadata.uid != one.metadata.uid);
    let quota = older.quotas.remove(0);
    let gone = world.clone();
    world.tenancy.unreadable = vec![unreadable(Kind::Agent, &one.metadata), unreadable(Kind::Quota, &quota.metadata)];
    assert_eq!(plan(&first(&given), &world, &platform), Plan::default(), "it is there");
    let without = plan(&first(&given), &gone, &platform).to_string();
    assert!(
        without.contains("agent one (agent-full, suspended") && without.contains("postgres tenant"),
        "gone is another matter"
    );

    // Nor for the others: their limits stay, and nobody new is let in.
    let two = agent_named(&given, "two");
    let mut agents = agent_world(&given, &platform);
    let limited = AgentRow { limits: json!({"messagesPerMinute": 3}), ..tenant_row_of(&two, &agents) };
    agents.census = census("acb-acme", &world.tenancy, &platform);
    agents.row = Some(limited.clone());
    let validated = acb_operator::agent::validate::validate(&two, &agents).unwrap();
    assert_eq!(validated.limits.messages_per_minute, Some(3));
    for row in [None, Some(AgentRow { suspended: true, ..limited })] {
        agents.row = row;
        let waits = acb_operator::agent::plan::waits_for(&validated, &agents).unwrap();
        assert!(waits.contains("can't read"), "{waits}");
    }
}

#[test]
fn one_that_can_not_be_read_takes_its_place_by_its_age() {
    let mut text = tenant_text("acme", "{tier: Free, limits: {maxAgents: 2}}");
    for name in ["a", "b", "c"] {
        text += &agent_text("acb-acme", name, "{role: Observer}");
    }
    let given = tenancy(&text);
    let refused = |unread: &str| {
        let mut older = given.clone();
        older.agents.retain(|agent| agent.metadata.name.as_deref() != Some(unread));
        older.unreadable = vec![unreadable(Kind::Agent, &agent_named(&given, unread).metadata)];
        let owner = census("acb-acme", &older, &platform());
        let owner = owner.owner("acb-acme").unwrap();
        let out = older.agents.iter().filter(|agent| owner.standing(agent).crowded_out.is_some());
        out.map(|agent| agent.metadata.name.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((refused("a"), refused("b"), refused("c")), (vec!["c".to_owned()], vec!["c".to_owned()], vec![]));
}

/// Found by the campaign: a first plan that broke off, PostgreSQL away, and then a Tenant that was taken for the next of its name.
#[test]
fn no_topic_comes_before_the_row_that_says_whose_it_is() {
    let (platform, tenancy) = (kafka_platform(), tenancy(&tenant_text("acme", "{tier: Free}")));
    let mut world = crate::given::world(&tenancy);
    let whole = plan(&first(&tenancy), &world, &platform);
    let before_the_stores = whole.steps.iter().take_while(|step| !matches!(step, Step::Postgres(_))).cloned().collect();
    apply(&mut world, &Plan { steps: before_the_stores });
    let known = std::mem::replace(&mut world.postgres, away("PostgreSQL"));
    let text = plan(&first(&tenancy), &world, &platform).to_string();
    assert!(!text.contains("kafka"), "{text}");
    // With its user it has a row, and what somebody took away in Kafka is set right.
    world.postgres = known;
    apply(&mut world, &whole);
    world.postgres = away("PostgreSQL");
    world.kafka.known_mut().unwrap().topics.clear();
    let text = plan(&first(&tenancy), &world, &platform).to_string();
    assert!(text.contains("kafka topic acb.acme.sys.messages"), "{text}");
}

#[test]
fn a_tenant_whose_namespace_would_be_the_operators_is_stalled() {
    let platform = Platform { operator_namespace: "acb-prod".into(), ..platform() };
    for text in [tenant_text("prod", "{tier: Free}"), tenant_text("acme", "{tier: Free, agentNamespace: acb-prod}")] {
        let tenancy = tenancy(&text);
        match tenant::decide(&first(&tenancy), &crate::given::world(&tenancy), &platform) {
            Decision::Refused { problems, .. } => {
                assert!(problems.iter().any(|problem| problem.message.contains("is the operator's own")), "{problems:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_autoscaler_has_something_to_measure_against() {
    let spec = "{tier: Enterprise, hub: {autoscaling: {maxReplicas: 3}, resources: {limits: {memory: 2Gi}}}}";
    let tenancy = tenancy(&tenant_text("acme", spec));
    let planned = serde_json::to_string(&plan(&first(&tenancy), &crate::given::world(&tenancy), &platform())).unwrap();
    assert!(planned.contains(r#""resources":{"limits":{"memory":"2Gi"},"requests":{"cpu":"100m"}}"#), "{planned}");
}

#[test]
fn about_an_agent_is_decided_in_one_place() {
    let tenancy = sample("acme.yaml");
    let agent = agent_named(&tenancy, "worker-a");
    let mut world = agent_world(&tenancy, &platform());
    world.tenant_id = Some(adoption::own(&first(&tenancy)));
    let decided = |agent: &Agent, world: &agent::World| match agent::decide(agent, world) {
        agent::Decision::Converge { plan, waits_for, .. } => Ok((plan.to_string(), waits_for)),
        agent::Decision::Refused { problems, restraint } => Err((problems[0].reason, restraint.to_string())),
    };
    let (steps, waits_for) = decided(&agent, &world).unwrap();
    assert!(steps.contains("+ Secret acb-acme/worker-a-api-key-1") && waits_for.is_none(), "{steps}, {waits_for:?}");
    world.row = Some(tenant_row_of(&agent, &world));
    world.tenant_projected = false;
    let (steps, waits_for) = decided(&agent, &world).unwrap();
    let nothing = Plan::default().to_string();
    assert!(steps == nothing && waits_for.is_some_and(|what| what.contains("tenant acme")), "{steps}");
    let mut leaving = agent.clone();
    leaving.metadata.deletion_timestamp = serde_json::from_str("\"2025-01-01T00:00:00Z\"").unwrap();
    let (steps, waits_for) = decided(&leaving, &world).unwrap();
    assert!(steps.contains("- postgres agent") && waits_for.is_none(), "what goes waits for nothing: {steps}");
    let mut stray = agent;
    stray.metadata.namespace = Some("elsewhere".to_owned());
    let (reason, restraint) = decided(&stray, &world).unwrap_err();
    assert!(reason == Reason::UnknownTenant && restraint.contains("suspended"), "{reason}, {restraint}");
}
