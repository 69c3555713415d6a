use acb_operator::{
    agent::{self, StoredApiKey},
    condition::{Problem, Reason},
    effect::kubernetes::ObjectKey,
    plan::{Plan, TopicSpec},
    quota,
    tenancy::Tenancy,
    tenant::{self, RetainedData},
};
use serde_json::json;

use crate::given::{
    agent_named, agent_text, agent_world, apply, census, converged, kafka_platform, plan, platform, quota_named, quota_text,
    tenancy, tenant_text, world,
};

/// What is wrong with the last Tenant of a text.
fn refused(text: &str, change: impl FnOnce(&mut tenant::World)) -> Vec<Problem> {
    let tenancy = tenancy(text);
    let mut world = world(&tenancy);
    change(&mut world);
    tenant::validate::validate(tenancy.tenants.last().unwrap(), &world, &platform()).unwrap_err()
}

#[test]
fn limits_above_the_tier() {
    let problems =
        refused(&tenant_text("acme", "{tier: Free, limits: {maxAgents: 4}, agentLimits: {concurrentStreams: 11}}"), |_| {});
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "spec.limits.maxAgents: 4 is above 3, which is what tier Free allows: lower it or change the tier",
            "spec.agentLimits.concurrentStreams: 11 is above 10, which is what tier Free allows: lower it or change the tier",
        ]
    );
    let operations = "{tier: Free, operationLimits: [{operation: GetContext, requestsPerMinute: 1}, {operation: GetContexts, requestsPerMinute: 1}, {operation: GetJwks, requestsPerMinute: 1}]}";
    let problems = refused(&tenant_text("acme", operations), |_| {});
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.operationLimits[1].operation", "spec.operationLimits[2].operation"]);
    for spec in [
        "{tier: Free, hub: {replicas: 2}}",
        "{tier: Free, hub: {autoscaling: {minReplicas: 1, maxReplicas: 2}}}",
        "{tier: Free, contextTypes: [{name: a, partitions: 5}]}",
    ] {
        assert_eq!(refused(&tenant_text("acme", spec), |_| {})[0].reason, Reason::AboveTier, "{spec}");
    }
    let many = (0..6).map(|index| format!("{{name: t{index}}}")).collect::<Vec<_>>().join(", ");
    let problems = refused(&tenant_text("acme", &format!("{{tier: Free, contextTypes: [{many}]}}")), |_| {});
    assert_eq!(problems[0].reason, Reason::TooManyContextTypes);
}

#[test]
fn the_platform_may_allow_more() {
    let tenancy = tenancy(&tenant_text("acme", "{tier: Free, limits: {maxAgents: 4}}"));
    let mut platform = platform();
    platform.tiers = serde_json::from_value(json!({"Free": {"tenant": {"maxAgents": 5}}})).unwrap();
    assert_eq!(tenant::validate::validate(&tenancy.tenants[0], &world(&tenancy), &platform).unwrap().limits.max_agents, Some(4));
}

#[test]
fn colliding_names_stop_the_later_tenant() {
    for (first, second) in [
        ("{tier: Free}", "{tier: Free, agentNamespace: acb-acme}"),
        ("{tier: Free, agentNamespace: team}", "{tier: Free, agentNamespace: team}"),
    ] {
        let text = tenant_text("acme", first) + &tenant_text("globex", second);
        let problems = refused(&text, |_| {});
        assert_eq!(problems[0].reason, Reason::NameCollision, "{problems:?}");
        assert!(problems[0].message.contains("already tenant acme's, which is older"), "{problems:?}");
        let given = tenancy(&text);
        let older = tenant::validate::validate(&given.tenants[0], &world(&given), &platform());
        assert!(older.is_ok_and(|tenant| tenant.own_namespace) || first.contains("team"), "the older one stays");
    }
}

#[test]
fn retained_data_is_not_taken_over() {
    let retained = RetainedData { tenant_id: "00112233445566778899".into(), place: "PostgreSQL".into() };
    let problems = refused(&tenant_text("acme", "{tier: Free}"), |world| world.retained = Some(retained));
    assert_eq!(problems[0].reason, Reason::RetainedData);
}

