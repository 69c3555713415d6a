//! Every login and every row of a tenant is found, whoever's it is.

use acb_crds::names::TenantId;
use acb_hub_pool::{Limits, Pool};
use acb_operator::{effect::postgres_inventory::inventory, plan::PostgresStep};
use acb_testbed::{Postgres, Version};

#[tokio::test]
async fn installed() {
    all_are_found(Version::Installed).await;
}

#[tokio::test]
async fn v17() {
    all_are_found(Version::V17).await;
}

async fn all_are_found(version: Version) {
    // A server of its own: others make tenants, too.
    let postgres = Postgres::start(version).await;
    let (acme, bravo) = (postgres.tenant("acme").await, postgres.tenant("bravo").await);
    let [a, b] = [&acme, &bravo].map(|tenant| TenantId::from_hex(tenant.id_hex()).unwrap());
    let pool = Pool::new(postgres.operator_options(), Limits::default());
    postgres.execute("CREATE ROLE acb_t_of_somebody LOGIN").await;
    let found = inventory(&pool).await.unwrap();
    assert_eq!(found.logins, [(a, true), (b, true)].into());
    assert_eq!(found.rows, [(a, "acme".to_owned()), (b, "bravo".to_owned())].into());

    let (effect, tenant_id) = (postgres.effect(), a.hex());
    effect.apply(&PostgresStep::DisableLogin { tenant_id: tenant_id.clone() }).await.unwrap();
    assert_eq!(inventory(&pool).await.unwrap().logins, [(a, false), (b, true)].into());
    effect.apply(&PostgresStep::RemoveTenant { tenant_id }).await.unwrap();
    let found = inventory(&pool).await.unwrap();
    assert_eq!((found.logins.len(), found.rows.len()), (1, 1));
    // A role whose row is gone goes by the same step: that is how a sweep ends it.
    effect.apply(&PostgresStep::DisableLogin { tenant_id: b.hex() }).await.unwrap();
    postgres.execute("DELETE FROM acb.tenant").await;
    assert_eq!(inventory(&pool).await.unwrap().logins, [(b, false)].into());
    effect.apply(&PostgresStep::RemoveTenant { tenant_id: b.hex() }).await.unwrap();
    assert!(inventory(&pool).await.unwrap().logins.is_empty());
}
