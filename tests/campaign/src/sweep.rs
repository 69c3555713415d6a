//! What the operator does about what belongs to no Tenant: the order of `operator/src/runtime/kubernetes/sweep.rs`.

use std::collections::BTreeSet;

use acb_crds::{names::TenantId, schema::Kind};
use acb_operator::{
    effect::{kafka_inventory::KafkaInventory, postgres_inventory::PostgresInventory},
    orphans::{Inventory, Orphan, orphans},
    plan::Plan,
    tenancy::Unreadable,
};

use crate::{operator::Operator, systems::System};

impl Operator {
    /// What belongs to no Tenant.
    pub(crate) fn orphans(&self) -> Vec<String> {
        self.strangers().iter().map(ToString::to_string).collect()
    }

    fn strangers(&self) -> Vec<Orphan> {
        let systems = &self.systems;
        let mut inventory = Inventory { objects: self.objects_seen().into_owned(), ..Inventory::default() };
        inventory.objects.retain(|key, _| key.api_version != acb_crds::API_VERSION);
        let ids = |id: &String| TenantId::from_hex(id).unwrap();
        let mut postgres = PostgresInventory::default();
        for (id, rows) in &systems.postgres.tenants {
            postgres.logins.extend(rows.observed.login.map(|login| (ids(id), login.enabled)));
            postgres.rows.extend(rows.observed.tenant.as_ref().map(|row| (ids(id), row.name.clone())));
        }
        inventory.postgres = Some(postgres).filter(|_| !systems.is_unread(System::Postgres));
        if let Some(kafka) = systems.kafka.as_ref().filter(|_| !systems.is_unread(System::Kafka)) {
            let users: BTreeSet<TenantId> =
                kafka.users.keys().filter_map(|user| TenantId::from_hex(user.trim_start_matches("acb_t_"))).collect();
            // Of each tenant its name.
            let names = kafka.topics.keys().filter_map(|topic| topic.split('.').nth(1)).map(str::to_owned).collect();
            inventory.kafka = Some(KafkaInventory { granted: users.clone(), users, topics: names });
        }
        let mut tenancy = self.documents_seen().tenancy("");
        // The API server is asked, too.
        let there = self.documents.tenancy("").tenants;
        let there = there.iter().map(|tenant| tenant.metadata.clone());
        tenancy.unreadable.extend(there.map(|metadata| Unreadable::new(Kind::Tenant, metadata)));
        orphans(&tenancy, &inventory)
    }

    /// Takes away of it what lets somebody in.
    pub(crate) fn sweep(&mut self) {
        // Without the Tenants nothing is taken away.
        if self.systems.is_unread(System::Kubernetes) {
            return;
        }
        self.note();
        for orphan in self.strangers() {
            // What fails is left for the next time.
            let _ = self.apply(&Plan { steps: orphan.steps });
        }
    }
}
