//! Sizes, times and `.env` files: what they mean, and that no text breaks them.

use forge_config::dotenv;
use forge_config::quantity::{QuantityError, format_size, parse_size, parse_time};
use forge_testkit::scale;
use proptest::prelude::*;

use crate::support::Place;

#[test]
fn sizes_and_times_mean_what_people_mean() {
    for (text, bytes) in [
        ("2g", 2 << 30),
        ("512m", 512 << 20),
        ("1.5GiB", 3 << 29),
        (" 10 kb ", 10 << 10),
        ("7", 7),
        ("1t", 1 << 40),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for (text, millis) in
        [("500ms", 500), ("90s", 90_000), ("1h30m", 5_400_000), ("2 d", 172_800_000), ("1m 5s", 65_000)]
    {
        assert_eq!(parse_time(text), Ok(millis), "{text}");
    }
    assert_eq!(parse_size("g"), Err(QuantityError::NoNumber));
    assert_eq!(parse_size("99999999999t"), Err(QuantityError::TooLarge));
    assert!(
        parse_size("2 furlongs").unwrap_err().to_string().contains("`furlongs` is not one of k, m, g, t")
    );
    assert!(parse_time("5").is_err(), "a time without a unit says nothing");
    assert!(parse_time("-5s").is_err());
    assert_eq!(parse_time(""), Err(QuantityError::NoNumber));
}

#[test]
fn env_files_are_read_as_written() {
    let text = "\u{feff}# comment\n\nA=1\nexport B = two words # tail\nC='it''s'\n";
    assert_eq!(dotenv::parse(text).unwrap_err()[0].line, 5);
    let text = "A=1\r\nexport B=two words # tail\nC='a # b $X'\nD=\"x\\n\\\"y\\\"\nz\" # c\nE=\nF=a#b\nA=2\n";
    let found: Vec<_> =
        dotenv::parse(text).unwrap().into_iter().map(|found| (found.name, found.value, found.line)).collect();
    let expected = [
        ("B", "two words", 2),
        ("C", "a # b $X", 3),
        ("D", "x\n\"y\"\nz", 4),
        ("E", "", 6),
        ("F", "a#b", 7),
        ("A", "2", 8),
    ];
    assert_eq!(found, expected.map(|(name, value, line)| (name.to_owned(), value.to_owned(), line)));
    let faults = dotenv::parse("1A=x\nB\nC='open\n").unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 2, 3]);
}

proptest! {
    #[test]
    fn no_text_breaks_the_parsers(text in any::<String>()) {
        let _ = parse_size(&text);
        let _ = parse_time(&text);
        let _ = dotenv::parse(&text);
    }

    #[test]
    fn no_quantity_breaks_the_parsers(text in "[0-9. ]{0,25}[a-z]{0,3}[0-9.]{0,22}[a-z]{0,2}") {
        let _ = parse_size(&text);
        let _ = parse_time(&text);
    }

    #[test]
    fn sizes_are_written_so_that_they_read_back(bytes in any::<u64>(), shift in 0_u32..64) {
        for bytes in [bytes, bytes >> shift, (bytes >> shift) << shift] {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn quoted_values_read_back(value in any::<String>()) {
        prop_assume!(!value.contains('\0'));
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let found = dotenv::parse(&format!("X=1\nNAME=\"{quoted}\"\n")).unwrap();
        prop_assert_eq!(&found[1].value, &value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scale::sample_or_all(48, 10_000)))]

    #[test]
    fn no_file_breaks_loading(text in any::<String>(), structured in "([a-z.\"\\[\\]=:{} #|>&*-]{0,12}\n){0,12}") {
        for (name, text) in [("toml", &text), ("yaml", &text), ("toml", &structured), ("yaml", &structured)] {
            let mut place = Place::new();
            place.config_path = Some(place.write(&format!("some.{name}"), text));
            let _ = place.try_load();
        }
    }
}
