//! Hubs that are to roll for the platform's sake.

use acb_crds::{Tenant, names::annotations::ROTATE};
use acb_operator::{
    plan::{Plan, SecretRef},
    platform::Platform,
    tenant::{self, Decision, rollout, validate::ValidatedTenant},
};
use serde_json::json;

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
    rollout::is_of_platform(&validated(tenant, world, platform), world)
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
    rolled(&tenant, &mut world, &image);
    assert!(!is_due(&tenant, &world, &image) && is_of_platform(&tenant, &world, &image));
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
