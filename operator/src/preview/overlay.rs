//! Documents laid over what is there, as if they had just been applied. Pure. Of a document's metadata only what its writer decides is
//! taken: who could name a UID here could ask about another's object.

use acb_crds::schema::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use uuid::Uuid;

use crate::tenancy::Tenancy;

/// Lays one resource over those of its kind.
macro_rules! lay_one {
    ($known:expr, $given:expr) => {{
        let known = $known.iter().position(|known| known.metadata.name == $given.metadata.name);
        match known {
            Some(index) => {
                let known = &mut $known[index];
                known.spec = $given.spec.clone();
                known.metadata = metadata(&$given.metadata, Some(&known.metadata));
            }
            None => {
                let mut new = $given.clone();
                (new.metadata, new.status) = (metadata(&$given.metadata, None), None);
                $known.push(new);
            }
        }
    }};
}

/// Lays resources over a tenancy: every Tenant, and the Agents and Quotas of its namespace.
pub(crate) fn lay(tenancy: &mut Tenancy, namespace: &str, given: &[Resource]) {
    let is_here = |metadata: &ObjectMeta| metadata.namespace.as_deref() == Some(namespace);
    for resource in given {
        match resource {
            Resource::Tenant(tenant) => lay_one!(tenancy.tenants, tenant.as_ref()),
            Resource::Agent(agent) if is_here(&agent.metadata) => lay_one!(tenancy.agents, agent.as_ref()),
            Resource::Quota(quota) if is_here(&quota.metadata) => lay_one!(tenancy.quotas, quota.as_ref()),
            Resource::Agent(_) | Resource::Quota(_) => {}
        }
    }
}

/// The metadata that an object would have. A new one gets a UID that stands for the one that the API server would give it.
fn metadata(given: &ObjectMeta, known: Option<&ObjectMeta>) -> ObjectMeta {
    let mut metadata = known.cloned().unwrap_or_else(|| ObjectMeta {
        name: given.name.clone(),
        namespace: given.namespace.clone(),
        uid: Some(Uuid::new_v4().to_string()),
        generation: Some(1),
        ..ObjectMeta::default()
    });
    // An apply leaves what others put there.
    for (target, source) in [(&mut metadata.labels, &given.labels), (&mut metadata.annotations, &given.annotations)] {
        if let Some(source) = source {
            target.get_or_insert_default().extend(source.clone());
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_crds::document::load;

    use super::*;

    fn resources(text: &str) -> Vec<Resource> {
        load(text, "given").ours.into_iter().map(Result::unwrap).collect()
    }

    const AGENT: &str = "apiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {name: a, namespace: acb-acme, uid: stolen, labels: {team: x}}\n\
                         spec: {role: Observer}\n";

    #[test]
    fn what_is_new_gets_an_identity_of_its_own() {
        let mut tenancy = Tenancy::default();
        lay(&mut tenancy, "acb-acme", &resources(AGENT));
        let agent = &tenancy.agents[0];
        let uid = agent.metadata.uid.clone().unwrap();
        assert!(uid != "stolen" && uid.len() == 36, "{uid}");
        let mut elsewhere = Tenancy::default();
        lay(&mut elsewhere, "acb-globex", &resources(AGENT));
        assert!(elsewhere.agents.is_empty());
    }

    #[test]
    fn what_is_there_keeps_its_identity_and_the_labels_of_others() {
        let mut tenancy = Tenancy::default();
        lay(&mut tenancy, "acb-acme", &resources(AGENT));
        let known = &mut tenancy.agents[0];
        known.metadata.uid = Some("known".into());
        known.metadata.labels.get_or_insert_default().insert("by".into(), "others".into());
        lay(&mut tenancy, "acb-acme", &resources(&AGENT.replace("Observer", "AgentFull").replace("team: x", "team: y")));
        assert_eq!(tenancy.agents.len(), 1);
        let agent = &tenancy.agents[0];
        assert_eq!((agent.metadata.uid.as_deref(), agent.spec.role.as_str()), (Some("known"), "AgentFull"));
        let labels = agent.metadata.labels.clone().unwrap();
        assert_eq!((labels["team"].as_str(), labels["by"].as_str()), ("y", "others"));
    }
}
