//! The JSON Schemas: every file that ships obeys its own, and slips do not.

use hwsim::embedded::{PROFILES, WORKLOADS};
use serde_json::{Value, json};

/// Checks a value against the part of JSON Schema (2020-12) that the generator uses. An unknown keyword panics, so that
/// nothing passes for want of a check. Gives the first complaint.
fn check(schema: &Value, root: &Value, value: &Value, at: &str) -> Result<(), String> {
    let object = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Bool(false) => return Err(format!("{at}: nothing is allowed")),
        Value::Object(object) => object,
        _ => panic!("{at}: no schema"),
    };
    let all = |list: &Value| list.as_array().unwrap().clone();
    for (keyword, rule) in object {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "format" | "$defs" | "examples" => {}
            "$ref" => {
                let path = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(root.pointer(path).unwrap(), root, value, at)?;
            }
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    "null" => value.is_null(),
                    other => panic!("{other}"),
                };
                let fits = if rule.is_array() { all(rule).iter().any(is) } else { is(rule) };
                if !fits {
                    return Err(format!("{at}: {value} is no {rule}"));
                }
            }
            "enum" if !all(rule).contains(value) => return Err(format!("{at}: {value} is not one of {rule}")),
            "const" if rule != value => return Err(format!("{at}: {value} is not {rule}")),
            "enum" | "const" => {}
            "minimum" if value.as_f64().is_some_and(|v| v < rule.as_f64().unwrap()) => {
                return Err(format!("{at}: {value} is less than {rule}"));
            }
            "maximum" if value.as_f64().is_some_and(|v| v > rule.as_f64().unwrap()) => {
                return Err(format!("{at}: {value} is more than {rule}"));
            }
            "minimum" | "maximum" => {}
            // Quantities and indexed names: what the two patterns demand, without an engine for them.
            "pattern" => {
                let (text, rule) = (value.as_str().unwrap_or(""), rule.as_str().unwrap());
                let fits = if rule.contains("{i\\}") {
                    text.contains("{i}")
                } else {
                    let unit = rule.trim_end_matches("\\s*$").rsplit('*').next().unwrap();
                    text.trim().starts_with(|c: char| c.is_ascii_digit()) && text.trim().ends_with(unit)
                };
                if !fits {
                    return Err(format!("{at}: `{text}` does not match {rule}"));
                }
            }
            "properties" | "additionalProperties" | "patternProperties" => {}
            "required" => {
                for name in all(rule) {
                    if value.get(name.as_str().unwrap()).is_none() {
                        return Err(format!("{at}: {name} is missing"));
                    }
                }
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, root, item, &format!("{at}[{i}]"))?;
                }
            }
            "anyOf" | "oneOf" => {
                let rules = all(rule);
                let wrong: Vec<String> = rules.iter().filter_map(|r| check(r, root, value, at).err()).collect();
                let right = rules.len() - wrong.len();
                if right == 0 || keyword == "oneOf" && right > 1 {
                    return Err(format!("{at}: {right} alternatives hold ({})", wrong.join("; ")));
                }
            }
            "allOf" => all(rule).iter().try_for_each(|r| check(r, root, value, at))?,
            other => panic!("{at}: the keyword `{other}` is not checked"),
        }
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    let known = object.get("properties").and_then(Value::as_object);
    for (name, field) in fields {
        let at = format!("{at}.{name}");
        match (known.and_then(|k| k.get(name)), object.get("additionalProperties")) {
            (Some(rule), _) => check(rule, root, field, &at)?,
            (None, Some(rule)) => check(rule, root, field, &at)?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn obeys(schema: &Value, text: &str) -> Result<(), String> {
    let value: toml::Value = toml::from_str(text).map_err(|e| e.to_string())?;
    check(schema, schema, &serde_json::to_value(value).unwrap(), "")
}

#[test]
fn every_profile_obeys_its_schema() {
    let schema = hwsim::profile::schema();
    for (stem, text) in PROFILES.iter().filter(|(stem, _)| !stem.ends_with(".calib")) {
        obeys(&schema, text).unwrap_or_else(|e| panic!("{stem}{e}"));
    }
}

#[test]
fn every_workload_obeys_its_schema() {
    let schema = hwsim::workload::toml::schema();
    for (stem, text) in WORKLOADS {
        obeys(&schema, text).unwrap_or_else(|e| panic!("{stem}{e}"));
    }
}

#[test]
fn slips_do_not() {
    let schema = hwsim::profile::schema();
    let (_, text) = PROFILES.iter().find(|(stem, _)| *stem == "a100").unwrap();
    let bandwidth = text.lines().find(|l| l.starts_with("bandwidth")).unwrap();
    for (slip, complaint) in [
        (text.replace("[memory]", "[memory]\nbandwith = \"1 GB/s\""), "bandwith"),
        (text.replace(bandwidth, "bandwidth = 2039"), "string"),
        (text.replace(bandwidth, ""), "missing"),
        (text.replace(bandwidth, "bandwidth = \"2039 GHz\""), "match"),
    ] {
        let said = obeys(&schema, &slip).unwrap_err();
        assert!(said.contains(complaint), "{said}");
    }
    let schema = hwsim::workload::toml::schema();
    let slip = "name = \"x\"\ninput = [1, 8]\n[[layer]]\nname = \"fc\"\nop.linear = { outputs = 10 }\n";
    assert!(obeys(&schema, slip).is_err());
    assert!(obeys(&schema, &slip.replace("outputs", "out")).is_ok());
    assert_eq!(
        check(&json!({ "type": "integer" }), &json!({}), &json!(1.5), ""),
        Err(": 1.5 is no \"integer\"".into())
    );
}
