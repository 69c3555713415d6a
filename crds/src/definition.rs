//! The CustomResourceDefinitions, as an API server gets them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::core::CustomResourceExt;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// The definition of a kind.
#[must_use]
pub(crate) fn of<K: CustomResourceExt + JsonSchema>() -> CustomResourceDefinition {
    finished(K::crd(), &raw::<K>())
}

/// The schema of a type, before it is made structural.
fn raw<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn finished(mut definition: CustomResourceDefinition, raw: &Value) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            finish(schema, raw);
        }
    }
    definition
}

/// What the rewriting to a structural schema does otherwise than people and API servers expect.
///
/// A field says what it is for itself: where its type is an enum, the words of the type take the place of the field's own. And no value is
/// `nullable`: that an optional field is left out is said by `required` alone. Where null were a value of its own, an apply and a rule
/// would tell it from an absent field. Objects are: an API server makes null of one that a server-side apply empties, and would refuse that.
fn finish(schema: &mut JSONSchemaProps, raw: &Value) {
    if schema.type_.as_deref() != Some("object") {
        schema.nullable = None;
    }
    // The rewriting takes the types out of its choices: anything would be a quantity.
    if schema.x_kubernetes_int_or_string == Some(true) {
        let of = |kind: &str| JSONSchemaProps { type_: Some(kind.to_owned()), ..JSONSchemaProps::default() };
        schema.any_of = Some(vec![of("integer"), of("string")]);
    }
    let raw = past_null(raw);
    for (name, field) in schema.properties.iter_mut().flatten() {
        let Some(raw) = raw.pointer("/properties").and_then(|properties| properties.get(name)) else { continue };
        if let Some(own) = raw.get("description").and_then(Value::as_str) {
            field.description = Some(own.to_owned());
        }
        finish(field, raw);
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(items)), Some(raw)) = (&mut schema.items, raw.get("items")) {
        finish(items, raw);
    }
    if let (Some(JSONSchemaPropsOrBool::Schema(values)), Some(raw)) =
        (&mut schema.additional_properties, raw.get("additionalProperties"))
    {
        finish(values, raw);
    }
}

/// What an optional field's schema is beside null.
fn past_null(raw: &Value) -> &Value {
    let choices = raw.get("anyOf").and_then(Value::as_array);
    let is_null = |choice: &&Value| {
        choice.get("enum").is_some_and(|values| values == &serde_json::json!([null])) || choice["type"] == "null"
    };
    match choices.map(|choices| choices.iter().find(|choice| !is_null(choice))) {
        Some(Some(choice)) => choice,
        _ => raw,
    }
}
