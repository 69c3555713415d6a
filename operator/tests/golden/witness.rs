//! A witness of the audit trails: what hubs are told of it, and how far they reach for it.

use acb_operator::{
    effect::kubernetes::ObjectKey,
    platform::{Platform, PlatformWitness},
};
use serde_json::Value;

use crate::given::{converged, platform, tenancy, tenant_text};

#[test]
fn hubs_are_told_of_the_witness_and_reach_it_where_it_is() {
    let given = tenancy(&tenant_text("acme", "{tier: Free}"));
    for (cidrs, reached) in [(&["10.1.2.3/32"][..], r#"[{"ipBlock":{"cidr":"10.1.2.3/32"}}]"#), (&[], r#""except":["0.0.0.0/8""#)]
    {
        let witness = PlatformWitness {
            url: "https://witness.example.com:8443/acb".to_owned(),
            cidrs: cidrs.iter().map(ToString::to_string).collect(),
            certificate_authority: String::new(),
        };
        let world = converged(&given, &Platform { witness: Some(witness), ..platform() });
        let object = |api: &str, kind: &str, name: &str| &world.objects[&ObjectKey::new(api, kind, "acbhub-acme", name)];
        let config = object("v1", "ConfigMap", "hub-config")["data"]["hub.json"].as_str().unwrap();
        let config: Value = serde_json::from_str(config).unwrap();
        assert_eq!(config["witness"]["url"], "https://witness.example.com:8443/acb");
        let policy = object("networking.k8s.io/v1", "NetworkPolicy", "hub-to-platform");
        let egress = policy["spec"]["egress"].as_array().unwrap();
        let rule = egress.iter().find(|rule| rule["ports"][0]["port"] == 8443).unwrap();
        assert!(rule["to"].to_string().contains(reached), "{rule}");
    }
    let world = converged(&given, &platform());
    let config = &world.objects[&ObjectKey::new("v1", "ConfigMap", "acbhub-acme", "hub-config")];
    assert!(!config.to_string().contains("witness"), "a hub of before reads no such field");
}
