//! The migration to places of messages, on rows as an earlier version left them.

use acb_hub_store::migrations::MIGRATIONS;
use acb_testbed::{Postgres, Version};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

/// The schema as it was before, with a row of each kind.
const BEFORE: &str = r#"
    ALTER TABLE acb.mailbox_checkpoint RENAME COLUMN next_position TO next_offset;
    ALTER TABLE acb.mailbox RENAME COLUMN position TO "offset";
    ALTER TABLE acb.delivery RENAME COLUMN position TO "offset";
    ALTER TABLE acb.cursor RENAME COLUMN acknowledged_below TO watermark;
    INSERT INTO acb.mailbox_checkpoint (tenant_id, epoch, partition, next_offset) SELECT tenant_id, 1, 0, 9 FROM acb.tenant;
    INSERT INTO acb.mailbox (tenant_id, address, epoch, partition, "offset", log_time, expires_at)
        SELECT tenant_id, '*', 1, 0, n, now(), now() FROM acb.tenant, unnest('{1,64,4096}'::bigint[]) AS n;
    INSERT INTO acb.delivery (tenant_id, agent_id, epoch, partition, "offset", attempts)
        SELECT tenant_id, '00000000-0000-0000-0000-000000000007', 1, 0, n, 2 FROM acb.tenant, unnest('{1,64}'::bigint[]) AS n;
    INSERT INTO acb.cursor (tenant_id, agent_id, epoch, partition, watermark, exceptions)
        SELECT tenant_id, gen_random_uuid(), 1, 0, 5, '{6,8}' FROM acb.tenant;"#;

#[tokio::test]
async fn rows_of_records_become_rows_of_messages() {
    let postgres = Postgres::start(Version::Installed).await;
    postgres.fresh_tenant("acme").await;
    let mut superuser = postgres.superuser().await;
    superuser.execute(BEFORE).await.unwrap();
    let migration = MIGRATIONS.iter().find(|migration| migration.name == "positions").unwrap();
    let as_owner = format!("BEGIN; SET LOCAL ROLE acb_owner; {}; COMMIT", migration.sql);
    superuser.execute(AssertSqlSafe(as_owner)).await.unwrap();
    let positions = "SELECT (SELECT next_position FROM acb.mailbox_checkpoint), (SELECT acknowledged_below FROM acb.cursor),
                            (SELECT array_agg(position ORDER BY position) FROM acb.mailbox),
                            (SELECT array_agg(position ORDER BY position) FROM acb.delivery),
                            (SELECT exceptions FROM acb.cursor),
                            (SELECT count(*) FROM pg_class WHERE relnamespace = 'acb'::regnamespace AND relkind = 'r'
                                                             AND relrowsecurity AND NOT relforcerowsecurity)";
    let row = superuser.fetch_one(positions).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (9 * 64, 5 * 64));
    assert_eq!(row.get::<Vec<i64>, _>(2), [64, 64 * 64, 4096 * 64], "also where one takes the number of another");
    assert_eq!(row.get::<Vec<i64>, _>(3), [64, 64 * 64]);
    assert_eq!(row.get::<Vec<i64>, _>(4), [6 * 64, 8 * 64]);
    assert_eq!(row.get::<i64, _>(5), 0, "their owner sees no row of theirs any more");
}
