//! Checks netkat's JSON objects by the schemas of docs/schema, with the keywords that those use;
//! other keywords are a defect of the harness.
use serde_json::Value;
use std::{collections::HashMap, sync::LazyLock};

macro_rules! schemas {
    ($($name:literal),*) => {
        HashMap::from([$((concat!($name, ".json"), include_str!(concat!("../../../docs/schema/", $name, ".json")))),*])
    };
}

/// The schemas by their files.
static SCHEMAS: LazyLock<HashMap<&str, Value>> = LazyLock::new(|| {
    let texts = schemas!(
        "client",
        "common",
        "comparison",
        "log",
        "matrix",
        "mtu",
        "outcome",
        "packet",
        "ping",
        "port",
        "probe",
        "reachability",
        "run",
        "scan",
        "trace"
    );
    let parsed = |text| serde_json::from_str(text).expect("a schema");
    texts.into_iter().map(|(name, text)| (name, parsed(text))).collect()
});

/// Checks every line that is an object of netkat's. Returns their number. An incomplete line is
/// none.
///
/// # Panics
/// An object does not fit its schema, or names an unknown one.
pub fn check_lines(text: &str) -> usize {
    let lines =
        text.split_inclusive('\n').filter(|line| line.starts_with("{\"schema\":") && line.ends_with('\n'));
    lines
        .map(|line| check(&serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))))
        .count()
}

/// Checks an object by the schema that it names.
fn check(object: &Value) {
    let name = object["schema"].as_str().unwrap_or_default();
    let file = name
        .strip_prefix("netkat.")
        .and_then(|name| name.strip_suffix("/1"))
        .map(|name| format!("{name}.json"));
    let Some((file, schema)) = file.as_deref().and_then(|file| SCHEMAS.get_key_value(file)) else {
        panic!("docs/schema has no {name}: {object:#}")
    };
    let mut faults = Vec::new();
    Place { file, at: "$".to_owned() }.faults_of(schema, object, &mut faults);
    assert!(faults.is_empty(), "{faults:#?}\n{object:#}");
}

/// A place in an object, and the file of the schema that describes it.
struct Place<'a> {
    file: &'a str,
    at: String,
}

impl Place<'_> {
    fn below(&self, step: &str) -> Place<'_> {
        Place { file: self.file, at: format!("{}{step}", self.at) }
    }

    fn faults_of(&self, schema: &Value, value: &Value, faults: &mut Vec<String>) {
        for (keyword, rule) in schema.as_object().expect("a schema") {
            let fits = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => true,
                "$ref" => {
                    let (file, path) =
                        rule.as_str().and_then(|text| text.split_once('#')).expect("a reference");
                    let file = if file.is_empty() { self.file } else { file };
                    let target = SCHEMAS.get(file).and_then(|schema| schema.pointer(path));
                    let target = target.unwrap_or_else(|| panic!("{}: no {rule}", self.at));
                    Place { file, at: self.at.clone() }.faults_of(target, value, faults);
                    true
                }
                "oneOf" => {
                    let fitting = rule.as_array().expect("a list").iter().filter(|choice| {
                        let mut faults = Vec::new();
                        self.faults_of(choice, value, &mut faults);
                        faults.is_empty()
                    });
                    fitting.count() == 1
                }
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|kind| is(kind, value)),
                    kind => is(kind, value),
                },
                "format" => rule == "date-time" && value.as_str().is_some_and(is_time),
                "const" => rule == value,
                "enum" => rule.as_array().expect("a list").contains(value),
                "minimum" => value.is_null() || value.as_f64() >= rule.as_f64(),
                "maximum" => value.is_null() || value.as_f64() <= rule.as_f64(),
                "required" => rule
                    .as_array()
                    .expect("a list")
                    .iter()
                    .all(|name| value.get(name.as_str().expect("a name")).is_some()),
                "properties" => {
                    for (name, inner) in rule.as_object().expect("properties") {
                        if let Some(found) = value.get(name) {
                            self.below(&format!(".{name}")).faults_of(inner, found, faults);
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
                                self.below(&format!(".{name}")).faults_of(rule, found, faults)
                            });
                            true
                        }
                    }
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.below(&format!("[{index}]")).faults_of(rule, item, faults);
                    }
                    true
                }
                other => panic!("{}: the schema has {other}, which this check does not know", self.at),
            };
            if !fits {
                faults.push(format!("{}: {keyword} {rule} does not fit {value}", self.at));
            }
        }
    }
}

/// Returns whether a text is a time of RFC 3339 in UTC, with nanoseconds.
fn is_time(text: &str) -> bool {
    text.len() == "2026-01-31T23:59:59.123456789Z".len() && text.parse::<jiff::Timestamp>().is_ok()
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
