//! Agents that prove themselves with a ServiceAccount: what is planned for them and their tenant, and what is said of them.

use acb_operator::{
    agent::{self, StoredApiKey},
    condition::{Outcome, Reason},
    observed::ObservedIssuer,
    plan::{Plan, PostgresStep, SecretRef, Step},
    platform::Platform,
    tenancy::{Tenancy, Unreadable},
    tenant,
};
use serde_json::{Value, json};

use crate::given::{agent_named, agent_text, agent_world, apply, converged, first, plan, platform, tenancy, tenant_text};

const UID: &str = "7d0c2ad2-6d7c-4a43-8b4e-0a4a2f5d8f11";

fn cluster() -> Platform {
    Platform { has_service_accounts: true, ..platform() }
}

fn issuer(name: &str, kids: &[&str]) -> ObservedIssuer {
    let keys: Vec<Value> = kids.iter().map(|kid| json!({"kid": kid, "kty": "RSA"})).collect();
    ObservedIssuer { issuer: format!("https://{name}"), jwks: json!({"keys": keys}), is_settled: true }
}

fn given(credentials: &str) -> Tenancy {
    let spec = format!("{{role: AgentFull, credentials: {credentials}}}");
    tenancy(&(tenant_text("acme", "{tier: Free}") + &agent_text("acb-acme", "one", &spec)))
}

/// What is seen of a cluster that has the account.
fn seen(given: &Tenancy) -> agent::World {
    agent::World { account_uid: Some(UID.to_owned()), has_issuer: true, ..agent_world(given, &cluster()) }
}

fn validated(given: &Tenancy, name: &str, world: &agent::World) -> agent::validate::ValidatedAgent {
    agent::validate::validate(&agent_named(given, name), world).unwrap()
}

fn planned(given: &Tenancy, world: &agent::World) -> String {
    agent::plan::plan(&validated(given, "one", world), world).to_string()
}

#[test]
fn an_agent_with_an_account_alone_has_no_key() {
    let given = given("{serviceAccount: {name: worker}}");
    let mut world = seen(&given);
    let text = planned(&given, &world);
    assert!(text.contains("; ServiceAccount acb-acme/worker; no key)") && text.lines().count() == 1, "{text}");
    let agent = validated(&given, "one", &world);
    world.row = Some(agent::plan::agent_row(&agent));
    assert_eq!(planned(&given, &world), "nothing to do\n");
    assert_eq!(agent::plan::lacks(&agent, &world), None);
    let status =
        agent::status::status(&agent_named(&given, "one"), Some(&agent), &world, &Outcome::Ready, "2025-01-01T00:00:00Z");
    assert_eq!((status.api_key_secret, status.api_key_since), (None, None));
    assert_eq!(status.token_audience, Some(format!("acb:{}", agent.tenant_id.hex())));
    assert!(status.fields_not_acted_on.is_empty());

    // It had one before.
    let secret = SecretRef { namespace: "acb-acme".to_owned(), name: agent.name.api_key_secret(), generation: 1 };
    world.secrets.insert(secret);
    world.api_key = StoredApiKey::Current;
    let text = planned(&given, &world);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("no key)") && lines[1].starts_with("- Secret acb-acme/") && lines.len() == 2, "{text}");
}

