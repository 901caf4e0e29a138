//! A small validator of JSON Schema (draft 2020-12, the parts that reply schemas use).
//!
//! Unsupported keywords are reported before anything is sent, so a reply never counts as validated when it is not.

use serde_json::{Map, Value};

/// Keywords that have no effect on validity.
const ANNOTATION_KEYWORDS: &[&str] = &[
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "$anchor",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
];
/// Supported keywords without subschemas.
const ASSERTION_KEYWORDS: &[&str] = &[
    "type",
    "enum",
    "const",
    "required",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "$ref",
];
/// Supported keywords with one schema, a list of schemas, or schemas by name.
const SUBSCHEMA_KEYWORDS: &[&str] = &["items", "additionalProperties", "not"];
const SUBSCHEMA_LIST_KEYWORDS: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems"];
const SUBSCHEMA_MAP_KEYWORDS: &[&str] = &["properties", "$defs", "definitions"];
/// Largest depth of nested references.
const MAX_REF_DEPTH: usize = 128;

/// Checks that every keyword of a schema is supported.
///
/// # Errors
/// The name and position of the first unsupported keyword.
pub(crate) fn check_supported(schema: &Value) -> Result<(), String> {
    check_keywords(schema, "", schema)
}

fn check_keywords(schema: &Value, at: &str, root: &Value) -> Result<(), String> {
    let object = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(object) => object,
        _ => return Err(format!("`{}` is not a schema but {}", describe_location(at), type_name(schema))),
    };
    for (keyword, value) in object {
        let here = format!("{at}/{keyword}");
        let keyword = keyword.as_str();
        if SUBSCHEMA_KEYWORDS.contains(&keyword) {
            check_keywords(value, &here, root)?;
        } else if SUBSCHEMA_LIST_KEYWORDS.contains(&keyword) {
            let list = value.as_array().ok_or_else(|| format!("`{here}` is not a list of schemas"))?;
            list.iter().try_for_each(|schema| check_keywords(schema, &here, root))?;
        } else if SUBSCHEMA_MAP_KEYWORDS.contains(&keyword) {
            let named = value.as_object().ok_or_else(|| format!("`{here}` is not an object of schemas"))?;
            named
                .iter()
                .try_for_each(|(name, schema)| check_keywords(schema, &format!("{here}/{name}"), root))?;
        } else if keyword == "$ref" {
            let target = value.as_str().unwrap_or_default();
            resolve_ref(root, target)
                .ok_or_else(|| format!("`{here}` refers to `{target}`, which does not exist"))?;
        } else if !ASSERTION_KEYWORDS.contains(&keyword) && !ANNOTATION_KEYWORDS.contains(&keyword) {
            return Err(format!("`{here}` is an unsupported keyword"));
        }
    }
    Ok(())
}

/// Validates a value against a schema.
///
/// # Errors
/// The first mismatch and its position, in words for people and models.
pub(crate) fn validate_value(schema: &Value, value: &Value) -> Result<(), String> {
    SchemaValidator { root: schema }.check_value(schema, value, "", MAX_REF_DEPTH)
}

struct SchemaValidator<'a> {
    root: &'a Value,
}

