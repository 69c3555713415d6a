//! Whether the tenant's login is one that a hub may serve with: it reaches a server that takes writes, and sees its own tenant alone.

use acb_hub_core::fault::{Code, Fault};

use crate::kit::{fault::read_only, store::PgStore};

/// The reason where row-level security does not hold the login.
pub const UNSAFE: &str = "LOGIN_UNSAFE";

// Who may replicate reads the tables' files; who may make roles may join others on PostgreSQL 15. Memberships are followed from the login
// on: a look at each role would cost every hub as much as there are tenants. The last column asks the wall itself, whatever has broken it.
const LOGIN: &str = "
    WITH RECURSIVE login AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = session_user),
    held (role) AS (
        SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN login ON m.member = login.oid
        UNION SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN held ON m.member = held.role)
    SELECT rolname::text, current_setting('transaction_read_only')::boolean,
           array_remove(ARRAY[CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                              CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END], NULL),
           ARRAY(SELECT role::regrole::text FROM held WHERE role::regrole::text <> 'acb_tenant' ORDER BY 1),
           EXISTS (SELECT FROM acb.tenant WHERE tenant_id <> acb.current_tenant())
    FROM login";

impl PgStore {
    /// Whether PostgreSQL answers to the tenant's login and takes writes, and whether row-level security holds the login.
    pub async fn check_login(&self) -> Result<(), Fault> {
        let query = self.timer.start("login");
        let mut session = self.pool().acquire().await.map_err(|error| query.fault(error))?;
        let (login, takes_no_writes, attributes, roles, sees_others): (String, bool, Vec<String>, Vec<String>, bool) =
            sqlx::query_as(LOGIN).fetch_one(&mut session).await.map_err(|error| query.fault(error))?;
        if let Some(why) = unsafe_login(&login, &attributes, &roles, sees_others) {
            return Err(Fault::new(Code::FailedPrecondition, UNSAFE, why));
        }
        if takes_no_writes {
            // Another session may be given a server, or a setting, that takes them.
            session.close();
            return Err(read_only());
        }
        Ok(())
    }
}

/// Why a login would show what is other tenants'.
fn unsafe_login(login: &str, attributes: &[String], roles: &[String], sees_others: bool) -> Option<String> {
    let has = match (attributes, roles) {
        ([], []) if sees_others => {
            "rows of other tenants in sight: the policies of schema acb are not what they should be".to_owned()
        }
        ([], []) => return None,
        ([], roles) => format!("membership in {}: REVOKE {} FROM {login}", roles.join(", "), roles.join(", ")),
        (attributes, _) => {
            let without: Vec<String> = attributes.iter().map(|attribute| format!("NO{attribute}")).collect();
            format!("{}: ALTER ROLE {login} {}", attributes.join(", "), without.join(" "))
        }
    };
    Some(format!("row-level security does not hold the login {login}, and its hub serves nobody. It has {has}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_login_is_named_with_its_remedy() {
        let told = |attributes: &[&str], roles: &[&str], sees| {
            let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
            unsafe_login("acb_t_1", &owned(attributes), &owned(roles), sees).unwrap_or_default()
        };
        assert_eq!(told(&[], &[], false), "");
        assert!(told(&["BYPASSRLS"], &["pg_monitor"], true).ends_with("BYPASSRLS: ALTER ROLE acb_t_1 NOBYPASSRLS"));
        assert!(told(&[], &["acb_operator"], true).ends_with("membership in acb_operator: REVOKE acb_operator FROM acb_t_1"));
        assert!(told(&[], &[], true).contains("rows of other tenants"));
    }
}