#[test]
fn an_earlier_tenants_data_is_taken_over_where_it_is_asked_for() {
    let kafka = kafka_platform();
    let given = tenancy(&tenant_text("acme", "{tier: Free}"));
    let mut world = converged(&given, &kafka);
    let earlier = tenant::adoption::own(&given.tenants[0]);
    // Restored without its UID: what there is says whose it was.
    let restored = |uid: &str, adopt: Option<&str>, world: &mut tenant::World| {
        let mut tenant = given.tenants[0].clone();
        tenant.metadata.uid = Some(uid.to_owned());
        let annotations = adopt.map(|id| ("acb.dev/adopt".to_owned(), id.to_owned()));
        tenant.metadata.annotations = Some(annotations.into_iter().collect());
        world.tenancy.tenants = vec![tenant.clone()].into();
        world.identity =
            Some(tenant::adoption::identity(&tenant, tenant::adoption::asked(&tenant), &world.tenancy.tenants, Some("acme")));
        tenant
    };
    let second = "00000000-0000-4000-8000-00000000000a";
    let stalled = restored(second, None, &mut world);
    let problems = tenant::validate::validate(&stalled, &world, &kafka).unwrap_err();
    assert_eq!(problems[0].reason, Reason::RetainedData);
    let command = format!("kubectl annotate tenant acme acb.dev/adopt={earlier}");
    assert!(problems[0].message.contains(&command), "{problems:?}");
    let wrong = restored(second, Some("00112233445566778899"), &mut world);
    assert_eq!(tenant::validate::validate(&wrong, &world, &kafka).unwrap_err()[0].reason, Reason::RetainedData);

    for uid in [second, "00000000-0000-4000-8000-00000000000b"] {
        let adopting = restored(uid, Some(&earlier.hex()), &mut world);
        let steps = plan(&adopting, &world, &kafka);
        assert_eq!(steps.to_string(), "+ Namespace acbhub-acme\n+ Namespace acb-acme\n", "{uid}: everything else is there");
        apply(&mut world, &steps);
        assert_eq!(plan(&adopting, &world, &kafka), Plan::default());
    }
    // Without the annotation it is nobody's again, and stays.
    let forgotten = restored("00000000-0000-4000-8000-00000000000b", None, &mut world);
    assert!(tenant::validate::validate(&forgotten, &world, &kafka).unwrap_err()[0].message.contains(&command));
}

#[test]
fn who_never_got_a_name_takes_nothing_with_it() {
    let (acme, kafka) = (tenant_text("acme", "{tier: Free, deletionPolicy: Delete}"), kafka_platform());
    let mut given = tenancy(&acme);
    let mut world = converged(&given, &kafka);
    // The same name again, after the first was deleted and its data retained.
    let tenant = &mut given.tenants[0];
    tenant.metadata.uid = Some("00000000-0000-4000-8000-00000000000f".into());
    world.postgres = Default::default();
    let problems = tenant::validate::validate(tenant, &world, &kafka).unwrap_err();
    assert_eq!(problems[0].reason, Reason::RetainedData, "{problems:?}");
    tenant.metadata.deletion_timestamp = tenant.metadata.creation_timestamp.clone();
    let removal = plan(tenant, &world, &kafka).to_string();
    for kept in ["Deployment", "topic", "Namespace", "ConfigMap"] {
        assert!(!removal.contains(kept), "{removal}");
    }
}

#[test]
fn a_namespace_of_someone_else_is_left_alone() {
    for space in ["acb-acme", "acbhub-acme"] {
        let key = ObjectKey::new("v1", "Namespace", "", space);
        let theirs = json!({"metadata": {"labels": {"team": "theirs"}}});
        let problems = refused(&tenant_text("acme", "{tier: Free}"), |world| _ = world.objects.insert(key, theirs));
        assert_eq!(problems[0].reason, Reason::NamespaceNotOurs);
    }
}

#[test]
fn a_namespace_has_to_be_given_by_the_platform() {
    let text = tenant_text("acme", "{tier: Free, agentNamespace: team}");
    assert_eq!(refused(&text, |_| {})[0].reason, Reason::NamespaceNotOurs);
    let key = ObjectKey::new("v1", "Namespace", "", "team");
    for (labels, reason) in [
        (json!({}), Reason::NamespaceNotOurs),
        (json!({"acb.dev/tenant": "globex"}), Reason::NamespaceNotOurs),
        (json!({"acb.dev/tenant": "acme", "acb.dev/tenant-uid": "another"}), Reason::RetainedData),
    ] {
        let key = key.clone();
        let space = json!({"metadata": {"labels": labels}});
        assert_eq!(refused(&text, |world| _ = world.objects.insert(key, space))[0].reason, reason);
    }
    let given = tenancy(&text);
    let mut world = world(&given);
    world.objects.insert(key, json!({"metadata": {"labels": {"acb.dev/tenant": "acme"}}}));
    assert!(tenant::validate::validate(&given.tenants[0], &world, &platform()).is_ok());
}

