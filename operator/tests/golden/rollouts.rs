//! Hubs that are to roll for the platform's sake.

use acb_crds::{Tenant, names::annotations::ROTATE};
use acb_operator::{
    effect::kubernetes::ObjectKey,
    plan::{Plan, SecretRef},
    platform::Platform,
    tenant::{self, Decision, rollout, validate::ValidatedTenant},
};
use serde_json::{Value, json};

use crate::given::{apply, converged, first, kafka_platform, plan, tenancy, tenant_text};

fn validated(tenant: &Tenant, world: &tenant::World, platform: &Platform) -> ValidatedTenant {
    match tenant::decide(tenant, world, platform) {
        Decision::Converge { tenant, .. } => *tenant,
        other => panic!("{other:?}"),
    }
}

fn is_due(tenant: &Tenant, world: &tenant::World, platform: &Platform) -> bool {
    rollout::is_due(&validated(tenant, world, platform), world, platform)
}

fn is_of_platform(tenant: &Tenant, world: &tenant::World, platform: &Platform) -> bool {
    rollout::is_of_platform(&validated(tenant, world, platform).name, world)
}

/// One look.
fn carry_out(tenant: &Tenant, world: &mut tenant::World, platform: &Platform) {
    let steps = plan(tenant, world, platform);
    apply(world, &steps);
}

/// What there is once a plan was carried out and the hub has rolled.
fn rolled(tenant: &Tenant, world: &mut tenant::World, platform: &Platform) {
    let steps = plan(tenant, world, platform);
    apply(world, &steps);
    world.rolled_out = true;
    for _ in 0..3 {
        let steps = plan(tenant, world, platform);
        apply(world, &steps);
    }
    assert_eq!(plan(tenant, world, platform), Plan::default(), "it ends");
}

fn leaf(generation: u64) -> SecretRef {
    SecretRef { namespace: "acbhub-acme".into(), name: "hub-tls".into(), generation }
}

