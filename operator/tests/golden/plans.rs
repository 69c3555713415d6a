use acb_operator::{
    agent::{self, StoredApiKey},
    effect::postgres_observe::LoginState,
    plan::{KubernetesStep, Plan, PostgresStep, Step},
    platform::Platform,
    tenancy::Tenancy,
};
use serde_json::json;

use crate::given::{
    agent_named, agent_text, agent_world, apply, converged, first, holds, kafka_platform, plan, platform, quota_text, sample,
    tenancy, tenant_text, world,
};

fn position(plan: &Plan, what: &str) -> usize {
    plan.steps.iter().position(|step| step.to_string().contains(what)).unwrap_or_else(|| panic!("no {what} in\n{plan}"))
}

#[test]
fn a_fresh_tenant() {
    let tenancy = sample("acme.yaml");
    let plan = plan(&first(&tenancy), &world(&tenancy), &platform());
    holds("fresh", &plan);
    assert!(position(&plan, "NetworkPolicy") < position(&plan, "Deployment"), "walls before what they hold");
    assert!(position(&plan, "postgres tenant") < position(&plan, "postgres topic"), "rows refer to the tenant's");
    assert!(position(&plan, "postgres login") < position(&plan, "Deployment"));
}

#[test]
fn a_fresh_tenant_on_kafka() {
    let tenancy = sample("acme.yaml");
    let plan = plan(&first(&tenancy), &world(&tenancy), &kafka_platform());
    holds("fresh-kafka", &plan);
    assert!(!plan.to_string().contains("postgres topic"));
}

#[test]
fn a_converged_tenant_has_nothing_to_do() {
    for platform in [platform(), kafka_platform()] {
        for name in ["acme.yaml", "globex.yaml"] {
            let tenancy = sample(name);
            assert_eq!(plan(&first(&tenancy), &converged(&tenancy, &platform), &platform), Plan::default());
        }
    }
}

#[test]
fn a_login_that_no_longer_serves_gets_its_next_generation() {
    let (tenancy, platform) = (sample("acme.yaml"), kafka_platform());
    let platform = Platform { kafka_authorities: Some("PEM".into()), ..platform };
    let mut world = converged(&tenancy, &platform);
    let login = world.secrets.iter().find(|secret| secret.name == "hub-kafka").unwrap().clone();
    world.outdated.insert(login);
    world.kafka.as_mut().unwrap().user = LoginState::Refused;
    let rotation = plan(&first(&tenancy), &world, &platform);
    let made = position(&rotation, "Secret acbhub-acme/hub-kafka-2");
    assert!(rotation.steps[made].to_string().contains("with the server's authorities"));
    assert!(made < position(&rotation, "kafka user") && position(&rotation, "kafka user") < position(&rotation, "Deployment"));
    assert_eq!(rotation.steps.len(), 3, "{rotation}");
    apply(&mut world, &rotation);
    assert_eq!(plan(&first(&tenancy), &world, &platform), Plan::default());
}

#[test]
fn any_prefix_of_a_plan_leads_to_the_same_end() {
    let (tenancy, platform) = (sample("acme.yaml"), kafka_platform());
    let tenant = first(&tenancy);
    let whole = plan(&tenant, &world(&tenancy), &platform);
    for done in 0..=whole.steps.len() {
        let mut world = world(&tenancy);
        apply(&mut world, &Plan { steps: whole.steps[..done].to_vec() });
        let rest = plan(&tenant, &world, &platform);
        apply(&mut world, &rest);
        assert_eq!(plan(&tenant, &world, &platform), Plan::default(), "after {done} steps");
    }
}

#[test]
fn a_changed_tenant() {
    let platform = platform();
    let before = sample("acme.yaml");
    let mut world = converged(&before, &platform);
    let mut tenant = first(&before);
    tenant.spec.hub.as_mut().unwrap().replicas = Some(3);
    tenant.spec.context_types[0].partitions = Some(8);
    tenant.spec.suspend = Some(true);
    world.tenancy.tenants[0] = tenant.clone();
    holds("changed", &plan(&tenant, &world, &platform));
}

#[test]
fn drift_is_mended() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let mut world = converged(&tenancy, &platform);
    let deployment = world.objects.values_mut().find(|object| object["kind"] == "Deployment").unwrap();
    deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] = json!(true);
    let mended = plan(&first(&tenancy), &world, &platform);
    assert_eq!(mended.to_string(), "+ Deployment acbhub-acme/hub (2 replicas)\n");
}

#[test]
fn a_new_generation_of_a_secret_rolls_the_hub() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let mut world = converged(&tenancy, &platform);
    let mut keys = world.secret("acbhub-acme", "hub-keys");
    keys.generation = 2;
    world.secrets.insert(keys);
    let rolled = plan(&first(&tenancy), &world, &platform);
    assert_eq!(rolled.to_string(), "+ Deployment acbhub-acme/hub (2 replicas)\n");
    assert!(serde_json::to_string(&rolled).unwrap().contains("hub-keys-2"));
}

