//! Context types that agents asked for, and that nobody asks for any more.

use acb_crds::schema::Kind;
use acb_operator::{
    agent,
    condition::Reason,
    effect::postgres_observe::RetiredTopic,
    plan::{FOR_EVER, Plan},
    platform::Platform,
    tenancy::Unreadable,
    tenant,
};

use crate::given::{
    agent_named, agent_text, agent_world, apply, converged, first, kafka_platform, plan, platform, tenancy, tenant_text,
};

fn world(platform: &Platform) -> tenant::World {
    let text = tenant_text("acme", "{tier: Free}") + &agent_text("acb-acme", "a", "{role: AgentFull, publishes: [t0]}");
    converged(&tenancy(&text), platform)
}

/// What a reconcile does once the Agent publishes these.
fn publish(world: &mut tenant::World, types: &[&str], platform: &Platform) -> String {
    world.tenancy.agents[0].spec.publishes = types.iter().map(|name| (*name).to_owned()).collect();
    let steps = plan(&first(&world.tenancy), world, platform);
    apply(world, &steps);
    steps.to_string()
}

fn types(world: &tenant::World, platform: &Platform) -> Vec<String> {
    let name = acb_crds::names::TenantName::parse("acme").unwrap();
    world.existing_types(&name, platform).into_iter().collect()
}

/// Why the Agent is refused.
fn refusal(world: &tenant::World, platform: &Platform) -> Option<(Reason, String)> {
    let mut seen = agent_world(&world.tenancy, platform);
    let existing = types(world, platform).into_iter().collect();
    seen.census = std::sync::Arc::new(std::sync::Arc::unwrap_or_clone(seen.census).with_types(&existing));
    let refused = agent::validate::validate(&agent_named(&world.tenancy, "a"), &seen).err()?;
    Some((refused[0].reason, refused[0].message.clone()))
}

fn is_over(world: &mut tenant::World, topic: &str) {
    let over = RetiredTopic { since: "2025-01-01T00:00:00Z".into(), retention_seconds: FOR_EVER, is_over: true };
    let retired = &mut world.postgres.known_mut().unwrap().retired;
    assert!(retired.insert(topic.to_owned(), over).is_some(), "{topic} is not marked");
}

#[test]
fn an_agent_that_is_edited_in_a_loop_has_no_more_topics_than_its_tier_allows() {
    for platform in [platform(), kafka_platform()] {
        let mut world = world(&platform);
        for number in 1..2_000 {
            publish(&mut world, &[&format!("t{number}")], &platform);
        }
        assert_eq!(types(&world, &platform), ["t0", "t1", "t2", "t3", "t4"]);
        let (reason, message) = refusal(&world, &platform).expect("refused");
        assert!(reason == Reason::TooManyContextTypes && message.contains("t0, t1, t2, t3, t4 are in use until"), "{message}");
        // Nor is it let in while the log is away, which would know.
        if platform.has_kafka() {
            let mut away = world.clone();
            away.kafka = tenant::Read::Away(acb_operator::effect::EffectError::unavailable("Kafka", "down"));
            assert!(refusal(&away, &platform).is_some());
        }
        // One of these has its place.
        let again = publish(&mut world, &["t1"], &platform);
        assert!(again.contains("- postgres mark of topic acb.acme.t1") && !again.contains("- kafka topic"), "{again}");
        assert_eq!(refusal(&world, &platform), None);
        assert_eq!(publish(&mut world, &["t1"], &platform), Plan::default().to_string());
    }
}

#[test]
fn a_topic_goes_once_its_retention_has_passed_since_nobody_asked_for_it() {
    for platform in [platform(), kafka_platform()] {
        let mut world = world(&platform);
        let marked = publish(&mut world, &["t1"], &platform);
        assert!(marked.contains("+ postgres mark of topic acb.acme.t0: nobody asks for it, and it goes after 7d"), "{marked}");
        assert_eq!(publish(&mut world, &["t1"], &platform), Plan::default().to_string(), "it waits");
        is_over(&mut world, "acb.acme.t0");
        // Asked for again in the last moment: it is kept, with what is in it.
        let kept = publish(&mut world, &["t0", "t1"], &platform);
        assert!(kept.contains("- postgres mark of topic acb.acme.t0") && !kept.contains("what is in it"), "{kept}");
        publish(&mut world, &["t1"], &platform);
        is_over(&mut world, "acb.acme.t0");
        let gone = publish(&mut world, &["t1"], &platform);
        assert!(gone.contains("topic acb.acme.t0 and what is in it"), "{gone}");
        publish(&mut world, &["t1"], &platform);
        assert_eq!(types(&world, &platform), ["t1"]);
        assert!(world.postgres.known().unwrap().retired.is_empty(), "nothing is left of it");
        assert_eq!(publish(&mut world, &["t1"], &platform), Plan::default().to_string());
    }
}

#[test]
fn a_topic_that_somebody_keeps_for_longer_is_not_over() {
    let platform = kafka_platform();
    let mut world = world(&platform);
    publish(&mut world, &[], &platform);
    let topics = &mut world.kafka.known_mut().unwrap().topics;
    topics.get_mut("acb.acme.t0").unwrap().retention_seconds = u64::MAX;
    let retired = world.postgres.known_mut().unwrap().retired.get_mut("acb.acme.t0").unwrap();
    retired.is_over = true;
    let text = publish(&mut world, &[], &platform);
    assert!(text.contains("acb.acme.t0") && !text.contains("kafka topic acb.acme.t0"), "{text}");
    assert_eq!(world.postgres.known().unwrap().retired["acb.acme.t0"].retention_seconds, u64::MAX);
}

#[test]
fn a_topic_that_somebody_may_ask_for_stays() {
    for platform in [platform(), kafka_platform()] {
        let mut world = world(&platform);
        publish(&mut world, &["t1"], &platform);
        is_over(&mut world, "acb.acme.t0");
        let removes = |world: &tenant::World| {
            let steps = plan(&first(&world.tenancy), world, &platform).to_string();
            steps.contains("what is in it") || steps.contains("nobody asks for it")
        };
        assert!(removes(&world));
        // By one that this version can't read.
        let mut unread = world.clone();
        let metadata = world.tenancy.agents[0].metadata.clone();
        unread.tenancy.unreadable = vec![Unreadable::new(Kind::Agent, metadata)];
        assert!(!removes(&unread));
        // By one that is suspended, and by one for which there is no room.
        for spec in ["{role: AgentFull, publishes: [t0], suspend: true}", "{role: AgentFull, publishes: [t0]}"] {
            let other = tenancy(&(tenant_text("acme", "{tier: Free}") + &agent_text("acb-acme", "b", spec)));
            let mut asked = world.clone();
            asked.tenancy.agents.extend(other.agents);
            asked.tenancy.tenants[0].spec.limits = serde_json::from_str(r#"{"maxAgents": 1}"#).unwrap();
            assert!(!removes(&asked), "{spec}");
        }
        // What keeps the last of each key keeps it for good, and only a Tenant can ask for such a one.
        let mut compacted = world.clone();
        let topics = match platform.has_kafka() {
            true => &mut compacted.kafka.known_mut().unwrap().topics,
            false => &mut compacted.postgres.known_mut().unwrap().topics,
        };
        topics.get_mut("acb.acme.t0").unwrap().cleanup = "compact".into();
        assert!(!removes(&compacted));
        // While a store is away nothing is known.
        let mut away = world.clone();
        away.unanswered.push(acb_operator::effect::EffectError::unavailable("Kafka", "down"));
        assert!(!removes(&away));
    }
}