#[test]
fn partitions_never_shrink() {
    let topic = TopicSpec {
        name: "acb.acme.a".into(),
        partitions: 6,
        retention_seconds: 60,
        cleanup: "delete".into(),
        max_message_bytes: 2_097_152,
    };
    let grown =
        |world: &mut tenant::World| _ = world.postgres.known_mut().unwrap().topics.insert(topic.name.clone(), topic.clone());
    let problems = refused(&tenant_text("acme", "{tier: Starter, contextTypes: [{name: a, partitions: 2}]}"), grown);
    assert_eq!((problems[0].reason, problems[0].field.as_str()), (Reason::PartitionsShrink, "spec.contextTypes[0].partitions"));
    let given = tenancy(&tenant_text("acme", "{tier: Starter, contextTypes: [{name: a}]}"));
    let mut world = world(&given);
    world.postgres.known_mut().unwrap().topics.insert(topic.name.clone(), topic.clone());
    let row = tenant::validate::validate(&given.tenants[0], &world, &platform()).unwrap().context_types.remove(0);
    assert_eq!(row.partitions, 6, "what the spec is silent about stays");
}

#[test]
fn a_schema_that_no_hub_can_use() {
    let with = |schema: &str| {
        format!("{{tier: Free, contextTypes: [{{name: a, payloadSchema: {{id: a, version: '1', jsonSchema: {schema}}}}}]}}")
    };
    for bad in ["{type: nothing}", "{pattern: '('}", "{$ref: 'https://example.com/a.json'}"] {
        let problems = refused(&tenant_text("acme", &with(bad)), |_| {});
        assert_eq!(
            (problems[0].reason, problems[0].field.as_str()),
            (Reason::InvalidSpec, "spec.contextTypes[0].payloadSchema.jsonSchema")
        );
    }
    let given = tenancy(&tenant_text("acme", &with("{type: object}")));
    let validated = tenant::validate::validate(&given.tenants[0], &world(&given), &platform()).unwrap();
    assert_eq!(validated.not_acted_on, Vec::<String>::new());
}

#[test]
fn an_agent_of_no_tenant() {
    let given = tenancy(&(tenant_text("acme", "{tier: Free}") + &agent_text("acb-nobody", "lost", "{role: Observer}")));
    let world = agent::World { census: census("acb-nobody", &given, &platform()), ..agent::World::default() };
    let problems = agent::validate::validate(&given.agents[0], &world).unwrap_err();
    assert_eq!(problems[0].reason, Reason::UnknownTenant);
    assert!(problems[0].message.contains("move the Agent to acb-<tenant>"));
}

#[test]
fn agents_beyond_the_limit_are_the_younger_ones() {
    let mut text = tenant_text("acme", "{tier: Free}");
    for name in ["z", "y", "x", "a"] {
        text += &agent_text("acb-acme", name, "{role: Observer}");
    }
    let given = tenancy(&text);
    let mut world = agent_world(&given, &platform());
    let check = |name: &str, world: &agent::World| agent::validate::validate(&agent_named(&given, name), world);
    for name in ["z", "y", "x"] {
        assert!(check(name, &world).is_ok());
    }
    assert_eq!(check("a", &world).unwrap_err()[0].reason, Reason::TooManyAgents);

    // One that was provisioned before a limit was lowered is refused, and refused once.
    let row = agent::plan::agent_row(&check("x", &world).unwrap());
    let few = Tenancy { quotas: tenancy(&quota_text("acb-acme", "few", "{limits: {maxAgents: 2}}")).quotas, ..given.clone() };
    world.census = census("acb-acme", &few, &platform());
    assert_eq!(check("x", &world).unwrap_err()[0].reason, Reason::TooManyAgents);
    (world.row, world.api_key) = (Some(row.clone()), StoredApiKey::Current);
    let suspension = agent::plan::suspension("00112233445566778899", &world);
    assert_eq!(
        suspension.to_string(),
        "+ postgres agent x (observer, suspended; limits: bytesPerMinute 100000000, concurrentStreams 10, contexts 100000, messagesPerMinute 1000, storageBytes 1000000000; no key)\n"
    );
    (world.row, world.api_key) = (Some(acb_operator::plan::AgentRow { suspended: true, ..row }), StoredApiKey::Absent);
    assert_eq!(agent::plan::suspension("00112233445566778899", &world), Plan::default());
}

