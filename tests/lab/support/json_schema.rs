//! A check of JSON by a schema, of the keywords that docs/schema/comparison.json uses; others are a mistake here.
use serde_json::Value;

/// Panics where the value does not fit.
pub fn check(schema: &Value, value: &Value) {
    let mut faults = Vec::new();
    faults_of(schema, value, "$", &mut faults);
    assert!(faults.is_empty(), "{faults:#?}\n{value:#}");
}

fn faults_of(schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let fits = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match rule {
                Value::Array(types) => types.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "const" => rule == value,
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_f64() >= rule.as_f64(),
            "maximum" => value.as_f64() <= rule.as_f64(),
            "required" => rule
                .as_array()
                .expect("a list")
                .iter()
                .all(|name| value.get(name.as_str().expect("a name")).is_some()),
            "properties" => {
                for (name, inner) in rule.as_object().expect("properties") {
                    if let Some(found) = value.get(name) {
                        faults_of(inner, found, &format!("{at}.{name}"), faults);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = |name: &str| schema.get("properties").is_some_and(|p| p.get(name).is_some());
                let others = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
                match rule {
                    Value::Bool(allowed) => *allowed || others.count() == 0,
                    rule => {
                        others.for_each(|(name, found)| {
                            faults_of(rule, found, &format!("{at}.{name}"), faults)
                        });
                        true
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    faults_of(rule, item, &format!("{at}[{index}]"), faults);
                }
                true
            }
            other => panic!("{at}: the schema has {other}, which this check does not know"),
        };
        if !fits {
            faults.push(format!("{at}: {keyword} {rule} does not fit {value}"));
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}
