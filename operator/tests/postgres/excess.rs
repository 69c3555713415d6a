//! A tenant's login to which somebody gave more than it needs: a hand, or a restore by another tool.

use acb_hub_pool::{Limits, Pool};
use acb_operator::{
    effect::{EffectError, postgres_observe::observe_tenant},
    plan::{PostgresStep, SecretRef},
};
use acb_testbed::{Postgres, Version};

#[tokio::test]
async fn installed() {
    it_is_taken_away_or_named(Version::Installed).await;
}

#[tokio::test]
async fn v17() {
    it_is_taken_away_or_named(Version::V17).await;
}

async fn it_is_taken_away_or_named(version: Version) {
    // A server of its own: others look at all roles.
    let postgres = Postgres::start(version).await;
    let tenant = postgres.tenant("acme").await;
    let pool = Pool::new(postgres.operator_options(), Limits::default());
    let login = tenant.username();
    let is_excessive = async || observe_tenant(&pool, tenant.id_hex()).await.unwrap().login.unwrap().excess;
    let secret = SecretRef { namespace: "acbhub-acme".to_owned(), name: "hub-postgres".to_owned(), generation: 1 };
    let ensure = PostgresStep::EnsureLogin { tenant_id: tenant.id_hex().to_owned(), secret, connection_limit: 12 };
    let effect = postgres.effect();
    assert!(!is_excessive().await);
    effect.apply(&ensure).await.unwrap();
    // What acb_provisioner may take away on 15 and on later versions.
    let is_15 = postgres.server().major() < 16;
    for (given, mended, remedy) in [
        (format!("ALTER ROLE {login} CREATEROLE"), true, format!("ALTER ROLE {login} NOCREATEROLE;")),
        (format!("ALTER ROLE {login} CREATEDB"), is_15, format!("ALTER ROLE {login} NOCREATEDB;")),
        (format!("GRANT acb_operator TO {login}"), is_15, format!("REVOKE acb_operator, acb_owner FROM {login};")),
        (format!("GRANT pg_read_all_data TO {login}"), is_15, format!("REVOKE pg_read_all_data FROM {login};")),
        (format!("ALTER ROLE {login} BYPASSRLS REPLICATION"), false, format!("ALTER ROLE {login} NOBYPASSRLS NOREPLICATION;")),
        (format!("ALTER ROLE {login} SUPERUSER"), false, format!("ALTER ROLE {login} NOSUPERUSER;")),
    ] {
        postgres.execute(&given).await;
        assert!(is_excessive().await, "{given}");
        let outcome = effect.apply(&ensure).await;
        if mended {
            outcome.unwrap_or_else(|error| panic!("{given}: {error}"));
        } else {
            let Err(EffectError::Refused { detail, .. }) = outcome else { panic!("{given}: {outcome:?}") };
            assert!(detail.contains(login) && detail.ends_with(&remedy), "{given}: {detail}");
            postgres.execute(&remedy).await;
        }
        assert!(!is_excessive().await, "{given}");
        effect.apply(&ensure).await.unwrap();
    }
}