#[test]
fn an_account_that_is_gone_or_another_is_taken_away() {
    let given = given("{apiKey: {}, serviceAccount: {name: worker}}");
    let mut world = seen(&given);
    let agent = validated(&given, "one", &world);
    world.row = Some(agent::plan::agent_row(&agent));
    world.api_key = StoredApiKey::Current;
    world.secrets.insert(SecretRef { namespace: "acb-acme".to_owned(), name: agent.name.api_key_secret(), generation: 1 });
    assert_eq!(planned(&given, &world), "nothing to do\n");
    let known = world.clone();
    for uid in [None, Some("another".to_owned())] {
        let world = agent::World { account_uid: uid.clone(), ..known.clone() };
        let agent = validated(&given, "one", &world);
        let plan = agent::plan::plan(&agent, &world);
        let [Step::Postgres(PostgresStep::ProjectAgent { agent: row, api_key: Some(_), .. })] = &plan.steps[..] else {
            panic!("{plan}")
        };
        assert_eq!(row.service_account.as_ref().map(|account| account.uid.clone()), uid);
        let lacks = agent::plan::lacks(&agent, &world).unwrap_or_default();
        assert_eq!(lacks.starts_with("waiting for ServiceAccount acb-acme/worker"), uid.is_none(), "{lacks}");
    }
    // Also where the rest of it has to wait: nobody knows its tenant's hub keys.
    let waiting = agent::World { account_uid: None, tenant_projected: false, ..known.clone() };
    let plan = agent::plan::plan(&validated(&given, "one", &waiting), &waiting);
    let [Step::Postgres(PostgresStep::RestrainAgent { agent: row, .. })] = &plan.steps[..] else { panic!("{plan}") };
    assert_eq!(row.service_account, None);
    // And where the Agent may not be any more.
    let suspension = agent::plan::suspension("00112233445566778899", &known);
    let [Step::Postgres(PostgresStep::ProjectAgent { agent: row, .. })] = &suspension.steps[..] else { panic!("{suspension}") };
    assert_eq!((row.suspended, &row.service_account), (true, &None));
    // It is known, and the cluster's keys are not.
    let unknown = agent::World { has_issuer: false, ..known };
    let lacks = agent::plan::lacks(&validated(&given, "one", &unknown), &unknown).unwrap();
    assert!(lacks.contains("keys that the cluster's tokens are checked with"), "{lacks}");
}

/// The objects in docs/authentication.md are what they should be.
#[test]
fn the_agent_of_the_page_has_the_account_and_the_pod_of_the_page() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/authentication.md")).unwrap();
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let [objects, pod, _, _] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    let (_, agent) = objects.split_once("---\n").unwrap();
    let given = tenancy(&format!("{}{agent}", tenant_text("acme", "{tier: Free}")));
    let validated = validated(&given, "worker", &seen(&given));
    assert_eq!((validated.account.unwrap().name.as_str(), validated.has_api_key), ("worker", false));
    assert!(
        pod.contains("serviceAccountName: worker")
            && pod.contains("audience: \"acb:00112233445566778899\", expirationSeconds: 3600"),
        "{pod}"
    );
}

#[test]
fn one_account_proves_one_agent() {
    let agents = ["one", "two"]
        .map(|name| agent_text("acb-acme", name, "{role: AgentFull, credentials: {serviceAccount: {name: worker}}}"));
    let given = tenancy(&(tenant_text("acme", "{tier: Free}") + &agents.concat()));
    let world = seen(&given);
    assert!(agent::validate::validate(&agent_named(&given, "one"), &world).is_ok());
    let problems = agent::validate::validate(&agent_named(&given, "two"), &world).unwrap_err();
    assert_eq!(
        (problems[0].reason, problems[0].field.as_str()),
        (Reason::ServiceAccountTaken, "spec.credentials.serviceAccount.name")
    );
    assert!(problems[0].message.contains("Agent one"), "{}", problems[0].message);
}

#[test]
fn where_there_are_no_accounts_that_is_said() {
    let alone = given("{serviceAccount: {name: worker}}");
    let problems = agent::validate::validate(&agent_named(&alone, "one"), &agent_world(&alone, &platform())).unwrap_err();
    assert_eq!(problems[0].reason, Reason::CredentialNotSupported);
    assert!(problems[0].message.contains("on a Kubernetes cluster only: add apiKey"), "{}", problems[0].message);
    let beside = given("{apiKey: {}, serviceAccount: {name: worker}}");
    let world = agent::World { account_uid: Some(UID.to_owned()), ..agent_world(&beside, &platform()) };
    let agent = validated(&beside, "one", &world);
    assert_eq!(
        (agent.account.as_ref(), agent.not_acted_on.as_slice()),
        (None, &["spec.credentials.serviceAccount".to_owned()][..])
    );
    let external = given("{external: {issuer: 'https://x', subject: a}}");
    let problems = agent::validate::validate(&agent_named(&external, "one"), &agent_world(&external, &cluster())).unwrap_err();
    assert_eq!(problems[0].reason, Reason::CredentialNotSupported);
}

