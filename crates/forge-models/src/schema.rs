//! A small validator of JSON Schema (draft 2020-12, the parts that forms of replies are made of).
//!
//! What it does not know it says before anything is sent, so a reply is never taken for checked when it is not.

use serde_json::{Map, Value};

/// Keywords that say nothing about what is valid.
const SILENT: &[&str] = &[
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
/// Keywords that are checked and hold no schema.
const PLAIN: &[&str] = &[
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
/// Keywords that are checked and hold one schema, a list of schemas, schemas by name.
const ONE: &[&str] = &["items", "additionalProperties", "not"];
const LIST: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems"];
const NAMED: &[&str] = &["properties", "$defs", "definitions"];
/// How deep references may lead without an end.
const DEPTH: usize = 128;

/// Whether every keyword of a schema is one that is checked here.
///
/// # Errors
/// Names the first that is not, and where it stands.
pub(crate) fn supported(schema: &Value) -> Result<(), String> {
    walk(schema, "", schema)
}

fn walk(schema: &Value, at: &str, root: &Value) -> Result<(), String> {
    let object = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(object) => object,
        _ => return Err(format!("`{}` is not a schema but {}", place(at), kind(schema))),
    };
    for (keyword, value) in object {
        let here = format!("{at}/{keyword}");
        let keyword = keyword.as_str();
        if ONE.contains(&keyword) {
            walk(value, &here, root)?;
        } else if LIST.contains(&keyword) {
            let list = value.as_array().ok_or_else(|| format!("`{here}` is not a list of schemas"))?;
            list.iter().try_for_each(|schema| walk(schema, &here, root))?;
        } else if NAMED.contains(&keyword) {
            let named = value.as_object().ok_or_else(|| format!("`{here}` holds no schemas by name"))?;
            named.iter().try_for_each(|(name, schema)| walk(schema, &format!("{here}/{name}"), root))?;
        } else if keyword == "$ref" {
            let target = value.as_str().unwrap_or_default();
            resolve(root, target)
                .ok_or_else(|| format!("`{here}` leads to `{target}`, which is not there"))?;
        } else if !PLAIN.contains(&keyword) && !SILENT.contains(&keyword) {
            return Err(format!("`{here}` can't be checked: the keyword is not known here"));
        }
    }
    Ok(())
}

/// Whether a value fits a schema.
///
/// # Errors
/// Says the first thing that does not fit, and where, in words for people and models.
pub(crate) fn check(schema: &Value, value: &Value) -> Result<(), String> {
    Check { root: schema }.value(schema, value, "", DEPTH)
}

struct Check<'a> {
    root: &'a Value,
}

