use acb_crds::hub::GatewayRef;
use acb_operator::{
    agent::{self, StoredApiKey},
    effect::{kubernetes::ObjectKey, postgres_observe::LoginState},
    plan::{KubernetesStep, Plan, PostgresStep, SecretRef, Step},
    platform::Platform,
    tenancy::Tenancy,
    tenant,
};
use serde_json::{Value, json};

use crate::given::{
    agent_named, agent_text, agent_world, apply, census, converged, first, holds, kafka_platform, plan, platform, quota_text,
    sample, tenancy, tenant_text, world,
};

/// The same, once asked for a rotation.
fn rotating(tenancy: &Tenancy, value: &str) -> acb_crds::Tenant {
    let mut tenant = first(tenancy);
    tenant.metadata.annotations = Some([("acb.dev/rotate".to_owned(), value.to_owned())].into());
    tenant
}

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
    world.kafka.known_mut().unwrap().user = LoginState::Refused;
    let rotation = plan(&first(&tenancy), &world, &platform);
    let made = position(&rotation, "Secret acbhub-acme/hub-kafka-2");
    assert!(rotation.steps[made].to_string().contains("with the server's authorities"));
    assert!(made < position(&rotation, "kafka user") && position(&rotation, "kafka user") < position(&rotation, "Deployment"));
    assert_eq!(rotation.steps.len(), 3, "{rotation}");
    apply(&mut world, &rotation);
    assert_eq!(plan(&first(&tenancy), &world, &platform), Plan::default());
}

#[test]
fn a_rotation_gives_every_replica_both_passwords_before_a_store_takes_the_new_one() {
    let (tenancy, platform) = (sample("acme.yaml"), kafka_platform());
    let mut world = converged(&tenancy, &platform);
    world.rolled_out = true;
    let asked = rotating(&tenancy, "2026-11-21");
    let secrets = plan(&asked, &world, &platform);
    holds("rotate-1-secrets", &secrets);
    assert!(!secrets.to_string().contains("login acb_t") && !secrets.to_string().contains("kafka user"), "{secrets}");
    for done in 0..=secrets.steps.len() {
        let mut world = world.clone();
        apply(&mut world, &Plan { steps: secrets.steps[..done].to_vec() });
        let rest = plan(&asked, &world, &platform);
        apply(&mut world, &rest);
        assert_eq!(plan(&asked, &world, &platform), Plan::default(), "it waits for the replicas, after {done} steps");
        assert!(world.secrets.iter().all(|secret| secret.generation <= 2));
    }
    apply(&mut world, &secrets);
    assert_eq!(hub(&mut world)["spec"]["template"]["spec"]["volumes"].as_array().unwrap().len(), 7);
    // Meanwhile someone asks once more: one after the other.
    let again = rotating(&tenancy, "2026-11-22");
    assert_eq!(plan(&again, &world, &platform), Plan::default());

    world.rolled_out = true;
    let stores = plan(&asked, &world, &platform);
    holds("rotate-2-stores", &stores);
    apply(&mut world, &stores);
    let clean = plan(&asked, &world, &platform);
    holds("rotate-3-clean", &clean);
    apply(&mut world, &clean);
    assert_eq!(plan(&asked, &world, &platform), Plan::default(), "once for each value");
    assert_eq!(plan(&first(&tenancy), &world, &platform), Plan::default(), "nor for taking the annotation away");
    let next = plan(&again, &world, &platform).to_string();
    assert!(next.contains("hub-postgres-3") && next.contains("hub-kafka-3") && next.contains("hub-keys-3"), "{next}");
}

#[test]
fn what_someone_changes_again_and_again_keeps_no_replaced_credential_alive() {
    let (tenancy, platform) = (sample("acme.yaml"), kafka_platform());
    let asked = rotating(&tenancy, "now");
    let mut world = converged(&tenancy, &platform);
    for _ in 0..2 {
        world.rolled_out = true;
        let steps = plan(&asked, &world, &platform);
        apply(&mut world, &steps);
    }
    // Whatever it is set right to, it is otherwise at the next look.
    let key = ObjectKey::new("policy/v1", "PodDisruptionBudget", "acbhub-acme", "hub");
    world.objects.get_mut(&key).unwrap()["spec"]["maxUnavailable"] = json!(0);
    let steps = plan(&asked, &world, &platform);
    let text = steps.to_string();
    assert!(position(&steps, "+ PodDisruptionBudget") < position(&steps, "- Secret acbhub-acme/hub-postgres-1"), "{text}");
    assert!(text.contains("- Secret acbhub-acme/hub-kafka-1"), "{text}");
}