#[test]
fn a_published_type_beyond_the_allowance() {
    let text = tenant_text("acme", "{tier: Free, contextTypes: [{name: a}, {name: b}, {name: c}]}")
        + &agent_text("acb-acme", "one", "{role: Admin, publishes: [a, x, y]}")
        + &agent_text("acb-acme", "two", "{role: Admin, publishes: [x, z]}");
    let given = tenancy(&text);
    let world = agent_world(&given, &platform());
    assert!(agent::validate::validate(&agent_named(&given, "one"), &world).is_ok());
    let problems = agent::validate::validate(&agent_named(&given, "two"), &world).unwrap_err();
    assert_eq!((problems[0].reason, problems[0].field.as_str()), (Reason::TooManyContextTypes, "spec.publishes[1]"));
}

#[test]
fn a_credential_that_nothing_checks_yet() {
    let text = tenant_text("acme", "{tier: Free}")
        + &agent_text("acb-acme", "one", "{role: Admin, credentials: {serviceAccount: {name: x}}}");
    let given = tenancy(&text);
    let problems = agent::validate::validate(&given.agents[0], &agent_world(&given, &platform())).unwrap_err();
    assert_eq!(problems[0].reason, Reason::CredentialNotSupported);
}

#[test]
fn metadata_that_no_list_could_hold() {
    let problems = |bytes: usize| {
        let spec = format!("{{role: Admin, attributes: {{note: {}}}}}", "x".repeat(bytes));
        let given = tenancy(&(tenant_text("acme", "{tier: Free}") + &agent_text("acb-acme", "one", &spec)));
        agent::validate::validate(&given.agents[0], &agent_world(&given, &platform())).err().unwrap_or_default()
    };
    assert_eq!(problems(16 * 1024 - 4), []);
    let problems = problems(16 * 1024 - 3);
    assert_eq!((problems[0].reason, problems[0].field.as_str()), (Reason::InvalidSpec, "spec.attributes"));
}

#[test]
fn a_quota_above_the_tier_or_of_no_tenant() {
    let text = tenant_text("acme", "{tier: Free}")
        + &quota_text("acb-acme", "whole", "{limits: {storageBytes: 2000000000}}")
        + &quota_text("acb-acme", "each", "{selector: {types: [x]}, limits: {messagesPerMinute: 1001}}")
        + &quota_text("acb-nobody", "lost", "{limits: {maxAgents: 1}}")
        + &quota_text("acb-acme", "good", "{selector: {types: [x]}, limits: {messagesPerMinute: 10}}");
    let given = tenancy(&text);
    let census = census("acb-acme", &given, &platform());
    let reason =
        |name: &str| quota::validate::validate(&quota_named(&given, name), &census).map_err(|problems| problems[0].reason);
    assert_eq!(reason("whole").unwrap_err(), Reason::AboveTier);
    assert_eq!(reason("each").unwrap_err(), Reason::AboveTier);
    assert_eq!(reason("lost").unwrap_err(), Reason::UnknownTenant);
    assert_eq!(reason("good").unwrap().effective.messages_per_minute, Some(10));
}

#[test]
fn a_rotation_that_would_end_a_key_early() {
    for (policy, refused) in [
        ("{every: 30s, overlap: 10m}", Some("rotation.every: 30s is too short")),
        ("{every: 1h, overlap: 2h}", Some("rotation.overlap: a key that was replaced would have to work for 2h")),
        ("{every: 1h}", None),
        ("{every: 30d, overlap: 30d}", None),
    ] {
        let spec = format!("{{role: Observer, credentials: {{apiKey: {{}}, rotation: {policy}}}}}");
        let given = tenancy(&(tenant_text("acme", "{tier: Free}") + &agent_text("acb-acme", "a", &spec)));
        let world = agent_world(&given, &platform());
        match (agent::validate::validate(&agent_named(&given, "a"), &world), refused) {
            (Ok(_), None) => {}
            (Err(problems), Some(refused)) => assert!(problems[0].to_string().contains(refused), "{problems:?}"),
            (other, _) => panic!("{policy}: {other:?}"),
        }
    }
}
