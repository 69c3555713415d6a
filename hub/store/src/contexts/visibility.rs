//! What an agent may see, as a part of a query.

use acb_hub_core::contexts::visibility::Condition;
use sqlx::{Postgres, QueryBuilder};

/// Adds a condition on rows of `acb.context`. Its texts are one of a few, whoever asks: what differs is bound.
pub(crate) fn push(query: &mut QueryBuilder<Postgres>, condition: &Condition) {
    match condition {
        Condition::Always => {
            query.push("true");
        }
        Condition::CreatedBy(agent) => {
            query.push("creator = ").push_bind(agent.0);
        }
        Condition::TypeIn(types) => {
            query.push("type = ANY (").push_bind(types).push(")");
        }
        Condition::HasScope(scope) => {
            query.push("scope = ").push_bind(scope.as_str());
        }
        Condition::NamesGroupOf(groups) => {
            query.push("groups && ").push_bind(groups);
        }
        Condition::NamesAgent(name) => {
            query.push_bind(name).push(" = ANY (agents)");
        }
        Condition::All(conditions) => joined(query, conditions, " AND ", "true"),
        Condition::Any(conditions) => joined(query, conditions, " OR ", "false"),
    }
}

fn joined(query: &mut QueryBuilder<Postgres>, conditions: &[Condition], by: &str, of_none: &str) {
    query.push("(");
    for (index, condition) in conditions.iter().enumerate() {
        if index > 0 {
            query.push(by);
        }
        push(query, condition);
    }
    if conditions.is_empty() {
        query.push(of_none);
    }
    query.push(")");
}

#[cfg(test)]
mod tests {
    use acb_hub_core::{contexts::audience::Scope, directory::agent::AgentId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nothing_that_callers_name_is_in_the_text() {
        let hostile = || "'; DROP TABLE acb.context; --".to_owned();
        let condition = Condition::Any(vec![
            Condition::CreatedBy(AgentId(Uuid::nil())),
            Condition::All(vec![
                Condition::TypeIn(vec![hostile()]),
                Condition::HasScope(Scope::Group),
                Condition::NamesGroupOf(vec![hostile()]),
                Condition::NamesAgent(hostile()),
            ]),
            Condition::All(Vec::new()),
            Condition::Any(Vec::new()),
            Condition::Always,
        ]);
        let mut query = QueryBuilder::new("");
        push(&mut query, &condition);
        assert_eq!(
            query.into_string(),
            "(creator = $1 OR (type = ANY ($2) AND scope = $3 AND groups && $4 AND $5 = ANY (agents)) OR (true) OR (false) OR true)"
        );
    }
}