#[test]
fn what_is_removed_by_hand_in_the_middle_of_a_rotation_never_locks_the_replicas_out() {
    let (tenancy, platform) = (sample("acme.yaml"), kafka_platform());
    let asked = rotating(&tenancy, "now");
    for gone in [1, 2] {
        let mut world = converged(&tenancy, &platform);
        world.rolled_out = true;
        let secrets = plan(&asked, &world, &platform);
        apply(&mut world, &secrets);
        world.secrets.retain(|secret| secret.name != "hub-postgres" || secret.generation != gone);
        // As fetch would find it: the store has the first.
        (world.login, world.previous_login) =
            if gone == 1 { (LoginState::Refused, LoginState::Refused) } else { (LoginState::Works, LoginState::Refused) };
        let rest = plan(&asked, &world, &platform).to_string();
        assert!(rest.contains("+ postgres login"), "without {gone}: {rest}");
    }
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
fn the_operator_is_let_into_a_namespace_before_anything_is_put_there() {
    let tenancy = sample("acme.yaml");
    let plan = plan(&first(&tenancy), &world(&tenancy), &kafka_platform());
    for namespace in ["acb-acme", "acbhub-acme"] {
        let let_in = position(&plan, &format!("RoleBinding {namespace}/acb-operator"));
        assert!(position(&plan, &format!("Namespace {namespace}")) < let_in);
        let there = plan.steps.iter().position(|step| step.to_string().contains(&format!(" {namespace}/"))).unwrap();
        assert_eq!(there, let_in, "{plan}");
    }
    assert!(position(&plan, "kafka quota") < position(&plan, "kafka user"), "no user without a quota");
}

fn hub(world: &mut tenant::World) -> &mut Value {
    world.objects.values_mut().find(|object| object["kind"] == "Deployment").unwrap()
}

#[test]
fn an_autoscaler_decides_within_its_range() {
    let platform = platform();
    let text = |hub: &str| tenancy(&tenant_text("acme", &format!("{{tier: Professional, hub: {hub}}}")));
    let ranged = text("{autoscaling: {minReplicas: 2, maxReplicas: 5}}");
    let mut world = converged(&ranged, &platform);
    assert_eq!(hub(&mut world)["spec"]["replicas"], 2);
    // It scales: nothing to do.
    hub(&mut world)["spec"]["replicas"] = json!(4);
    assert_eq!(plan(&first(&ranged), &world, &platform), Plan::default());
    // Something else of the Deployment changes: the number stays.
    let mut other = first(&ranged);
    other.spec.hub.as_mut().unwrap().node_selector = [("pool".to_owned(), "acme".to_owned())].into();
    let changed = plan(&other, &world, &platform).to_string();
    assert_eq!(changed, "+ Deployment acbhub-acme/hub (4 replicas)\n");
    // Back to a fixed number.
    let fixed = text("{replicas: 3}");
    let steps = plan(&first(&fixed), &tenant::World { tenancy: fixed.clone(), ..world.clone() }, &platform).to_string();
    assert!(steps.contains("- HorizontalPodAutoscaler acbhub-acme/hub") && steps.contains("hub (3 replicas)"), "{steps}");
    // And to a range: the Deployment is never applied without a number.
    let mut world = converged(&fixed, &platform);
    let again = plan(&first(&ranged), &world, &platform);
    assert!(again.to_string().contains("+ HorizontalPodAutoscaler acbhub-acme/hub (2 to 5 replicas)"), "{again}");
    apply(&mut world, &again);
    assert_eq!(hub(&mut world)["spec"]["replicas"], 3);
}

#[test]
fn resources_are_planned_as_an_api_server_stores_them() {
    for (given, stored) in [
        ("{requests: {cpu: '0.5'}, limits: {memory: 1024Mi}}", json!({"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}})),
        ("{requests: {cpu: 1, memory: 0.1Ki}}", json!({"requests": {"cpu": "1", "memory": "102400m"}})),
        ("{limits: {memory: 1073741824, ephemeral-storage: 1e9}}", {
            json!({"limits": {"memory": "1073741824", "ephemeral-storage": "1e9"}})
        }),
        ("{}", json!({})),
    ] {
        let given = given.replace("1e9", "'1e9'");
        let tenancy = tenancy(&tenant_text("acme", &format!("{{tier: Free, hub: {{resources: {given}}}}}")));
        let mut world = converged(&tenancy, &platform());
        assert_eq!(hub(&mut world)["spec"]["template"]["spec"]["containers"][0]["resources"], stored, "{given}");
    }
}

#[test]
fn the_pods_of_a_hub_carry_what_the_tenant_says_and_are_found_as_before() {
    let mut platform = platform();
    platform.hub_image_pull_secrets = serde_json::from_value(json!([{"name": "registry"}])).unwrap();
    let plain = tenancy(&tenant_text("acme", "{tier: Professional}"));
    let mut world = converged(&plain, &platform);
    let before = hub(&mut world)["spec"].clone();
    let spec = "{tier: Professional, hub: {image: 'canary.example/acb-hub:next', podTemplate: {labels: {team: a}, \
                annotations: {example.org/note: some words}, priorityClassName: high}, \
                imagePullSecrets: [{name: registry}, {name: canary}]}}";
    let canary = tenancy(&tenant_text("acme", spec));
    let steps = plan(&first(&canary), &world, &platform);
    assert_eq!(steps.to_string(), "+ Deployment acbhub-acme/hub (1 replicas)\n");
    apply(&mut world, &steps);
    assert_eq!(plan(&first(&canary), &world, &platform), Plan::default());
    let after = &hub(&mut world)["spec"];
    assert_eq!(after["selector"], before["selector"]);
    let (pod, plain) = (&after["template"], &before["template"]);
    for (name, value) in plain["metadata"]["labels"].as_object().unwrap() {
        assert_eq!(pod["metadata"]["labels"][name], *value);
    }
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    assert_eq!(pod["metadata"]["annotations"]["example.org/note"], "some words");
    assert_eq!(pod["metadata"]["annotations"]["acb.dev/config"], plain["metadata"]["annotations"]["acb.dev/config"]);
    assert_eq!(pod["spec"]["containers"][0]["image"], "canary.example/acb-hub:next");
    assert_eq!(pod["spec"]["priorityClassName"], "high");
    assert_eq!(plain["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "canary"}, {"name": "registry"}]));
    let mut strict = platform.clone();
    strict.hub_image_repositories = Some(Vec::new());
    let problems = tenant::validate::validate(&first(&canary), &world, &strict).unwrap_err();
    assert_eq!((problems.len(), problems[0].field.as_str()), (1, "spec.hub.image"));
}

#[test]
fn who_may_connect_is_written_as_it_was_given() {
    let platform = platform();
    let peers = "[{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchExpressions: [{key: b, operator: Exists}]}}, \
                 {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {namespaceSelector: {}}]";
    let spec = format!(
        "{{tier: Professional, hub: {{ingressPeers: {peers}, autoscaling: {{maxReplicas: 3, targetCPUUtilizationPercentage: 55}}}}}}"
    );
    let given = tenancy(&tenant_text("acme", &spec));
    let world = converged(&given, &platform);
    let of = |kind: &str, name: &str| {
        let mut found = world.objects.values().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let from = &of("NetworkPolicy", "agents-to-hub")["spec"]["ingress"][0]["from"];
    let expected = json!([
        {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchExpressions": [{"key": "b", "operator": "Exists"}]}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        {"namespaceSelector": {}},
    ]);
    assert_eq!(from.as_array().unwrap()[1..], expected.as_array().unwrap()[..]);
    let scaler = &of("HorizontalPodAutoscaler", "hub")["spec"];
    assert_eq!((&scaler["minReplicas"], &scaler["maxReplicas"]), (&json!(1), &json!(3)));
    assert_eq!(scaler["metrics"][0]["resource"]["target"]["averageUtilization"], 55);
}

#[test]
fn a_namespace_may_be_there_before_its_tenant() {
    let platform = platform();
    let tenancy = sample("acme.yaml");
    let mut world = world(&tenancy);
    let labels = json!({"acb.dev/tenant": "acme"});
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acb-acme", "labels": labels}});
    world.objects.insert(ObjectKey::of(&space).unwrap(), space);
    let steps = plan(&first(&tenancy), &world, &platform);
    assert!(steps.to_string().contains("+ Namespace acb-acme"), "{steps}");
    apply(&mut world, &steps);
    let key = ObjectKey::new("v1", "Namespace", "", "acb-acme");
    assert_eq!(world.objects[&key]["metadata"]["labels"]["acb.dev/tenant-uid"], first(&tenancy).metadata.uid.unwrap());
}

#[test]
fn a_gateway_gets_a_route_and_a_certificate_with_its_name() {
    let platform = platform();
    let tenancy = sample("acme.yaml");
    let mut world = converged(&tenancy, &platform);
    let mut tenant = first(&tenancy);
    let gateway =
        GatewayRef { name: "edge".into(), namespace: "gateways".into(), section_name: Some("agents".into()), port: Some(8443) };
    let hub = tenant.spec.hub.as_mut().unwrap();
    (hub.gateway_ref, hub.hostnames) = (Some(gateway), vec!["acme.example".into(), "acme.example.org".into()]);
    let routed = plan(&tenant, &world, &platform);
    let text = routed.to_string();
    assert!(text.contains("+ TLSRoute acbhub-acme/hub") && text.contains("+ NetworkPolicy acbhub-acme/agents-to-hub"), "{text}");
    assert!(text.contains("+ Secret acbhub-acme/hub-tls-2") && text.contains("acme.example"), "{text}");
    assert!(position(&routed, "hub-tls-2") < position(&routed, "Deployment"));
    // Whatever was done of it: the rest is the same, and no further generation.
    for done in 0..=routed.steps.len() {
        let mut world = world.clone();
        apply(&mut world, &Plan { steps: routed.steps[..done].to_vec() });
        let rest = plan(&tenant, &world, &platform);
        apply(&mut world, &rest);
        assert_eq!(plan(&tenant, &world, &platform), Plan::default(), "after {done} steps");
        assert!(!world.secrets.iter().any(|secret| secret.name == "hub-tls" && secret.generation > 2));
    }
    apply(&mut world, &routed);
    let gone = plan(&first(&tenancy), &world, &platform).to_string();
    assert!(gone.contains("- TLSRoute acbhub-acme/hub"), "{gone}");
}

#[test]
fn a_namespace_that_the_platform_gave_is_marked_and_released_and_never_removed() {
    let platform = platform();
    let text = "{tier: Free, agentNamespace: team-a, deletionPolicy: Delete, admins: [{kind: Group, name: team-a}]}";
    let mut given = tenancy(&tenant_text("acme", text));
    let mut world = world(&given);
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"acb.dev/tenant": "acme"}}});
    world.objects.insert(ObjectKey::of(&namespace).unwrap(), namespace);
    let steps = plan(&first(&given), &world, &platform);
    let text = steps.to_string();
    assert!(text.contains("+ Namespace team-a") && text.contains("+ RoleBinding team-a/acb-tenant-admins"), "{text}");
    assert!(!text.contains("NetworkPolicy team-a/"), "what else runs there is the platform's: {text}");
    apply(&mut world, &steps);
    let key = ObjectKey::new("v1", "Namespace", "", "team-a");
    assert_eq!(world.objects[&key]["metadata"]["annotations"]["acb.dev/ceiling-tenant-maxAgents"], "3");
    assert!(world.objects[&key]["metadata"]["labels"].get("pod-security.kubernetes.io/enforce").is_none());

    let tenant = &mut given.tenants[0];
    tenant.metadata.deletion_timestamp = tenant.metadata.creation_timestamp.clone();
    let removal = plan(tenant, &world, &platform);
    let text = removal.to_string();
    assert!(!text.contains("- Namespace team-a"), "{text}");
    assert!(
        text.contains("- RoleBinding team-a/acb-tenant-admins") && text.contains("- RoleBinding team-a/acb-operator"),
        "{text}"
    );
    apply(&mut world, &removal);
    assert!(world.objects[&key]["metadata"]["labels"].get("acb.dev/tenant-uid").is_none());
    assert_eq!(plan(tenant, &world, &platform), Plan::default(), "removed once");
}

#[test]
fn a_quota_of_kafka_follows_the_limits() {
    let quota = |spec: &str| {
        let tenancy = tenancy(&tenant_text("acme", spec));
        let validated = tenant::validate::validate(&first(&tenancy), &world(&tenancy), &kafka_platform()).unwrap();
        tenant::bandwidth::kafka_quota(&validated)
    };
    let of_tier = quota("{tier: Professional, hub: {replicas: 2}}");
    // 50 agents of 100 MB a minute, twice.
    assert_eq!(of_tier.producer_bytes_per_second, Some(166_666_666));
    assert_eq!(of_tier.consumer_bytes_per_second, Some(3 * 166_666_666), "every replica reads all, and one more in a rollout");
    let limited = quota("{tier: Free, limits: {bytesPerMinute: 1000}}");
    assert_eq!(limited.producer_bytes_per_second, Some(4 * 1_048_576), "a record of the greatest size still passes");
    assert_eq!(quota("{tier: Enterprise}"), acb_operator::plan::KafkaQuota::default());
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
fn a_secret_that_was_deleted_is_made_anew_under_another_name() {
    let (tenancy, platform) = (sample("acme.yaml"), kafka_platform());
    for (name, with_it) in [("hub-tls", 0), ("hub-keys", 0), ("hub-postgres", 0), ("hub-kafka", 0), ("ca-", 2)] {
        let mut world = converged(&tenancy, &platform);
        let gone = world.secrets.iter().find(|secret| secret.name.starts_with(name)).unwrap().clone();
        world.secrets.remove(&gone);
        match name {
            "hub-postgres" => world.login = LoginState::Refused,
            "hub-kafka" => world.kafka.known_mut().unwrap().user = LoginState::Refused,
            _ => {}
        }
        let steps = plan(&first(&tenancy), &world, &platform);
        let text = steps.to_string();
        assert!(text.contains(&format!("{}-2 ", gone.name)) && text.contains("Deployment acbhub-acme/hub"), "{text}");
        // A new authority means a new certificate, and agents that know it.
        let others = ["Secret acbhub-acme/hub-tls-2", "ConfigMap acb-acme/acb-ca"];
        assert_eq!(others.iter().filter(|other| name == "ca-" && text.contains(*other)).count(), with_it, "{text}");
        for done in 0..=steps.steps.len() {
            let mut world = world.clone();
            apply(&mut world, &Plan { steps: steps.steps[..done].to_vec() });
            let rest = plan(&first(&tenancy), &world, &platform);
            apply(&mut world, &rest);
            assert_eq!(plan(&first(&tenancy), &world, &platform), Plan::default(), "{name} after {done} steps");
        }
    }
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
        + &agent_text("acb-globex", "analyst", "{role: AgentFull, publishes: [notes]}");
    let mut after = tenancy(&text);
    after.quotas = sample("globex.yaml").quotas;
    let world = acb_operator::tenant::World { tenancy: after.clone(), ..world };
    let changed = plan(&first(&after), &world, &platform);
    assert!(changed.to_string().contains("+ postgres topic acb.globex.notes (4 partitions, 7d)"), "{changed}");
    assert_eq!(changed.steps.len(), 2, "{changed}");
}

fn agent_plan(tenancy: &Tenancy, name: &str, world: &agent::World) -> Plan {
    let agent = agent_named(tenancy, name);
    agent::plan::plan(&agent::validate::validate(&agent, world).unwrap(), world)
}

/// What there is after an agent's plan was applied.
fn apply_agent(world: &mut agent::World, plan: &Plan) {
    for step in &plan.steps {
        match step.clone() {
            Step::Kubernetes(KubernetesStep::EnsureSecret { secret, asked, .. }) => {
                world.asked.extend(asked.map(|asked| (secret.clone(), asked)));
                world.secrets.insert(secret);
            }
            Step::Postgres(PostgresStep::ProjectAgent { agent, api_key, .. }) => {
                world.row = Some(agent);
                world.api_key = if api_key.is_some() { StoredApiKey::Current } else { StoredApiKey::Absent };
            }
            Step::Postgres(PostgresStep::RestrainAgent { agent, .. }) => world.row = Some(agent),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn an_agent_from_the_first_to_the_last_day() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let mut world = agent_world(&tenancy, &platform);
    let fresh = agent_plan(&tenancy, "worker-a", &world);
    holds("agent-fresh", &fresh);
    apply_agent(&mut world, &fresh);
    assert_eq!(agent_plan(&tenancy, "worker-a", &world), Plan::default());

    let mut changed = world.clone();
    let mut lowered = tenancy.clone();
    lowered.quotas[0].spec.limits.messages_per_minute = Some(60);
    changed.census = census("acb-acme", &lowered, &platform);
    holds("agent-quota-changed", &agent_plan(&lowered, "worker-a", &changed));

    let mut suspended = tenancy.clone();
    for agent in &mut suspended.agents {
        agent.spec.suspend = Some(true);
    }
    let text = agent_plan(&suspended, "worker-a", &world).to_string();
    assert!(text.contains("agent worker-a (agent-full, suspended"), "{text}");

    // Its Secret holds another key. The one before goes at once where its Secret was removed.
    let mut stale = world.clone();
    stale.api_key = agent::StoredApiKey::Stale;
    let text = agent_plan(&tenancy, "worker-a", &stale).to_string();
    assert!(!text.contains("the one before"), "{text}");
    for (rotation, expected) in [(r#"{"every": "30d"}"#, 86_400), (r#"{"every": "30d", "overlap": "1h"}"#, 3600)] {
        let mut rotating = tenancy.clone();
        for agent in &mut rotating.agents {
            agent.spec.credentials =
                Some(serde_json::from_str(&format!(r#"{{"apiKey": {{}}, "rotation": {rotation}}}"#)).unwrap());
        }
        // Its key is not old yet, and then it is.
        assert_eq!(agent_plan(&rotating, "worker-a", &world), Plan::default());
        let old = agent::World { is_key_old: true, ..world.clone() };
        let rotation = agent_plan(&rotating, "worker-a", &old);
        let text = rotation.to_string();
        assert!(text.contains("+ Secret acb-acme/worker-a-api-key-2 (API key)"), "{text}");
        assert!(text.contains(&format!("worker-a-api-key-2, the one before for {expected} s)")), "{text}");
        let mut rotated = old;
        apply_agent(&mut rotated, &rotation);
        (rotated.is_key_old, rotated.has_replaced_key) = (false, true);
        assert_eq!(agent_plan(&rotating, "worker-a", &rotated), Plan::default());
        // The time of the one before is over.
        let before = SecretRef { namespace: "acb-acme".into(), name: "worker-a-api-key".into(), generation: 1 };
        let ended = agent::World { ended_keys: [before.clone()].into(), ..rotated.clone() };
        let text = agent_plan(&rotating, "worker-a", &ended).to_string();
        assert_eq!(text, "- Secret acb-acme/worker-a-api-key-1\n");
        // Or somebody ends it: at once.
        rotated.secrets.remove(&before);
        let text = agent_plan(&rotating, "worker-a", &rotated).to_string();
        assert!(text.contains("+ postgres agent worker-a") && !text.contains("the one before"), "{text}");
    }

    // By hand: once for each value.
    let mut asked = tenancy.clone();
    for agent in &mut asked.agents {
        agent.metadata.annotations = Some([("acb.dev/rotate".to_owned(), "now".to_owned())].into());
    }
    let by_hand = agent_plan(&asked, "worker-a", &world);
    holds("agent-rotated", &by_hand);
    let mut rotated = world.clone();
    apply_agent(&mut rotated, &by_hand);
    assert_eq!(agent_plan(&asked, "worker-a", &rotated), Plan::default());

    let mut gone = tenancy.clone();
    for agent in &mut gone.agents {
        agent.metadata.deletion_timestamp = agent.metadata.creation_timestamp.clone();
    }
    holds("agent-deleted", &agent_plan(&gone, "worker-a", &world));
}

#[test]
fn an_agent_waits_for_its_tenant() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let world = agent::World { census: census("acb-acme", &tenancy, &platform), ..agent::World::default() };
    let validated = agent::validate::validate(&agent_named(&tenancy, "worker-a"), &world).unwrap();
    assert_eq!(agent::plan::plan(&validated, &world), Plan::default());
    assert!(agent::plan::waits_for(&validated, &world).unwrap().contains("waiting for tenant acme"));
}

#[test]
fn an_agent_that_no_agent_stands_for_is_shut_out() {
    let platform = platform();
    let mut world = converged(&sample("acme.yaml"), &platform);
    let tenant = first(&world.tenancy);
    let worker = agent_named(&world.tenancy, "worker-a");
    let known = agent_world(&world.tenancy, &platform);
    let row = agent::plan::agent_row(&agent::validate::validate(&worker, &known).unwrap());
    let id = row.id.clone();
    world.postgres.known_mut().unwrap().agents.insert(id.clone(), row.clone());
    world.postgres.known_mut().unwrap().api_keys.insert(id.clone(), Vec::new());
    assert_eq!(plan(&tenant, &world, &platform), Plan::default());

    // It was let go while its tenant was away, and the tenant is back.
    world.tenancy.agents.retain(|agent| agent.metadata.uid != worker.metadata.uid);
    world.postgres.known_mut().unwrap().login = None;
    let shut_out = plan(&tenant, &world, &platform);
    assert!(position(&shut_out, "postgres agent worker-a (agent-full, suspended") < position(&shut_out, "postgres login"));
    assert!(shut_out.to_string().contains("; no key)"));
    world.postgres.known_mut().unwrap().agents.insert(id.clone(), acb_operator::plan::AgentRow { suspended: true, ..row });
    world.postgres.known_mut().unwrap().api_keys.remove(&id);
    assert!(!plan(&tenant, &world, &platform).to_string().contains("worker-a"), "once");
}

#[test]
fn an_agent_whose_key_is_in_the_way_is_held_to_less_first() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let mut world = agent_world(&tenancy, &platform);
    let fresh = agent_plan(&tenancy, "worker-a", &world);
    apply_agent(&mut world, &fresh);
    // What someone else put there is as if it were not there: to make another is refused, with all that comes after it.
    world.secrets.retain(|secret| secret.name != "worker-a-api-key");
    world.api_key = StoredApiKey::Stale;
    let again = agent_plan(&tenancy, "worker-a", &world).to_string();
    assert!(again.starts_with("+ Secret acb-acme/worker-a-api-key-1"), "{again}");

    let change = |change: &dyn Fn(&mut acb_crds::Agent)| {
        let mut changed = tenancy.clone();
        changed.agents.iter_mut().for_each(change);
        changed
    };
    let suspended = change(&|agent| agent.spec.suspend = Some(true));
    let plan = agent_plan(&suspended, "worker-a", &world);
    holds("agent-suspended-foreign-secret", &plan);
    let observing = change(&|agent| agent.spec.role = acb_crds::agent::Role::Observer);
    let text = agent_plan(&observing, "worker-a", &world).to_string();
    assert!(text.starts_with("- postgres agent worker-a held to less (observer;"), "{text}");
    let mut lowered = tenancy.clone();
    lowered.quotas[0].spec.limits.messages_per_minute = Some(1);
    let slower = agent::World { census: census("acb-acme", &lowered, &platform), ..world.clone() };
    let text = agent_plan(&lowered, "worker-a", &slower).to_string();
    assert!(text.starts_with("- postgres agent worker-a held to less (agent-full;"), "{text}");
    assert!(text.lines().next().unwrap().contains("messagesPerMinute 1"), "{text}");

    // Once; and nothing is loosened without a key.
    apply_agent(&mut world, &Plan { steps: plan.steps[..1].to_vec() });
    assert!(!agent_plan(&suspended, "worker-a", &world).to_string().contains("held to less"));
    let promoted = change(&|agent| agent.spec.role = acb_crds::agent::Role::Admin);
    assert!(!agent_plan(&promoted, "worker-a", &world).to_string().contains("held to less"));

    // While the tenant's own keys are lost, too.
    world.row.as_mut().unwrap().suspended = false;
    world.secrets.retain(|secret| secret.name != "hub-keys");
    let waiting = agent_plan(&suspended, "worker-a", &world);
    assert_eq!(waiting.steps, plan.steps[..1]);
}

#[test]
fn a_key_of_the_last_generation_there_is_stays() {
    let (tenancy, platform) = (sample("acme.yaml"), platform());
    let mut world = agent_world(&tenancy, &platform);
    world.secrets.insert(SecretRef { namespace: "acb-acme".into(), name: "worker-a-api-key".into(), generation: u64::MAX });
    world.is_key_old = true;
    let steps = agent_plan(&tenancy, "worker-a", &world).to_string();
    assert!(steps.contains("+ postgres agent worker-a") && !steps.contains("+ Secret"), "{steps}");
}

#[test]
fn a_quota_changes_the_tenant() {
    let platform = platform();
    let mut world = converged(&sample("globex.yaml"), &platform);
    world.tenancy.quotas[0].spec.limits.storage_bytes = Some(1_000);
    let quota = quota_text("acb-globex", "few", "{limits: {maxAgents: 5}}");
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
        assert_eq!(plan(tenant, &world, &platform).to_string(), barred(policy, &removal), "removed once");
    }
}

/// What is left to do of a removal that was done: sessions may have outlived the bar.
fn barred(policy: &str, removal: &Plan) -> String {
    let text = removal.to_string();
    let login = text.lines().find(|line| line.contains("- postgres login")).unwrap();
    if policy == "Retain" { format!("{login}\n") } else { Plan::default().to_string() }
}

#[test]
fn a_limit_of_objects_is_written_as_an_api_server_stores_it() {
    let given = tenancy(&tenant_text("acme", "{tier: Enterprise}"));
    let mut platform = platform();
    for (most, stored) in [(499, "998"), (500, "1k"), (501, "1002"), (5000, "10k")] {
        let tiers = serde_json::json!({"Enterprise": {"replicas": 3, "tenant": {"maxAgents": most}}});
        platform.tiers = serde_json::from_value(tiers).unwrap();
        let validated = tenant::validate::validate(&first(&given), &world(&given), &platform).unwrap();
        let quota = tenant::object_quota::resource_quota(&validated);
        assert_eq!(quota["spec"]["hard"]["count/agents.acb.dev"], stored);
    }
}

#[test]
fn a_smaller_quota_of_kafka_comes_first() {
    let (given, platform) = (sample("acme.yaml"), kafka_platform());
    let mut world = converged(&given, &platform);
    let wanted = world.kafka.known_mut().unwrap().quota;
    let more = acb_operator::plan::KafkaQuota {
        producer_bytes_per_second: wanted.producer_bytes_per_second.map(|bytes| bytes * 2),
        request_percent: wanted.request_percent.map(|percent| percent / 2),
        ..wanted
    };
    world.kafka.known_mut().unwrap().quota = more;
    let mut tenant = first(&given);
    tenant.spec.hub.as_mut().unwrap().ingress_peers =
        serde_json::from_value(serde_json::json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}])).unwrap();
    let steps = plan(&tenant, &world, &platform);
    let quotas: Vec<usize> =
        steps.steps.iter().enumerate().filter(|(_, step)| step.to_string().contains("kafka quota")).map(|(at, _)| at).collect();
    assert_eq!(quotas, [0], "{steps}");
    // What is only more has its turn.
    world.kafka.known_mut().unwrap().quota =
        acb_operator::plan::KafkaQuota { request_percent: wanted.request_percent.map(|percent| percent / 2), ..wanted };
    let steps = plan(&tenant, &world, &platform);
    assert!(position(&steps, "kafka quota") > position(&steps, "NetworkPolicy"), "{steps}");
    assert_eq!(steps.to_string().matches("kafka quota").count(), 1, "{steps}");
}
