//! No secret gets through in any form, and what is none stays as it was.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

const KEY: &str = "sk-secret+/1234=";

fn cleaned(redactor: &Redactor, text: &str) -> String {
    let mut text = text.to_owned();
    redactor.text(&mut text);
    text
}

#[test]
fn a_secret_never_gets_through_in_any_form() {
    let redactor = Redactor::new(["sk-secret-1234", "with\"quote-99", "short"]);
    assert_eq!(
        cleaned(&redactor, "a sk-secret-1234 b with\\\"quote-99 short"),
        "a ***REDACTED*** b ***REDACTED*** short"
    );
    let redactor = Redactor::new([KEY]);
    let json = serde_json::to_string(&format!("\"{KEY}\"")).unwrap();
    for text in [
        KEY.to_owned(),
        json,
        "sk-secret%2B%2F1234%3D".to_owned(),
        "sk-secret%2b%2f1234%3d".to_owned(),
        STANDARD.encode(KEY),
        URL_SAFE_NO_PAD.encode(KEY),
        "736b2d7365637265742b2f313233343d".to_owned(),
    ] {
        let clean = cleaned(&redactor, &format!("<{text}>"));
        assert!(clean.contains(REDACTED) && !clean.contains("secret"), "{text}: {clean}");
    }
}

#[test]
fn a_secret_in_the_middle_of_base64_is_found() {
    let redactor = Redactor::new([KEY]);
    for before in ["", "u", "us", "use", "user:"] {
        for after in ["", "x", "xy"] {
            let encoded = STANDARD.encode(format!("{before}{KEY}{after}"));
            let clean = cleaned(&redactor, &encoded);
            assert!(clean.contains(REDACTED), "{before}{after}: {clean}");
            let left = clean.replace(REDACTED, "");
            assert!(left.len() <= before.len() * 4 / 3 + after.len() * 4 / 3 + 8, "{clean}");
        }
    }
}

#[test]
fn what_is_learnt_later_is_removed_from_then_on() {
    let redactor = Redactor::new([]);
    assert_eq!(cleaned(&redactor, "token-0123456789"), "token-0123456789");
    redactor.learn(["token-0123456789", "tiny"]);
    assert_eq!(cleaned(&redactor, "token-0123456789 tiny"), "***REDACTED*** tiny");
    assert!(!format!("{redactor:?}").contains("token"));
}

#[test]
fn keys_are_known_by_their_looks() {
    let body = "0123456789abcdefghijABCDEFGHIJ0123456789abcdef";
    for head in [
        "sk-",
        "sk-ant-",
        "sk-proj-",
        "key-",
        "ghp_",
        "ghs_",
        "gho_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "AIza",
    ] {
        let text = format!("a {head}{body}, \"{head}{body}\"");
        assert_eq!(without_keys(&text), "a ***REDACTED***, \"***REDACTED***\"", "{head}");
        assert_eq!(Redactor::default().shown(&text), "a ***REDACTED***, \"***REDACTED***\"");
    }
    assert_eq!(without_keys("AKIAIOSFODNN7EXAMPLE"), REDACTED);
    assert_eq!(without_keys(&format!("eyJhbGciOi.{body}.{body}")), REDACTED);
    for before in ["\\n", "\\t", "\\u001b", "%20", "%3D", "=", "\"", "/"] {
        assert_eq!(without_keys(&format!("{before}sk-{body}")), format!("{before}{REDACTED}"));
    }
    assert_eq!(without_keys(&format!("\x1b[1msk-{body}\x1b[0m")), format!("\x1b[1m{REDACTED}\x1b[0m"));
    for text in [
        "task-0123456789abcdefghijABCDEFGHIJ",
        "key-value-pairs-of-a-very-long-list",
        "sk-learn",
        "ghp_x",
        "AIza",
    ] {
        assert_eq!(without_keys(text), text);
    }
}

#[test]
fn the_journal_keeps_what_only_looks_like_a_key() {
    let text = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    assert_eq!(cleaned(&Redactor::new([KEY]), text), text);
}

#[test]
fn ordinary_text_is_not_held_back() {
    let redactor = Redactor::new([&"long-token.".repeat(200)[..], KEY]);
    let mut hold = HoldBack::default();
    assert_eq!(hold.push(&redactor, "Hello, wor"), "Hello, wor");
    assert_eq!(hold.push(&redactor, "ld! Ask "), "ld! Ask ");
    assert_eq!(hold.push(&redactor, "sk"), "");
    assert_eq!(hold.push(&redactor, "ills,"), "skills,");
    assert_eq!(hold.push(&redactor, " long-tok"), " ");
    assert_eq!(hold.flush(), "long-tok");
}

/// Shows a text in pieces.
fn in_pieces(redactor: &Redactor, whole: &str, cuts: &[usize]) -> String {
    let mut cuts: Vec<_> =
        cuts.iter().copied().filter(|c| *c <= whole.len() && whole.is_char_boundary(*c)).collect();
    cuts.extend([0, whole.len()]);
    cuts.sort_unstable();
    let mut hold = HoldBack::default();
    let mut shown = String::new();
    for pair in cuts.windows(2) {
        shown += &hold.push(redactor, &whole[pair[0]..pair[1]]);
    }
    shown + &hold.flush()
}

proptest! {
    #[test]
    fn pieces_show_the_same_as_the_whole(
        before in "[a-zä ]{0,20}", after in "[a-zä ]{0,20}", cuts in prop::collection::vec(0_usize..60, 0..6)
    ) {
        let redactor = Redactor::new([KEY]);
        let whole = format!("{before}{KEY}{after}");
        prop_assert_eq!(in_pieces(&redactor, &whole, &cuts), format!("{before}{REDACTED}{after}"));
    }

    #[test]
    fn looks_are_found_across_pieces(
        before in "[a-zä ]{0,20}[ \"]", after in "[ ä\"][a-zä ]{0,20}",
        key in "(sk-|sk-ant-|ghp_|glpat-|AIza)[a-zA-Z0-9]{40}", cuts in prop::collection::vec(0_usize..100, 0..8)
    ) {
        let whole = format!("{before}{key}{after}");
        let expected = format!("{before}{REDACTED}{after}");
        prop_assert_eq!(in_pieces(&Redactor::default(), &whole, &cuts), expected);
    }

    #[test]
    fn no_text_makes_it_panic_or_lose_anything(text in "\\PC{0,60}", cuts in prop::collection::vec(0_usize..100, 0..8)) {
        let redactor = Redactor::new([KEY, "ключ-из-многих-букв"]);
        prop_assert_eq!(in_pieces(&redactor, &text, &cuts), redactor.shown(&text));
    }
}
