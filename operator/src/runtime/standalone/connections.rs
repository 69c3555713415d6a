//! How many connections the private PostgreSQL takes: as many as the hubs of all Tenants may have at once.

use acb_crds::{document::Loaded, schema::Resource};

use crate::tenant::replicas::{self, connection_limit};

/// The fewest. PostgreSQL takes another number only at its next start, and Tenants may come meanwhile: these are the hubs of 35 of two replicas.
const LEAST: u32 = 800;
/// What PostgreSQL takes at most.
const MOST: u32 = 262_000;
/// The operator's own, and those of people who look into it.
const BESIDE_HUBS: u32 = 50;

/// What Tenants of these numbers of replicas need.
fn needed(max_replicas: impl Iterator<Item = u32>) -> u32 {
    let hubs = max_replicas.map(connection_limit).fold(BESIDE_HUBS, u32::saturating_add);
    hubs.min(MOST).next_multiple_of(100).max(LEAST)
}

/// What the Tenants of a folder need.
pub(super) fn of_folder(loaded: &Loaded) -> u32 {
    needed(loaded.resources.iter().filter_map(|(_, resource)| match resource {
        Resource::Tenant(tenant) => Some(replicas::of_hub(&tenant.spec.hub.clone().unwrap_or_default()).1),
        Resource::Agent(_) | Resource::Quota(_) => None,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_crds::document;

    use super::*;

    fn folder(tenants: usize, hub: &str) -> Loaded {
        let tenant = |number| {
            format!(
                "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: t{number}}}\nspec: {{tier: Enterprise, hub: {hub}}}\n"
            )
        };
        let files: Vec<(String, String)> = (0..tenants).map(|number| (format!("{number}.yaml"), tenant(number))).collect();
        let loaded = document::collect(&files);
        assert_eq!((loaded.resources.len(), loaded.errors.len()), (tenants, 0), "{:?}", loaded.errors);
        loaded
    }

    #[test]
    fn every_hub_has_room_for_all_that_it_may_open() {
        assert_eq!(of_folder(&folder(0, "{}")), LEAST);
        for (hub, most) in [("{}", 1), ("{replicas: 2}", 2), ("{autoscaling: {minReplicas: 1, maxReplicas: 4}}", 4)] {
            for tenants in [15, 60, 200] {
                let limits = u32::try_from(tenants).unwrap() * connection_limit(most);
                let takes = of_folder(&folder(tenants, hub));
                assert!(takes >= limits + BESIDE_HUBS && takes.is_multiple_of(100), "{tenants} of {hub}: {takes}");
            }
        }
        assert!(needed(std::iter::repeat_n(u32::MAX / 7 - 1, 20)) <= 262_143, "no more than PostgreSQL starts with");
    }
}
