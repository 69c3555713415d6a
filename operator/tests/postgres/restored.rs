//! Rows that went back: what was issued before ends, of every tenant.

use acb_operator::bootstrap::end_tokens;
use acb_testbed::{Postgres, Version};

#[tokio::test]
async fn after_a_restore_no_token_of_before_has_the_epoch_of_its_tenant() {
    let postgres = Postgres::start(Version::Installed).await;
    let tenants = [postgres.fresh_tenant("acme").await, postgres.fresh_tenant("globex").await];
    let mut superuser = postgres.superuser().await;
    let mut seen: Vec<(i64, i64)> = Vec::new();
    for round in 0..3 {
        let ended = end_tokens(&postgres.superuser_options()).await.unwrap();
        assert_eq!(ended, 2, "round {round}");
        let rows: Vec<(i64, i64)> = sqlx::query_as("SELECT credential_epoch, generation FROM acb.tenant ORDER BY name")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
        for (index, (epoch, generation)) in rows.iter().enumerate() {
            // Never given before, however old the backup was: that of another restore may be in it, or not.
            assert!(*epoch > 1_700_000_000 && *generation > 1_700_000_000, "{epoch} {generation}");
            if let Some((before, generation_before)) = seen.get(index) {
                assert!(epoch > before && generation > generation_before, "round {round}");
            }
        }
        seen = rows;
    }
    // A tenant's hub sees it, and can't set it back.
    let mut connection = tenants[0].connect().await;
    let told = "SELECT operator, object, change FROM acb.operator_act WHERE operation = 'TokensEnded' ORDER BY sequence DESC";
    let told: Vec<(String, String, String)> = sqlx::query_as(told).fetch_all(&mut connection).await.unwrap();
    let change = format!("all that were issued before; credential epoch {}", seen[0].0);
    assert_eq!((told.len(), told[0].clone()), (3, ("acb bootstrap".to_owned(), format!("tenant {}", tenants[0].name()), change)));
    let epoch: i64 = sqlx::query_scalar("SELECT credential_epoch FROM acb.tenant").fetch_one(&mut connection).await.unwrap();
    assert_eq!(epoch, seen[0].0);
    assert!(sqlx::query("UPDATE acb.tenant SET credential_epoch = 0").execute(&mut connection).await.is_err());
    // What is restored may be of before there were acts.
    postgres.execute("DROP TABLE acb.operator_act_kept, acb.operator_act").await;
    assert_eq!(end_tokens(&postgres.superuser_options()).await.unwrap(), 2);
}