#[test]
fn a_tenant_knows_the_clusters_keys_where_an_agent_has_an_account() {
    let (with, without) = (given("{serviceAccount: {name: worker}}"), given("{apiKey: {}}"));
    let mut world = converged(&with, &cluster());
    let of = |given: &Tenancy, world: &tenant::World, issuer: Option<ObservedIssuer>| {
        let world = tenant::World { tenancy: given.clone(), issuer, ..world.clone() };
        plan(&first(given), &world, &cluster())
    };
    assert_eq!(of(&with, &world, None), Plan::default(), "the API server was not asked yet");
    let known = of(&with, &world, Some(issuer("one", &[])));
    assert!(known.to_string().ends_with("; tokens of https://one)\n"), "{known}");
    apply(&mut world, &known);
    assert_eq!(of(&with, &world, Some(issuer("one", &[]))), Plan::default());
    assert_eq!(of(&with, &world, None), Plan::default(), "a new leader has not asked yet");
    let another = of(&with, &world, Some(issuer("two", &[])));
    assert!(another.to_string().ends_with("; tokens of https://two, https://one)\n"), "{another}");
    let gone = of(&without, &world, Some(issuer("one", &[])));
    assert!(gone.steps.len() == 1 && !gone.to_string().contains("tokens of"), "{gone}");
}

/// It is a fact of the cluster, and no part of what is wrong with the Tenant.
#[test]
fn a_stalled_tenant_loses_keys_that_the_cluster_gave_up() {
    let given = given("{serviceAccount: {name: worker}}");
    let mut world = tenant::World { issuer: Some(issuer("one", &["a"])), ..converged(&given, &cluster()) };
    let steps = plan(&first(&given), &world, &cluster());
    apply(&mut world, &steps);
    let mut stalled = first(&given);
    stalled.spec.hub = Some(serde_json::from_value(json!({"replicas": 40})).unwrap());
    let decide = |world: &tenant::World| match tenant::decide(&stalled, world, &cluster()) {
        tenant::Decision::Refused { restraint, .. } => restraint,
        other => panic!("{other:?}"),
    };
    assert_eq!(decide(&world), Plan::default());
    world.issuer = Some(issuer("one", &["b"]));
    let restraint = decide(&world);
    let [Step::Postgres(PostgresStep::ProjectTenant { tenant, .. })] = &restraint.steps[..] else { panic!("{restraint}") };
    let row = tenant.issuer.clone().unwrap();
    assert_eq!(row.jwks, issuer("one", &["b"]).jwks);
    // As long as it is not certain, nothing goes.
    world.issuer = Some(ObservedIssuer { is_settled: false, ..issuer("one", &["b"]) });
    let restraint = decide(&world);
    let [Step::Postgres(PostgresStep::ProjectTenant { tenant, .. })] = &restraint.steps[..] else { panic!("{restraint}") };
    assert_eq!(tenant.issuer.clone().unwrap().jwks, issuer("one", &["a", "b"]).jwks);
}

#[test]
fn an_agent_that_can_not_be_read_keeps_its_account() {
    let agents = ["one", "two"]
        .map(|name| agent_text("acb-acme", name, "{role: AgentFull, credentials: {apiKey: {}, serviceAccount: {name: worker}}}"));
    let mut given = tenancy(&(tenant_text("acme", "{tier: Free}") + &agents.concat()));
    let document = |name: &str| serde_json::to_value(agent_named(&given, name)).unwrap();
    let read = |name: &str| Unreadable::of(acb_crds::schema::Kind::Agent, &document(name)).unwrap();
    let (older, younger, two, one) = (read("one"), read("two"), agent_named(&given, "two"), agent_named(&given, "one"));
    given.agents.clear();
    let refused = |agent: &acb_crds::Agent, unreadable: &Unreadable, holder: Option<&str>| {
        let mut there = given.clone();
        (there.agents, there.unreadable) = (vec![agent.clone()], vec![unreadable.clone()]);
        let world = agent::World { account_holder: holder.map(str::to_owned), ..seen(&there) };
        let problems = agent::validate::validate(agent, &world).err().unwrap_or_default();
        problems.iter().map(|problem| (problem.reason, problem.message.contains("that of Agent"))).collect::<Vec<_>>()
    };
    let taken = [(Reason::ServiceAccountTaken, true)];
    assert_eq!(refused(&two, &older, None), taken);
    assert_eq!(refused(&one, &younger, None), [], "the older has it");
    // Of a version that says it elsewhere, only its row tells.
    let silent = Unreadable { account: None, ..older.clone() };
    assert_eq!(refused(&two, &silent, None), []);
    assert_eq!(refused(&two, &silent, Some("one")), taken);
}
