//! A context, as it is shown.

use acb_sdk::{Context, system_time, v1};
use serde_json::{Value, json};

use super::super::payload;

pub(super) fn named(id: &str) -> String {
    format!("context {id:?}")
}

/// As `--scope` takes it.
pub(super) fn scope(context: &Context) -> String {
    let access = context.access.clone().unwrap_or_default();
    match v1::Scope::try_from(access.scope) {
        Ok(v1::Scope::Private) => "private".to_owned(),
        Ok(v1::Scope::Group) => format!("group:{}", access.groups.join(",")),
        Ok(v1::Scope::Shared) => format!("shared:{}", access.agents.join(",")),
        _ => "public".to_owned(),
    }
}

pub(super) fn updated(context: &Context) -> String {
    system_time(context.updated_at).map(payload::time).unwrap_or_default()
}

/// A context as JSON, without its payload.
pub(super) fn view(context: &Context) -> Value {
    let scope = context.access.as_ref().map(|access| access.scope().as_str_name().trim_start_matches("SCOPE_").to_lowercase());
    let access = context.access.clone().unwrap_or_default();
    json!({
        "scope": scope, "groups": access.groups, "agents": access.agents,
        "id": context.id, "type": context.r#type, "creator": context.creator, "version": context.version, "size": context.size,
        "contentType": context.content_type, "metadata": context.metadata, "sha256": hex::encode(&context.checksum),
        "createdAt": system_time(context.created_at).map(payload::time),
        "updatedAt": system_time(context.updated_at).map(payload::time),
        "expiresAt": system_time(context.expires_at).map(payload::time),
    })
}
