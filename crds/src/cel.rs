//! Evaluates the CEL rules (`x-kubernetes-validations`) of a structural schema over a document, as an API server would.

use std::{collections::HashMap, sync::Arc};

use ::cel::{Context, Program, Value as Cel};
use serde_json::Value;

use crate::violation::{Violation, Violations};

/// Words that CEL keeps for itself. Kubernetes writes a field of such a name as `__name__`.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

fn convert(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(convert).collect())),
        Value::Object(fields) => {
            let mut map = HashMap::new();
            // An unset field and a null one are the same to a rule.
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let name = if RESERVED.contains(&name.as_str()) { format!("__{name}__") } else { name.clone() };
                map.insert(name, convert(value));
            }
            map.into()
        }
    }
}

/// A rule, compiled.
struct Rule {
    program: Program,
    message: String,
    transition: bool,
}

/// The rules of a schema, in its shape.
#[derive(Default)]
pub(crate) struct Rules {
    own: Vec<Rule>,
    fields: HashMap<String, Rules>,
    items: Option<Box<Rules>>,
    keys: Vec<String>,
}

impl Rules {
    /// Compiles the rules of a structural schema. Fails where a rule is no CEL.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        let mut rules = Self::default();
        for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
            let source = rule.get("rule").and_then(Value::as_str).unwrap_or_default();
            let message = rule.get("message").and_then(Value::as_str).unwrap_or(source).to_owned();
            let program = Program::compile(source).map_err(|error| format!("{source}: {error}"))?;
            rules.own.push(Rule { program, message, transition: source.contains("oldSelf") });
        }
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let field = Self::compile(field)?;
            if !field.is_empty() {
                rules.fields.insert(name.clone(), field);
            }
        }
        if let Some(items) = schema.get("items") {
            let items = Self::compile(items)?;
            if !items.is_empty() {
                rules.items = Some(Box::new(items));
            }
        }
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        rules.keys = keys.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned)).collect();
        Ok(rules)
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.fields.is_empty() && self.items.is_none()
    }

    /// Evaluates all rules; those over `oldSelf` only where there is an old value.
    pub(crate) fn evaluate(&self, value: &Value, old: Option<&Value>, path: &str, found: &mut Violations) {
        if value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for rule in &self.own {
            if rule.transition && old.is_none() {
                continue;
            }
            let mut context = Context::default();
            context.add_variable_from_value("self", convert(value));
            if let Some(old) = old {
                context.add_variable_from_value("oldSelf", convert(old));
            }
            match rule.program.execute(&context) {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => found.push(Violation::new(path, rule.message.clone())),
                Err(error) => found.push(Violation::new(path, format!("{} ({error})", rule.message))),
            }
        }
        for (name, field) in &self.fields {
            if let Some(value) = value.get(name) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                field.evaluate(value, old.and_then(|old| old.get(name)), &path, found);
            }
        }
        let Some(items) = &self.items else { return };
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if found.is_full() {
                return;
            }
            let old = old.and_then(Value::as_array).and_then(|old| old.iter().find(|old| self.same(old, item)));
            items.evaluate(item, old, &format!("{path}[{index}]"), found);
        }
    }

    /// Only the items of a map list can be told to be the same as before.
    fn same(&self, old: &Value, new: &Value) -> bool {
        !self.keys.is_empty() && self.keys.iter().all(|key| old.get(key) == new.get(key))
    }
}