impl Check<'_> {
    fn value(&self, schema: &Value, value: &Value, at: &str, depth: usize) -> Result<(), String> {
        let object = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Object(object) => object,
            _ => return Err(format!("{} may not be there", place(at))),
        };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("{}: the schema's references have no end", place(at)));
        };
        if let Some(target) = object.get("$ref").and_then(Value::as_str) {
            let target = resolve(self.root, target).unwrap_or(&Value::Bool(true));
            self.value(target, value, at, depth)?;
        }
        simple(object, value, at)?;
        match value {
            Value::Number(number) => numbers(object, number.as_f64().unwrap_or(f64::NAN), at)?,
            Value::String(text) => {
                count(object, text.chars().count(), ["minLength", "maxLength"], "characters", at)?;
            }
            Value::Array(items) => self.items(object, items, at, depth)?,
            Value::Object(fields) => self.fields(object, fields, at, depth)?,
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(object, value, at, depth)
    }

    fn items(
        &self,
        schema: &Map<String, Value>,
        items: &[Value],
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        count(schema, items.len(), ["minItems", "maxItems"], "items", at)?;
        if schema.get("uniqueItems") == Some(&Value::Bool(true))
            && items.iter().enumerate().any(|(index, item)| items[..index].contains(item))
        {
            return Err(format!("{} holds an item twice", place(at)));
        }
        let first: &[Value] = schema.get("prefixItems").and_then(Value::as_array).map_or(&[], Vec::as_slice);
        let rest = schema.get("items");
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(index).or(rest) {
                self.value(schema, item, &format!("{at}/{index}"), depth)?;
            }
        }
        Ok(())
    }

    fn fields(
        &self,
        schema: &Map<String, Value>,
        fields: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        count(schema, fields.len(), ["minProperties", "maxProperties"], "members", at)?;
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !name.as_str().is_some_and(|name| fields.contains_key(name)) {
                return Err(format!("{} lacks the member {name}", place(at)));
            }
        }
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, value) in fields {
            let here = format!("{at}/{name}");
            let own = known.and_then(|known| known.get(name));
            match own.or_else(|| schema.get("additionalProperties")) {
                Some(Value::Bool(false)) => {
                    return Err(format!("{} has a member `{name}`, which may not be there", place(at)));
                }
                Some(schema) => self.value(schema, value, &here, depth)?,
                None => {}
            }
        }
        Ok(())
    }

    fn combined(
        &self,
        schema: &Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<(), String> {
        let list = |name: &str| schema.get(name).and_then(Value::as_array);
        let fits = |schema: &Value| self.value(schema, value, at, depth);
        for schema in list("allOf").into_iter().flatten() {
            fits(schema)?;
        }
        if let Some(choices) = list("anyOf") {
            let faults: Vec<_> = choices.iter().map_while(|schema| fits(schema).err()).collect();
            if faults.len() == choices.len() {
                let last = faults.last().map_or("", String::as_str);
                return Err(format!("{} fits none of its {} forms: {last}", place(at), choices.len()));
            }
        }
        if let Some(choices) = list("oneOf") {
            let fitting = choices.iter().filter(|schema| fits(schema).is_ok()).count();
            if fitting != 1 {
                let all = choices.len();
                return Err(format!("{} must fit one of its {all} forms and fits {fitting}", place(at)));
            }
        }
        if schema.get("not").is_some_and(|schema| fits(schema).is_ok()) {
            return Err(format!("{} has a form that is excluded", place(at)));
        }
        Ok(())
    }
}

/// `type`, `enum`, `const`.
fn simple(schema: &Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
    let is = |name: &str| match name {
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        other => other == kind(value),
    };
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name)) {
        return Err(format!("{} must be of type {} and is {}", place(at), types.join(" or "), kind(value)));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        return Err(format!("{} must be one of {} and is {}", place(at), allowed.join(", "), short(value)));
    }
    match schema.get("const") {
        Some(only) if only != value => Err(format!("{} must be {only} and is {}", place(at), short(value))),
        _ => Ok(()),
    }
}

fn numbers(schema: &Map<String, Value>, number: f64, at: &str) -> Result<(), String> {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    let wrong = |what: String| Err(format!("{} is {number} and must be {what}", place(at)));
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

fn count(
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
        return Err(format!("{} has {found} {of} and must have {range}", place(at)));
    }
    Ok(())
}

/// What a reference within the same schema leads to (RFC 6901).
fn resolve<'a>(root: &'a Value, target: &str) -> Option<&'a Value> {
    let pointer = target.strip_prefix('#')?;
    root.pointer(pointer)
}

fn place(at: &str) -> String {
    if at.is_empty() { "the value".to_owned() } else { format!("`{at}`") }
}

/// A value for a message, cut where it is long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

const fn kind(value: &Value) -> &'static str {
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
        supported(schema).unwrap();
        for value in good {
            check(schema, value).unwrap();
        }
        for value in bad {
            assert!(check(schema, value).is_err(), "{value} fits {schema}");
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
        assert!(check(&endless, &json!(1)).unwrap_err().contains("no end"));
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
            let said = supported(&schema).unwrap_err();
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
            let _ = supported(&schema);
            let _ = check(&schema, &value);
        }
    }
}