#[test]
fn a_hub_that_waits_for_its_turn_stays_as_it_is() {
    let given = tenancy(&tenant_text("acme", "{tier: Free}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let mut world = converged(&given, &platform);
    assert!(!is_due(&tenant, &world, &platform) && !is_of_platform(&tenant, &world, &platform));
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform.clone() };
    let names = Platform { extra_tls_names: vec!["hubs.example".into()], ..platform.clone() };
    let mut renewed = world.clone();
    renewed.outdated.insert(leaf(1));
    for (world, platform) in [(&world, &image), (&world, &names), (&renewed, &platform)] {
        assert!(is_due(&tenant, world, platform));
        let held = tenant::World { held: true, ..world.clone() };
        assert_eq!(plan(&tenant, &held, platform), Plan::default());
        // Everything else is done meanwhile.
        let mut suspended = tenant.clone();
        suspended.spec.suspend = Some(true);
        let steps = plan(&suspended, &held, platform).to_string();
        assert!(steps.contains("suspended") && !steps.contains("Deployment") && !steps.contains("hub-tls"), "{steps}");
    }
    // Its turn has come.
    carry_out(&tenant, &mut world, &image);
    assert!(!is_due(&tenant, &world, &image) && is_of_platform(&tenant, &world, &image));
    rolled(&tenant, &mut world, &image);
    assert!(!is_due(&tenant, &world, &image) && !is_of_platform(&tenant, &world, &image));
}

#[test]
fn a_change_of_the_tenants_own_waits_for_nobody() {
    let given = tenancy(&tenant_text("acme", "{tier: Free}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform.clone() };
    let world = converged(&given, &platform);
    let mut edited = tenant.clone();
    edited.spec.hub = serde_json::from_value(json!({"nodeSelector": {"pool": "hubs"}})).unwrap();
    let mut rotated = tenant.clone();
    rotated.metadata.annotations = Some([(ROTATE.to_owned(), "now".to_owned())].into());
    for own in [&edited, &rotated] {
        for platform in [&platform, &image] {
            assert!(!is_due(own, &world, platform), "{:?}", own.spec.hub);
        }
        let mut world = world.clone();
        rolled(own, &mut world, &platform);
        assert!(!is_of_platform(own, &world, &platform));
        assert!(is_due(own, &world, &image), "the next one is the platform's again");
    }
    // Nor does one whose next replica would not start.
    let mut gone = world.clone();
    gone.secrets.remove(&leaf(1));
    assert!(!is_due(&tenant, &gone, &image));
    // What was never started is started.
    let fresh = crate::given::world(&given);
    assert!(!is_due(&tenant, &fresh, &image) && plan(&tenant, &fresh, &image).to_string().contains("Deployment"));
}

fn of_hub(kind: &str) -> ObjectKey {
    ObjectKey::new("apps/v1", kind, "acbhub-acme", "hub")
}

/// A change of the hub's Deployment by a foreign hand.
fn drift(world: &tenant::World, pointer: &str, key: &str, value: Value) -> tenant::World {
    let mut world = world.clone();
    let found = world.objects.get_mut(&of_hub("Deployment")).unwrap();
    found.pointer_mut(pointer).unwrap()[key] = value;
    world
}

fn deployment(world: &tenant::World) -> &Value {
    &world.objects[&of_hub("Deployment")]
}

#[test]
fn a_foreign_hands_change_is_no_roll_and_goes_at_once() {
    let given = tenancy(&tenant_text("acme", "{tier: Enterprise}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform.clone() };
    let world = converged(&given, &platform);
    let before = deployment(&world)["spec"]["template"].clone();
    for (pointer, key, value) in [
        ("/spec/template/spec/containers/0", "image", json!("evil")),
        ("/spec/template/spec", "hostNetwork", json!(true)),
        ("/spec/template/spec", "initContainers", json!([{"name": "by-a-webhook"}])),
    ] {
        let drifted = drift(&world, pointer, key, value);
        assert!(!is_due(&tenant, &drifted, &platform), "{key}");
        let mut right = drifted.clone();
        apply(&mut right, &plan(&tenant, &drifted, &platform));
        assert_eq!(deployment(&right)["spec"]["template"], before, "{key}");
        assert!(!is_of_platform(&tenant, &right, &platform), "{key}");
        // While it waits for its turn it is set back to what it was.
        assert!(is_due(&tenant, &drifted, &image), "{key}");
        let mut held = tenant::World { held: true, ..drifted };
        let steps = plan(&tenant, &held, &image);
        assert_eq!(steps.steps.len(), 1, "{steps}");
        apply(&mut held, &steps);
        assert_eq!(deployment(&held)["spec"]["template"], before, "{key}");
        assert_eq!(plan(&tenant, &held, &image), Plan::default(), "{key}");
        held.held = false;
        assert!(is_due(&tenant, &held, &image), "{key}: still to come");
    }
    // What rolls nothing is changed meanwhile.
    let mut more = tenant.clone();
    more.spec.hub = serde_json::from_value(json!({"replicas": 3})).unwrap();
    assert!(is_due(&more, &world, &image));
    let mut held = tenant::World { held: true, ..world };
    carry_out(&more, &mut held, &image);
    assert_eq!((&deployment(&held)["spec"]["template"], &deployment(&held)["spec"]["replicas"]), (&before, &json!(3)));
}

#[test]
fn what_a_hub_that_waits_needs_stays_too() {
    let given = tenancy(&tenant_text("acme", "{tier: Enterprise}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let mut moved = platform.clone();
    moved.postgres.port = 6432;
    let world = converged(&given, &platform);
    assert!(is_due(&tenant, &world, &moved));
    let steps = plan(&tenant, &world, &moved).to_string();
    assert!(steps.contains("hub-to-platform") && steps.contains("hub-config"), "{steps}");
    let mut held = tenant::World { held: true, ..world };
    assert_eq!(plan(&tenant, &held, &moved), Plan::default());
    // Where they are gone, or were changed by hand while something else waits, they are put right.
    let policy = ObjectKey::new("networking.k8s.io/v1", "NetworkPolicy", "acbhub-acme", "hub-to-platform");
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform };
    held.objects.get_mut(&policy).unwrap()["spec"]["egress"] = json!([{}]);
    assert!(plan(&tenant, &held, &image).to_string().contains("hub-to-platform"));
    held.objects.remove(&policy);
    assert!(plan(&tenant, &held, &moved).to_string().contains("hub-to-platform"));
}

#[test]
fn a_change_on_top_does_not_say_that_the_platforms_came_up() {
    let given = tenancy(&tenant_text("acme", "{tier: Enterprise}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform.clone() };
    let mut edited = tenant.clone();
    edited.spec.hub = serde_json::from_value(json!({"nodeSelector": {"pool": "hubs"}})).unwrap();
    let mut rotated = tenant.clone();
    rotated.metadata.annotations = Some([(ROTATE.to_owned(), "now".to_owned())].into());
    for own in [&edited, &rotated] {
        // Both at once.
        let mut both = converged(&given, &platform);
        carry_out(own, &mut both, &image);
        assert!(is_of_platform(own, &both, &image), "{:?}", own.spec.hub);
        // One after the other.
        let mut world = converged(&given, &platform);
        carry_out(&tenant, &mut world, &image);
        assert!(!world.rolled_out && is_of_platform(&tenant, &world, &image));
        carry_out(own, &mut world, &image);
        assert!(is_of_platform(own, &world, &image), "it did not come up yet: {:?}", own.spec.hub);
        world.rolled_out = true;
        carry_out(own, &mut world, &image);
        assert!(!is_of_platform(own, &world, &image), "it is through");
    }
}

#[test]
fn a_hub_that_was_through_once_rolls_no_more() {
    let given = tenancy(&tenant_text("acme", "{tier: Enterprise}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform.clone() };
    let mut world = converged(&given, &platform);
    carry_out(&tenant, &mut world, &image);
    assert!(is_of_platform(&tenant, &world, &image));
    let template = deployment(&world)["spec"]["template"].clone();
    rolled(&tenant, &mut world, &image);
    assert_eq!(deployment(&world)["spec"]["template"], template, "what is written down rolls nothing");
    world.rolled_out = false;
    assert_eq!(plan(&tenant, &world, &image), Plan::default());
    assert!(!is_of_platform(&tenant, &world, &image), "a replica that is lost later is no roll");
    carry_out(&tenant, &mut world, &platform);
    assert!(is_of_platform(&tenant, &world, &platform), "the next one is");
}

#[test]
fn what_rolls_nothing_is_no_change_of_the_tenants_own() {
    let given = tenancy(&tenant_text("acme", "{tier: Enterprise}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform.clone() };
    let world = converged(&given, &platform);
    for (hub, rolls) in [
        (json!({"replicas": 3}), false),
        (json!({"autoscaling": {"maxReplicas": 3}}), false),
        (json!({"service": {"type": "NodePort"}}), false),
        (json!({"ingressPeers": [{"podSelector": {}}]}), false),
        (json!({"hostnames": ["acme.example"]}), true),
        (json!({"image": "acb-hub:own"}), true),
        (json!({"podTemplate": {"labels": {"a": "b"}}}), true),
        (json!({"resources": {"requests": {"cpu": "1"}}}), true),
    ] {
        let mut edited = tenant.clone();
        edited.spec.hub = serde_json::from_value(hub.clone()).unwrap();
        let names = Platform { extra_tls_names: vec!["hubs.example".into()], ..image.clone() };
        assert_eq!(is_due(&edited, &world, &names), !rolls, "{hub}");
        let alone = plan(&edited, &world, &platform);
        let mut after = world.clone();
        apply(&mut after, &alone);
        assert_eq!(deployment(&after)["spec"]["template"] != deployment(&world)["spec"]["template"], rolls, "{hub}");
    }
}

#[test]
fn what_agents_need_waits_for_no_turn() {
    let given = tenancy(&tenant_text("acme", "{tier: Free, hub: {service: {type: LoadBalancer}}}"));
    let (tenant, platform) = (first(&given), kafka_platform());
    let image = Platform { hub_image: "acb-hub:next".into(), ..platform.clone() };
    let world = converged(&given, &platform);
    assert!(is_due(&tenant, &world, &image));
    let mut unsigned = world.clone();
    unsigned.secrets.retain(|secret| secret.namespace == "acbhub-acme");
    assert_ne!(unsigned.secrets, world.secrets);
    let mut addressed = world.clone();
    let service = addressed.objects.get_mut(&ObjectKey::new("v1", "Service", "acbhub-acme", "hub")).unwrap();
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
    let mut overdue = world.clone();
    overdue.outdated.insert(leaf(1));
    assert!(is_due(&tenant, &overdue, &platform), "an old one waits");
    overdue.overdue.insert(leaf(1));
    for world in [&unsigned, &addressed, &overdue] {
        for platform in [&platform, &image] {
            assert!(!is_due(&tenant, world, platform));
        }
        assert!(plan(&tenant, world, &platform).to_string().contains("hub-tls-2"));
    }
}