impl SchemaValidator<'_> {
    fn check_value(&self, schema: &Value, value: &Value, at: &str, depth: usize) -> Result<(), String> {
        let object = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Object(object) => object,
            _ => return Err(format!("{} is not allowed", describe_location(at))),
        };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("{}: the schema's references are circular", describe_location(at)));
        };
        if let Some(target) = object.get("$ref").and_then(Value::as_str) {
            let target = resolve_ref(self.root, target).unwrap_or(&Value::Bool(true));
            self.check_value(target, value, at, depth)?;
        }
        check_type_and_enum(object, value, at)?;
        match value {
            Value::Number(number) => check_number(object, number.as_f64().unwrap_or(f64::NAN), at)?,
            Value::String(text) => {
                check_count(object, text.chars().count(), ["minLength", "maxLength"], "characters", at)?;
            }
            Value::Array(items) => self.check_items(object, items, at, depth)?,
            Value::Object(fields) => self.check_fields(object, fields, at, depth)?,
            Value::Null | Value::Bool(_) => {}
        }
        self.check_combinators(object, value, at, depth)
    }

    fn check_items(
        &self,
        schema: &Map<String, Value>,
        items: &[Value],
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        check_count(schema, items.len(), ["minItems", "maxItems"], "items", at)?;
        if schema.get("uniqueItems") == Some(&Value::Bool(true))
            && items.iter().enumerate().any(|(index, item)| items[..index].contains(item))
        {
            return Err(format!("{} contains a duplicate item", describe_location(at)));
        }
        let first: &[Value] = schema.get("prefixItems").and_then(Value::as_array).map_or(&[], Vec::as_slice);
        let rest = schema.get("items");
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(index).or(rest) {
                self.check_value(schema, item, &format!("{at}/{index}"), depth)?;
            }
        }
        Ok(())
    }

    fn check_fields(
        &self,
        schema: &Map<String, Value>,
        fields: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        check_count(schema, fields.len(), ["minProperties", "maxProperties"], "members", at)?;
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !name.as_str().is_some_and(|name| fields.contains_key(name)) {
                return Err(format!("{} lacks the member {name}", describe_location(at)));
            }
        }
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, value) in fields {
            let here = format!("{at}/{name}");
            let own = known.and_then(|known| known.get(name));
            match own.or_else(|| schema.get("additionalProperties")) {
                Some(Value::Bool(false)) => {
                    return Err(format!(
                        "{} has a member `{name}`, which is not allowed",
                        describe_location(at)
                    ));
                }
                Some(schema) => self.check_value(schema, value, &here, depth)?,
                None => {}
            }
        }
        Ok(())
    }

    fn check_combinators(
        &self,
        schema: &Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        let list = |name: &str| schema.get(name).and_then(Value::as_array);
        let fits = |schema: &Value| self.check_value(schema, value, at, depth);
        for schema in list("allOf").into_iter().flatten() {
            fits(schema)?;
        }
        if let Some(choices) = list("anyOf") {
            let faults: Vec<_> = choices.iter().map_while(|schema| fits(schema).err()).collect();
            if faults.len() == choices.len() {
                let last = faults.last().map_or("", String::as_str);
                return Err(format!(
                    "{} matches none of its {} alternatives: {last}",
                    describe_location(at),
                    choices.len()
                ));
            }
        }
        if let Some(choices) = list("oneOf") {
            let fitting = choices.iter().filter(|schema| fits(schema).is_ok()).count();
            if fitting != 1 {
                let all = choices.len();
                return Err(format!(
                    "{} must match exactly one of its {all} alternatives, but matches {fitting}",
                    describe_location(at)
                ));
            }
        }
        if schema.get("not").is_some_and(|schema| fits(schema).is_ok()) {
            return Err(format!("{} matches an excluded schema", describe_location(at)));
        }
        Ok(())
    }
}

/// Checks `type`, `enum` and `const`.
fn check_type_and_enum(schema: &Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
    let is = |name: &str| match name {
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        other => other == type_name(value),
    };
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name)) {
        return Err(format!(
            "{} must be of type {}, not {}",
            describe_location(at),
            types.join(" or "),
            type_name(value)
        ));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        return Err(format!(
            "{} must be one of {}, not {}",
            describe_location(at),
            allowed.join(", "),
            shorten_value(value)
        ));
    }
    match schema.get("const") {
        Some(only) if only != value => {
            Err(format!("{} must be {only}, not {}", describe_location(at), shorten_value(value)))
        }
        _ => Ok(()),
    }
}

fn check_number(schema: &Map<String, Value>, number: f64, at: &str) -> Result<(), String> {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    let wrong = |what: String| Err(format!("{} is {number}, but must be {what}", describe_location(at)));
    match (limit("minimum"), limit("maximum"), limit("exclusiveMinimum"), limit("exclusiveMaximum")) {
        (Some(least), ..) if number < least => return wrong(format!("at least {least}")),
        (_, Some(most), ..) if number > most => return wrong(format!("at most {most}")),
        (_, _, Some(below), _) if number <= below => return wrong(format!("above {below}")),
        (.., Some(above)) if number >= above => return wrong(format!("below {above}")),
        _ => {}
    }
    match limit("multipleOf") {
        Some(step) if step > 0.0 && ((number / step).round() * step - number).abs() > 1e-9 => {
            wrong(format!("a multiple of {step}"))
        }
        _ => Ok(()),
    }
}

fn check_count(
    schema: &Map<String, Value>,
    found: usize,
    [least, most]: [&str; 2],
    of: &str,
    at: &str,
) -> Result<(), String> {
    let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
    let found = found as u64;
    if limit(least).is_some_and(|least| found < least) || limit(most).is_some_and(|most| found > most) {
        let least = limit(least).unwrap_or(0);
        let range = limit(most).map_or(format!("{least} or more"), |most| format!("{least} to {most}"));
        return Err(format!("{} has {found} {of}, but must have {range}", describe_location(at)));
    }
    Ok(())
}

