//! Takes each wall down and sees the attack succeed: so the wall, and nothing else, is what refused it.

use acb_operator::effect::postgres_observe::{LoginState, login_state};
use acb_testbed::{Postgres, TestTenant, Version};

use crate::world::{number, seen_by};

async fn two(version: Version) -> (Postgres, TestTenant, TestTenant) {
    let pg = Postgres::start(version).await;
    let (acme, bravo) = (pg.tenant("acme").await, pg.tenant("bravo").await);
    bravo.agent("spy-me").await;
    (pg, acme, bravo)
}

async fn walls(version: Version) {
    let (pg, acme, bravo) = two(version).await;
    let mut superuser = pg.superuser().await;
    let theirs = format!("SELECT count(*) FROM acb.agent WHERE tenant_id = '\\x{}'", bravo.id_hex());
    assert_eq!(seen_by(&acme, &theirs).await, 0);

    sqlx::raw_sql("ALTER TABLE acb.agent DISABLE ROW LEVEL SECURITY").execute(&mut superuser).await.unwrap();
    assert_eq!(seen_by(&acme, &theirs).await, 1);
    sqlx::raw_sql("ALTER TABLE acb.agent ENABLE ROW LEVEL SECURITY").execute(&mut superuser).await.unwrap();
    assert_eq!(seen_by(&acme, &theirs).await, 0);

    sqlx::raw_sql("ALTER POLICY tenant ON acb.agent USING (tenant_id = decode(current_setting('acb.tenant', true), 'hex'))")
        .execute(&mut superuser)
        .await
        .unwrap();
    let mut liar = acme.connect().await;
    sqlx::query("SELECT set_config('acb.tenant', $1, false)").bind(bravo.id_hex()).execute(&mut liar).await.unwrap();
    assert_eq!(number(&mut liar, &theirs).await, 1);

    let as_bravo = acme.connect_options().username(bravo.username());
    assert_eq!(login_state(&as_bravo).await, LoginState::Refused);
    sqlx::raw_sql(
        "DO $$ BEGIN EXECUTE format('COPY (SELECT ''host all all 127.0.0.1/32 trust'') TO %L', current_setting('hba_file')); END $$;
         SELECT pg_reload_conf()",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while login_state(&as_bravo).await != LoginState::Works {
        assert!(std::time::Instant::now() < deadline, "trust was not taken up");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_wall_matters_on_the_installed_version() {
    walls(Version::Installed).await;
}

#[tokio::test]
async fn each_wall_matters_on_17() {
    walls(Version::V17).await;
}
