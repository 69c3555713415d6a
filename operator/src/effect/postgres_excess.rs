//! What a tenant's login has and does not need: some of it lets a hub see other tenants' rows.

use acb_hub_pool::Session;

/// What a tenant's login has and does not need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excess {
    /// Such as `BYPASSRLS`.
    pub attributes: Vec<String>,
    /// Roles that it is a member of, also by way of others.
    pub roles: Vec<String>,
}

impl Excess {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.attributes.is_empty() && self.roles.is_empty()
    }

    /// The statements that take it away.
    #[must_use]
    pub fn remedy(&self, login: &str) -> String {
        let mut statements = Vec::new();
        if !self.attributes.is_empty() {
            let without: Vec<String> = self.attributes.iter().map(|attribute| format!("NO{attribute}")).collect();
            statements.push(format!("ALTER ROLE {login} {};", without.join(" ")));
        }
        if !self.roles.is_empty() {
            statements.push(format!("REVOKE {} FROM {login};", self.roles.join(", ")));
        }
        statements.join(" ")
    }
}

/// What a login has beyond what a tenant needs.
pub(super) async fn excess(connection: &mut Session, login: &str) -> Result<Excess, sqlx::Error> {
    let row: Option<(Vec<String>, Vec<String>)> = sqlx::query_as(
        "WITH RECURSIVE login AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = $1),
         held (role) AS (
             SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN login ON m.member = login.oid
             UNION SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN held ON m.member = held.role)
         SELECT array_remove(ARRAY[CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                                   CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
                                   CASE WHEN rolcreatedb THEN 'CREATEDB' END], NULL),
                ARRAY(SELECT role::regrole::text FROM held WHERE role::regrole::text <> 'acb_tenant' ORDER BY 1)
         FROM login",
    )
    .bind(login)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(attributes, roles)| Excess { attributes, roles }).unwrap_or_default())
}
