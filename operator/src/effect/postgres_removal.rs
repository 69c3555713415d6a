//! Removes what a tenant has in PostgreSQL, in parts: one statement over everything would keep nothing of its work when it is broken off,
//! and for as long as it ran nobody else could become the leader.

use super::{
    EffectError,
    postgres::{PostgresEffect, tenant_bytes},
};

/// The tables that may be large, those that refer to others first, and how many rows of each go at once: of rows of up to 1 MiB fewer.
const LARGE: [(&str, i64); 6] =
    [("chunk", 100), ("context", 100), ("bus_record", 2_000), ("mailbox", 5_000), ("delivery", 5_000), ("dead_letter", 2_000)];

impl PostgresEffect {
    /// Removes every row of a tenant and its login, which must be barred by now. What was removed stays so where this is broken off.
    pub(super) async fn remove_rows(&self, tenant_id: &str) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        for (table, rows) in LARGE {
            let sql = format!(
                "DELETE FROM acb.{table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM acb.{table} WHERE tenant_id = $1 LIMIT {rows}))"
            );
            let what = format!("removing rows of {table} of tenant {tenant_id}");
            loop {
                let removed = self
                    .within(&what, async |connection| {
                        let query = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).bind(&id);
                        query.execute(connection).await.map(|done| done.rows_affected())
                    })
                    .await?;
                if removed == 0 {
                    break;
                }
            }
        }
        self.within(&format!("removing tenant {tenant_id}"), async |connection| {
            sqlx::query("DELETE FROM acb.tenant WHERE tenant_id = $1").bind(&id).execute(&mut *connection).await?;
            sqlx::query("SELECT acb_provision.drop_login($1, $2)")
                .bind(self.epoch().0)
                .bind(tenant_id)
                .execute(connection)
                .await
                .map(drop)
        })
        .await
    }
}
