//! Tables of models: what is read, what is refused and how that is said.

use forge_catalog::Catalog;
use forge_catalog::models::ModelPurpose;
use forge_types::Money;
use proptest::prelude::*;

fn table(rows: &str) -> String {
    format!(r#"{{"as_of": "2026-05-01", "source": "a test", "models": [{rows}]}}"#)
}

const ROW: &str = r#"{"provider": "openai", "model": "gpt-x", "input": 1, "output": 2}"#;

fn refused(text: &str) -> String {
    let error = Catalog::parse(text).expect_err(text);
    assert_eq!(error.class(), forge_types::ErrorClass::Invalid);
    error.to_string()
}

#[test]
fn a_table_is_read_and_answers() {
    let rows = format!(
        r#"{ROW}, {{"provider": "gemini", "model": "e-1", "input": 0.5, "output": 0, "purpose": "embedding"}}"#
    );
    let catalog = Catalog::parse(&table(&rows)).unwrap();
    assert_eq!((catalog.as_of.as_str(), catalog.source.as_str()), ("2026-05-01", "a test"));
    let price = catalog.model_facts("openai", "gpt-x-2026").price.unwrap();
    assert_eq!(price.input, Money::from_usd(1e-6).0);
    assert_eq!(catalog.model_facts("openai", "gpt-4o").price, None, "a table replaces the built-in one");
    assert_eq!(catalog.model_facts("custom", "llama3").window, 8_192, "families stay");
    let all: Vec<_> = catalog.list_models().collect();
    assert_eq!(all[1], ("gemini", "e-1", ModelPurpose::Embedding));
}

#[test]
fn the_built_in_table_is_read() {
    assert!(Catalog::builtin().as_of.starts_with("20"));
}

#[test]
fn what_is_wrong_is_named_with_row_and_field() {
    let row = |change: &str| {
        table(&format!("{ROW}, {}", ROW.replace("gpt-x", "gpt-y").replace("\"input\": 1", change)))
    };
    for (text, signs) in [
        (String::new(), vec!["not valid JSON", "line 1"]),
        (table(ROW)[..60].to_owned(), vec!["not valid JSON"]),
        ("[]".to_owned(), vec!["models"]),
        (r#"{"source": "x", "models": []}"#.to_owned(), vec!["as_of"]),
        (r#"{"as_of": "yesterday", "source": "x", "models": []}"#.to_owned(), vec!["as_of", "yesterday"]),
        (r#"{"as_of": "2026-05-01", "models": []}"#.to_owned(), vec!["source"]),
        (r#"{"as_of": "2026-05-01", "source": "x", "models": []}"#.to_owned(), vec!["models", "no rows"]),
        (r#"{"as_of": "2026-05-01", "source": "x", "prices": []}"#.to_owned(), vec!["prices"]),
        (table("7"), vec!["row 1"]),
        (table(&format!("{ROW}, {ROW}")), vec!["row 2", "openai/gpt-x", "row 1"]),
        (table(&ROW.replace("openai", "opnai")), vec!["row 1", "provider", "openai"]),
        (row("\"input\": -1"), vec!["row 2", "openai/gpt-y", "`input`", "negative"]),
        (row("\"input\": \"1\""), vec!["row 2", "`input`", "number"]),
        (row("\"input\": 1000000"), vec!["row 2", "`input`", "implausibly high"]),
        (row("\"in\": 1"), vec!["row 2", "`in`"]),
        (row("\"cached\": 1"), vec!["row 2", "`input`", "missing"]),
        (row("\"input\": 1, \"cached\": 2"), vec!["row 2", "`cached`", "higher"]),
        (row("\"input\": 1, \"cache_write\": -0.1"), vec!["row 2", "`cache_write`", "negative"]),
        (row("\"input\": 1, \"window\": 0"), vec!["row 2", "`window`"]),
        (row("\"input\": 1, \"window\": 1.5"), vec!["row 2", "`window`"]),
        (row("\"input\": 1, \"refuses\": [\"mood\"]"), vec!["row 2", "`refuses`"]),
        (row("\"input\": 1, \"vocabulary\": \"klingon\""), vec!["row 2", "`vocabulary`", "o200k_base"]),
        (row("\"input\": 1, \"purpose\": \"fun\""), vec!["row 2", "`purpose`"]),
    ] {
        let said = refused(&text);
        for sign in signs {
            assert!(said.contains(sign), "{sign} is missing in: {said}");
        }
    }
    // JSON has no such numbers, so a file that holds them is damaged.
    for number in ["NaN", "Infinity", "1e999"] {
        refused(&row(&format!("\"input\": {number}")));
    }
}

proptest! {
    #[test]
    fn no_table_makes_the_reader_panic(text in ".{0,200}", at in 0_usize..400, byte in any::<u8>()) {
        let _ = Catalog::parse(&text);
        let mut damaged = table(&format!("{ROW}, {}", ROW.replace("gpt-x", "gpt-y"))).into_bytes();
        let at = at % damaged.len();
        damaged[at] = byte;
        if let Ok(damaged) = String::from_utf8(damaged)
            && let Ok(catalog) = Catalog::parse(&damaged)
        {
            prop_assert!(catalog.model_facts("openai", "gpt-x").price.is_none_or(|price| price.input >= 0));
        }
    }
}