/// Resolves a reference within the same schema (RFC 6901).
fn resolve_ref<'a>(root: &'a Value, target: &str) -> Option<&'a Value> {
    let pointer = target.strip_prefix('#')?;
    root.pointer(pointer)
}

fn describe_location(at: &str) -> String {
    if at.is_empty() { "the value".to_owned() } else { format!("`{at}`") }
}

/// Formats a value for a message and shortens it if it is long.
fn shorten_value(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn fits(schema: &Value, good: &[Value], bad: &[Value]) {
        check_supported(schema).unwrap();
        for value in good {
            validate_value(schema, value).unwrap();
        }
        for value in bad {
            assert!(validate_value(schema, value).is_err(), "{value} fits {schema}");
        }
    }

    #[test]
    fn keywords_mean_what_the_standard_says() {
        fits(
            &json!({"type": "integer"}),
            &[json!(1), json!(-3), json!(2.0)],
            &[json!(1.5), json!("1"), json!(null)],
        );
        fits(&json!({"type": ["string", "null"]}), &[json!("x"), json!(null)], &[json!(1)]);
        fits(&json!({"enum": ["a", 1, null]}), &[json!("a"), json!(1), json!(null)], &[json!("b")]);
        fits(&json!({"const": {"a": 1}}), &[json!({"a": 1})], &[json!({"a": 2})]);
        fits(
            &json!({"minimum": 1, "exclusiveMaximum": 3}),
            &[json!(1), json!(2.9), json!("x")],
            &[json!(0), json!(3)],
        );
        fits(&json!({"multipleOf": 0.1}), &[json!(0.3), json!(2)], &[json!(0.35)]);
        fits(
            &json!({"minLength": 2, "maxLength": 3}),
            &[json!("üü"), json!("abc")],
            &[json!("a"), json!("abcd")],
        );
        fits(
            &json!({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}, "uniqueItems": true}),
            &[json!([]), json!(["a"]), json!(["a", 1, 2])],
            &[json!([1]), json!(["a", "b"]), json!(["a", 1, 1])],
        );
        fits(
            &json!({"type": "object", "properties": {"a": true}, "required": ["a"], "additionalProperties": {"type": "integer"}}),
            &[json!({"a": "any"}), json!({"a": 1, "b": 2})],
            &[json!({}), json!({"a": 1, "b": "x"})],
        );
        fits(
            &json!({"anyOf": [{"type": "string"}, {"minimum": 5, "type": "number"}]}),
            &[json!("a"), json!(5)],
            &[json!(4)],
        );
        fits(&json!({"oneOf": [{"type": "integer"}, {"minimum": 5}]}), &[json!(4), json!(5.5)], &[json!(6)]);
        fits(&json!({"not": {"type": "string"}}), &[json!(1)], &[json!("a")]);
        fits(&json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), &[json!(1.5)], &[json!(3)]);
    }

    #[test]
    fn references_lead_within_the_schema() {
        let tree = json!({
            "$ref": "#/$defs/node",
            "$defs": {"node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["next"],
            }},
        });
        fits(&tree, &[json!({"next": {"next": null}})], &[json!({"next": {"next": 1}}), json!({})]);
        let endless = json!({"$ref": "#"});
        assert!(validate_value(&endless, &json!(1)).unwrap_err().contains("circular"));
    }

    #[test]
    fn what_is_not_known_is_said() {
        for (schema, place) in [
            (json!({"pattern": "a"}), "/pattern"),
            (json!({"properties": {"x": {"if": {}}}}), "/properties/x/if"),
            (json!({"anyOf": [7]}), "/anyOf"),
            (json!({"properties": []}), "/properties"),
            (json!({"$ref": "http://elsewhere"}), "elsewhere"),
            (json!("string"), "the value"),
        ] {
            let said = check_supported(&schema).unwrap_err();
            assert!(said.contains(place), "{said}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "(type|object|items|#/\\$defs/a|[a-z]{0,4})".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name =
                "(type|enum|const|items|anyOf|properties|required|\\$ref|\\$defs|not|minimum|maxItems|a)";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(name, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_schema_and_no_value_make_it_panic(schema in any_json(), value in any_json()) {
            let _ = check_supported(&schema);
            let _ = validate_value(&schema, &value);
        }
    }
}
