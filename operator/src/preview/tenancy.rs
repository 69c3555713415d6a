//! The decisions about one tenancy, as a reconcile makes them.

use std::{collections::BTreeSet, sync::Arc};

use acb_crds::{
    Condition, Tenant,
    schema::{Kind, ObjectRef},
};
use tokio::task::yield_now;

use super::{Decision, Refused};
use crate::{
    agent,
    effect::EffectError,
    plan::{KubernetesStep, Plan, PostgresStep, Step},
    platform::Platform,
    quota,
    reconcile::tenancies::reference,
    tenancy::{Census, Tenancy},
    tenant::{self, fetch::Sources},
};

/// One object, and what was decided about it.
pub(crate) struct Decided {
    pub(crate) object: ObjectRef,
    pub(crate) decision: Decision,
    /// Its status says that it is stalled already.
    pub(crate) was_stalled: bool,
}

fn is_stalled(conditions: Option<&[Condition]>) -> bool {
    conditions.into_iter().flatten().any(|condition| condition.r#type == "Stalled" && condition.status == "True")
}

/// What would be done in a namespace: for its Tenant, its Quotas and its Agents. Without `sources` the plans start from nothing.
///
/// # Errors
/// What could not be read.
pub(crate) async fn decide(
    namespace: &str,
    mut tenancy: Tenancy,
    sources: Option<&Sources<'_>>,
    platform: &Platform,
) -> Result<Vec<Decided>, EffectError> {
    // One on its way out is an input of nothing any more, and has nothing of its own.
    tenancy.quotas.retain(|quota| quota.metadata.deletion_timestamp.is_none());
    let census = Arc::new(Census::of(namespace, tenancy, platform));
    let tenancy = census.tenancy();
    let (mut decided, mut types) = (Vec::new(), BTreeSet::new());
    // What the Tenant's plan makes is there when its Agents' turn comes.
    let mut before = Plan::default();
    for tenant in tenancy.tenants.of_space(namespace) {
        let decision = decide_tenant(tenant, tenancy, sources, platform, &mut types).await?;
        if let Ok(plan) = &decision {
            before.steps.extend(plan.steps.clone());
        }
        let was_stalled = is_stalled(tenant.status.as_ref().map(|status| status.conditions.as_slice()));
        decided.push(Decided { object: reference(Kind::Tenant, &tenant.metadata), decision, was_stalled });
    }
    let census = Arc::new(Arc::unwrap_or_clone(census).with_types(&types));
    let tenancy = census.tenancy();
    for quota in &tenancy.quotas {
        yield_now().await;
        let decision = quota::validate::validate(quota, &census).map(|_| Plan::default()).map_err(Refused::from);
        let was_stalled = is_stalled(quota.status.as_ref().map(|status| status.conditions.as_slice()));
        decided.push(Decided { object: reference(Kind::Quota, &quota.metadata), decision, was_stalled });
    }
    if tenancy.agents.is_empty() {
        return Ok(decided);
    }
    let shared = match sources {
        Some(sources) => {
            let postgres = sources.postgres.as_ref().map_err(|why| why.clone())?;
            Some(agent::fetch::fetch_shared(namespace, Arc::clone(&census), sources.objects, &postgres.pool).await?)
        }
        None => None,
    };
    for agent in &tenancy.agents {
        // As in a reconcile: others have a turn between two of thousands.
        yield_now().await;
        let mut world = match (sources, &shared) {
            (Some(sources), Some(shared)) => agent::fetch::fetch(agent, shared, sources.objects).await?,
            _ => agent::World { census: Arc::clone(&census), ..agent::World::default() },
        };
        follow(&mut world, &before);
        let decision = match agent::decide(agent, &world) {
            agent::Decision::Converge { plan, .. } => Ok(plan),
            agent::Decision::Refused { problems, restraint } => Err(Refused { problems, restraint }),
        };
        let was_stalled = is_stalled(agent.status.as_ref().map(|status| status.conditions.as_slice()));
        decided.push(Decided { object: reference(Kind::Agent, &agent.metadata), decision, was_stalled });
    }
    Ok(decided)
}

async fn decide_tenant(
    tenant: &Tenant,
    tenancy: &Tenancy,
    sources: Option<&Sources<'_>>,
    platform: &Platform,
    types: &mut BTreeSet<String>,
) -> Result<Decision, EffectError> {
    let tenancy = tenancy.clone();
    let world = match sources {
        Some(sources) => tenant::fetch::fetch(tenant, tenancy, sources, platform).await,
        None => tenant::World { tenancy, ..tenant::World::default() },
    };
    // A reconcile does what it can meanwhile; a plan that leaves out the rest would be taken for all of it.
    if let Some(why) = world.away().into_iter().next() {
        return Err(why);
    }
    let decision = tenant::decide(tenant, &world, platform);
    if let Some(validated) = decision.tenant() {
        types.extend(world.existing_types(&validated.name, platform));
    }
    Ok(match decision {
        tenant::Decision::Refused { problems, restraint, .. } => Err(Refused { problems, restraint }),
        decision => Ok(decision.plan()),
    })
}

/// An Agent's world after its Tenant's plan.
fn follow(world: &mut agent::World, plan: &Plan) {
    for step in &plan.steps {
        match step {
            Step::Kubernetes(KubernetesStep::EnsureSecret { secret, .. }) => drop(world.secrets.insert(secret.clone())),
            Step::Postgres(PostgresStep::ProjectTenant { .. }) => world.tenant_projected = true,
            Step::Postgres(PostgresStep::RemoveTenant { .. }) => world.tenant_projected = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use acb_crds::document::load;

    use super::*;
    use crate::{platform::PlatformPostgres, preview::overlay};

    const TENANT: &str =
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {tier: Free, limits: {maxAgents: 1}}\n";
    const AGENT: &str =
        "apiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {name: a, namespace: acb-acme}\nspec: {role: Observer}\n";

    fn platform() -> Platform {
        Platform::new(PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() })
    }

    async fn of(text: &str) -> Vec<Decided> {
        let given: Vec<_> = load(text, "given").ours.into_iter().map(Result::unwrap).collect();
        let mut tenancy = Tenancy::default();
        overlay::lay(&mut tenancy, "acb-acme", &given);
        decide("acb-acme", tenancy, None, &platform()).await.unwrap()
    }

    #[tokio::test]
    async fn an_agent_is_planned_as_if_its_tenant_were_there() {
        let decided = of(&format!("{TENANT}---\n{AGENT}")).await;
        let names: Vec<String> = decided.iter().map(|decided| decided.object.to_string()).collect();
        assert_eq!(names, ["Tenant acme", "Agent acb-acme/a"]);
        let text = decided[1].decision.as_ref().unwrap().to_string();
        assert!(text.contains("+ Secret acb-acme/a-api-key-1") && text.contains("+ postgres agent a"), "{text}");
    }

    #[tokio::test]
    async fn one_too_many_is_refused() {
        let decided = of(&format!("{TENANT}---\n{AGENT}---\n{}", AGENT.replace("name: a,", "name: b,"))).await;
        let refused = decided[2].decision.as_ref().unwrap_err();
        assert!(refused.problems[0].message.contains("allows 1 agents"), "{refused:?}");
    }

    fn agents(count: usize) -> Tenancy {
        let agent = AGENT.replace("role: Observer", "role: AgentFull, publishes: [a, b, c, d, e]");
        let given: Vec<_> = load(&format!("{TENANT}---\n{agent}"), "given").ours.into_iter().map(Result::unwrap).collect();
        let mut tenancy = Tenancy::default();
        overlay::lay(&mut tenancy, "acb-acme", &given);
        let first = tenancy.agents[0].clone();
        tenancy.agents.extend((1..count).map(|number| {
            let mut agent = first.clone();
            agent.metadata.name = Some(format!("a{number}"));
            agent
        }));
        tenancy
    }

    #[test]
    fn thousands_of_agents_take_no_longer_than_a_probe_waits() {
        let (told, hears) = mpsc::channel();
        thread::spawn(move || {
            let decided = futures::executor::block_on(decide("acb-acme", agents(2_000), None, &platform()));
            told.send(decided.unwrap().iter().filter(|decided| decided.decision.is_ok()).count())
        });
        let granted = hears.recv_timeout(Duration::from_secs(60)).expect("decided in time");
        assert_eq!(granted, 2, "the Tenant, and the one Agent that it allows");
    }

    #[tokio::test]
    async fn others_have_a_turn_between_two_agents() {
        let turns = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&turns);
        tokio::spawn(async move {
            loop {
                counting.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        decide("acb-acme", agents(50), None, &platform()).await.unwrap();
        assert!(turns.load(Ordering::Relaxed) >= 50, "{turns:?}");
    }
}