#[test]
fn a_type_that_an_agent_publishes_gets_a_topic() {
    let platform = platform();
    let world = converged(&sample("globex.yaml"), &platform);
    let text = tenant_text("globex", "{tier: Starter, hub: {replicas: 2}, contextTypes: [{name: documents}, {name: reports}]}")
        + &agent_text("acb-globex", "analyst", "{role: agent-full, publishes: [notes]}");
    let mut after = tenancy(&text);
    after.quotas = sample("globex.yaml").quotas;
    let world = acb_operator::tenant::World { tenancy: after.clone(), ..world };
    let changed = plan(&first(&after), &world, &platform);
    assert!(changed.to_string().contains("+ postgres topic acb.globex.notes (4 partitions, 7d)"), "{changed}");
    assert_eq!(changed.steps.len(), 2, "{changed}");
}

fn agent_plan(tenancy: &Tenancy, name: &str, world: &agent::World, platform: &Platform) -> Plan {
    let agent = agent_named(tenancy, name);
    agent::plan::plan(&agent::validate::validate(&agent, world, platform).unwrap(), world)
}

/// What there is after an agent's plan was applied.
fn apply_agent(world: &mut agent::World, plan: &Plan) {
    for step in &plan.steps {
        match step.clone() {
            Step::Kubernetes(KubernetesStep::EnsureSecret { secret, .. }) => {
                world.secrets.insert(secret);
            }
            Step::Postgres(PostgresStep::ProjectAgent { agent, api_key, .. }) => {
                world.row = Some(agent);
                world.api_key = if api_key.is_some() { StoredApiKey::Current } else { StoredApiKey::Absent };
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn an_agent_from_the_first_to_the_last_day() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let mut world = agent_world(&tenancy, &platform);
    let fresh = agent_plan(&tenancy, "worker-a", &world, &platform);
    holds("agent-fresh", &fresh);
    apply_agent(&mut world, &fresh);
    assert_eq!(agent_plan(&tenancy, "worker-a", &world, &platform), Plan::default());

    let mut changed = world.clone();
    changed.tenancy.quotas[0].spec.limits.messages_per_minute = Some(60);
    holds("agent-quota-changed", &agent_plan(&changed.tenancy.clone(), "worker-a", &changed, &platform));

    let mut suspended = world.tenancy.clone();
    for agent in &mut suspended.agents {
        agent.spec.suspend = Some(true);
    }
    let text = agent_plan(&suspended, "worker-a", &world, &platform).to_string();
    assert!(text.contains("agent worker-a (agent-full, suspended"), "{text}");

    let mut gone = world.tenancy.clone();
    for agent in &mut gone.agents {
        agent.metadata.deletion_timestamp = agent.metadata.creation_timestamp.clone();
    }
    holds("agent-deleted", &agent_plan(&gone, "worker-a", &world, &platform));
}

#[test]
fn an_agent_waits_for_its_tenant() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let world = agent::World { tenancy: tenancy.clone(), ..agent::World::default() };
    let validated = agent::validate::validate(&agent_named(&tenancy, "worker-a"), &world, &platform).unwrap();
    assert_eq!(agent::plan::plan(&validated, &world), Plan::default());
    assert!(agent::plan::waits_for(&validated, &world).unwrap().contains("waiting for tenant acme"));
}

#[test]
fn a_quota_changes_the_tenant() {
    let platform = platform();
    let mut world = converged(&sample("globex.yaml"), &platform);
    world.tenancy.quotas[0].spec.limits.storage_bytes = Some(1_000);
    let quota = quota_text("acb-globex", "few", "{maxAgents: 5}");
    world.tenancy.quotas.extend(tenancy(&quota).quotas);
    holds("quota-changed", &plan(&first(&world.tenancy), &world, &platform));
}

#[test]
fn deletion_retains_or_deletes() {
    for (policy, name, platform) in [
        ("Retain", "deleted-retain", platform()),
        ("Delete", "deleted-delete", platform()),
        ("Delete", "deleted-delete-kafka", kafka_platform()),
    ] {
        let text = tenant_text("acme", &format!("{{tier: Free, deletionPolicy: {policy}, contextTypes: [{{name: documents}}]}}"));
        let mut given = tenancy(&text);
        let mut world = converged(&given, &platform);
        let tenant = &mut given.tenants[0];
        tenant.metadata.deletion_timestamp = tenant.metadata.creation_timestamp.clone();
        let removal = plan(tenant, &world, &platform);
        holds(name, &removal);
        assert!(position(&removal, "- Deployment") < position(&removal, "- postgres login"));
        apply(&mut world, &removal);
        assert_eq!(plan(tenant, &world, &platform), Plan::default(), "removed once");
    }
}
