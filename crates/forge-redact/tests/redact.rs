//! No secret gets through in any form, and what is none stays as it was.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use forge_redact::{REDACTED, Redactor, StreamRedactor, redact_keys};
use proptest::prelude::*;

const KEY: &str = "sk-secret+/1234=";

fn cleaned(redactor: &Redactor, text: &str) -> String {
    let mut text = text.to_owned();
    redactor.redact_in_place(&mut text);
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
    redactor.add_secrets(["token-0123456789", "tiny"]);
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
        assert_eq!(redact_keys(&text), "a ***REDACTED***, \"***REDACTED***\"", "{head}");
        assert_eq!(Redactor::default().redact_for_display(&text), "a ***REDACTED***, \"***REDACTED***\"");
    }
    assert_eq!(redact_keys("AKIAIOSFODNN7EXAMPLE"), REDACTED);
    assert_eq!(redact_keys(&format!("eyJhbGciOi.{body}.{body}")), REDACTED);
    for before in ["\\n", "\\t", "\\u001b", "%20", "%3D", "=", "\"", "/"] {
        assert_eq!(redact_keys(&format!("{before}sk-{body}")), format!("{before}{REDACTED}"));
    }
    assert_eq!(redact_keys(&format!("\x1b[1msk-{body}\x1b[0m")), format!("\x1b[1m{REDACTED}\x1b[0m"));
    for text in [
        "task-0123456789abcdefghijABCDEFGHIJ",
        "key-value-pairs-of-a-very-long-list",
        "sk-learn",
        "ghp_x",
        "AIza",
    ] {
        assert_eq!(redact_keys(text), text);
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
    let mut hold = StreamRedactor::default();
    assert_eq!(hold.push(&redactor, "Hello, wor"), "Hello, wor");
    assert_eq!(hold.push(&redactor, "ld! Ask "), "ld! Ask ");
    assert_eq!(hold.push(&redactor, "sk"), "");
    assert_eq!(hold.push(&redactor, "ills,"), "skills,");
    assert_eq!(hold.push(&redactor, " long-tok"), " ");
    assert_eq!(hold.flush(&redactor), "long-tok");
}

/// Shows a text in pieces.
fn in_pieces(redactor: &Redactor, whole: &str, cuts: &[usize]) -> String {
    let mut cuts: Vec<_> =
        cuts.iter().copied().filter(|c| *c <= whole.len() && whole.is_char_boundary(*c)).collect();
    cuts.extend([0, whole.len()]);
    cuts.sort_unstable();
    let mut hold = StreamRedactor::default();
    let mut shown = String::new();
    for pair in cuts.windows(2) {
        shown += &hold.push(redactor, &whole[pair[0]..pair[1]]);
    }
    shown + &hold.flush(redactor)
}

#[test]
fn base64_is_found_with_the_prefixes_of_a_search() {
    let key = "qz7AdvKeyTest9aB3xYw0LmNoP5tUvRsE8fGhJkL";
    let redactor = Redactor::new([key]);
    let encoded = STANDARD.encode(format!("line one {key} and more"));
    for prefix in ["", "@", "f:@:", "src/x.txt:@:", "f.txt-@-", "a b/f:@:", "- @:"] {
        for width in [12, 20, 36] {
            let lines = encoded.as_bytes().chunks(width).zip(1..);
            let text: String = lines
                .map(|(part, n)| {
                    let prefix = prefix.replace('@', &n.to_string());
                    let colon = if prefix.is_empty() || prefix.ends_with([':', '-']) { "" } else { ":" };
                    format!("{prefix}{colon}{}\n", std::str::from_utf8(part).unwrap())
                })
                .collect();
            let clean = cleaned(&redactor, &text);
            assert!(clean.contains(REDACTED), "{prefix} {width}: {text}");
            assert_eq!(in_pieces(&redactor, &text, &[text.len() / 2]), clean, "{prefix} {width}");
        }
    }
}

#[test]
fn a_dump_that_ends_inside_an_escape_is_read_when_its_line_has_ended() {
    let key = "a!a\\:0AA!A!aA\\na00!";
    let redactor = Redactor::new([key]);
    let (_, dump) = written(key, "aaa").into_iter().find(|(way, _)| *way == "hexdump, times").unwrap();
    let whole = format!("see:\n{dump}\nend");
    let wanted = redactor.redact_for_display(&whole);
    for cut in 0..whole.len() {
        assert_eq!(in_pieces(&redactor, &whole, &[cut]), wanted, "cut at {cut}");
    }
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
        prop_assert_eq!(in_pieces(&redactor, &text, &cuts), redactor.redact_for_display(&text));
    }
}

/// A text wrapped after so many characters.
fn wrapped(text: &str, columns: usize, line_end: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let lines: Vec<String> = characters.chunks(columns).map(|line| line.iter().collect()).collect();
    lines.join(line_end)
}

fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].replace('/', "\\/")
}

fn bytes(text: &str, write: impl Fn(u8) -> String, between: &str) -> String {
    text.bytes().map(write).collect::<Vec<_>>().join(between)
}

/// As `xxd` writes it, or with bars as `hexdump -C` does.
fn dump(text: &str, bars: bool) -> String {
    let lines = text.as_bytes().chunks(16).enumerate().map(|(number, line)| {
        let beside: String =
            line.iter().map(|b| if (b' '..=b'~').contains(b) { char::from(*b) } else { '.' }).collect();
        if bars {
            let half = |part: &[u8]| part.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
            let digits =
                format!("{}  {}", half(&line[..line.len().min(8)]), half(&line[line.len().min(8)..]));
            format!("{:08x}  {digits:<49} |{beside}|\n", number * 16)
        } else {
            let groups: Vec<String> =
                line.chunks(2).map(|two| two.iter().map(|b| format!("{b:02x}")).collect()).collect();
            format!("{:08x}: {:<39}  {beside}\n", number * 16, groups.join(" "))
        }
    });
    lines.collect()
}

/// As `od -t x1z` writes it, with offsets to the base eight or sixteen.
fn od(text: &str, offset: fn(usize) -> String) -> String {
    let lines = text.as_bytes().chunks(16).enumerate().map(|(number, line)| {
        let digits: String = line.iter().map(|b| format!(" {b:02x}")).collect();
        let shown = |b: &u8| if (b' '..=b'~').contains(b) { char::from(*b) } else { '.' };
        format!("{}{digits:<48}  >{}<\n", offset(number * 16), line.iter().map(shown).collect::<String>())
    });
    lines.collect()
}

/// With something before each line.
fn after(text: &str, before: impl Fn(usize) -> String) -> String {
    text.lines().enumerate().map(|(number, line)| format!("{}{line}\n", before(number + 1))).collect()
}

/// As `tr -s ' '` leaves it.
fn squeezed(text: &str) -> String {
    text.chars().fold(String::new(), |mut squeezed, c| {
        if c != ' ' || !squeezed.ends_with(' ') {
            squeezed.push(c);
        }
        squeezed
    })
}

/// Further ways, with something before or between, as texts about texts have it.
fn quoted(key: &str, whole: &str) -> Vec<(&'static str, String)> {
    let encoded = wrapped(&STANDARD.encode(format!("{whole}{}", "x".repeat(60))), 16, "\n");
    let (xxd, hexdump) = (dump(whole, false), dump(whole, true));
    let octal = |at: usize| format!("{at:07o}");
    let digits = wrapped(&bytes(whole, |b| format!("{b:02x}"), ""), 60, "\n");
    vec![
        ("base64, diff", after(&encoded, |_| "+".to_owned())),
        ("base64, answer", after(&encoded, |_| "> ".to_owned())),
        ("base64, numbered", after(&encoded, |n| format!("{n:6}\t"))),
        ("base64, times", after(&encoded, |n| format!("2026-11-30T12:00:{n:02}Z "))),
        ("escapes, long", bytes(key, |b| format!("\\U{b:08x}"), "")),
        ("escapes, braces", bytes(key, |b| format!("\\u{{{b:x}}}"), "")),
        ("octal, echo", bytes(key, |b| format!("\\0{b:03o}"), "")),
        ("xxd, od z", od(whole, octal)),
        ("xxd, od z, hex", od(whole, |at| format!("{at:06x}"))),
        ("xxd, after words", format!("key dump: {xxd}")),
        ("xxd, numbered", after(&xxd, |n| format!("{n:6}\t"))),
        ("xxd, diff", after(&xxd, |_| "+".to_owned())),
        ("xxd, bars", after(&xxd, |_| "| ".to_owned())),
        ("hexdump, times", after(&hexdump, |n| format!("12:00:{n:02} "))),
        ("xxd, od z, diff", after(&od(whole, octal), |_| "-".to_owned())),
        ("plain xxd, numbered", after(&digits, |n| format!("{n:6}\t"))),
        ("hexdump, squeezed", hexdump.lines().map(|line| squeezed(line) + "\n").collect()),
        ("xxd, squeezed", squeezed(&xxd)),
        ("xxd, diff, in JSON", in_json(&after(&xxd, |_| "+".to_owned()))),
    ]
}

/// Ways in which programs write a text, each with the part of it that stands for the text.
fn written(key: &str, before: &str) -> Vec<(&'static str, String)> {
    let whole = format!("{before}{key}");
    let encoded = STANDARD.encode(format!("{whole}{}", "x".repeat(60)));
    let percent = |b: u8, keep: &[u8], upper: bool| match b {
        b if b.is_ascii_alphanumeric() || keep.contains(&b) => char::from(b).to_string(),
        b if upper => format!("%{b:02X}"),
        b => format!("%{b:02x}"),
    };
    let escaped = bytes(key, |b| format!("\\u{b:04x}"), "");
    let mixed: String = key
        .bytes()
        .enumerate()
        .map(|(n, b)| if n % 2 == 0 { format!("{b:02X}") } else { format!("{b:02x}") })
        .collect();
    let mut ways = vec![
        ("base64, 76 columns", wrapped(&encoded, 76, "\n")),
        ("base64, 64 columns", wrapped(&encoded, 64, "\r\n")),
        ("base64, indented", wrapped(&encoded, 20, "\n    ")),
        ("base64, in JSON", in_json(&wrapped(&encoded, 76, "\n"))),
        ("base64, URL-safe, wrapped", wrapped(&URL_SAFE_NO_PAD.encode(&whole), 7, "\n")),
        ("percent, slash kept", bytes(key, |b| percent(b, b"/-._~", true), "")),
        ("percent, lower", bytes(key, |b| percent(b, b"-._~", false), "")),
        ("percent, all", bytes(key, |b| format!("%{b:02X}"), "")),
        ("percent, twice", bytes(key, |b| percent(b, b"/", true), "").replace('%', "%25")),
        ("JSON", in_json(key)),
        ("JSON, twice", in_json(&in_json(key))),
        ("JSON, three times", in_json(&in_json(&in_json(key)))),
        ("escapes", escaped.clone()),
        ("escapes, twice", in_json(&escaped)),
        ("octal", bytes(key, |b| format!("\\{b:03o}"), "")),
        ("entities", bytes(key, |b| format!("&#{b};"), "")),
        ("hex, upper and lower", mixed),
        ("hex, spaces", bytes(key, |b| format!("{b:02x}"), " ")),
        ("hex, colons", bytes(key, |b| format!("{b:02X}"), ":")),
        ("hex, lines", bytes(key, |b| format!("{b:02x}"), "\n")),
        ("hex, C", bytes(key, |b| format!("\\x{b:02x}"), "")),
        ("hex, array", bytes(key, |b| format!("0x{b:02x}"), ", ")),
        ("xxd", dump(&whole, false)),
        ("hexdump", dump(&whole, true)),
        ("xxd, in JSON", in_json(&dump(&whole, false))),
    ];
    ways.extend(quoted(key, &whole));
    ways
}

/// What is left of a key that was written in some way: the longest part of the written text that is still there.
fn left(clean: &str, written: &str) -> usize {
    let mut rest = clean.replace(REDACTED, "\u{1}");
    // The offsets and the white space of a dump tell nothing.
    for line in 0..8 {
        rest = rest.replace(&format!("{:08x}: ", line * 16), "\u{1}");
    }
    let parts = rest.split('\u{1}');
    parts.filter(|part| written.contains(part)).map(|part| part.trim().len()).max().unwrap_or(0)
}

#[test]
fn wrapped_and_escaped_forms_are_found() {
    for key in [KEY, "with\"quote\\and/99", "0123456789abcdef0123456789abcdef0123"] {
        let redactor = Redactor::new([key]);
        for before in ["", "u", "us", "user:pass"] {
            for (way, text) in written(key, before) {
                let clean = cleaned(&redactor, &text);
                assert!(clean.contains(REDACTED), "{way} of {key} after {before:?}: {text}");
                if way.contains("xxd") || way.contains("hexdump") {
                    let digits = bytes(key, |b| format!("{b:02x}"), "");
                    let left: String =
                        clean.replace(REDACTED, "").chars().filter(char::is_ascii_hexdigit).collect();
                    assert!(
                        !left.contains(&digits[..8]) && !left.contains(&digits[digits.len() - 8..]),
                        "{way}: {clean}"
                    );
                    assert!(
                        !clean.contains(&key[key.len() - 4..]),
                        "{way} of {key} after {before:?}: {clean}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_only_looks_like_it_stays() {
    let redactor = Redactor::new([KEY, "password1"]);
    for text in [
        "00000000: 736b 2d73 6563 7265 742b 2f31 3233 3435  sk-secret+/12345\n",
        "pass word1 pass\nword\n2",
        "C:\\pass\\word1 %70%61 &amp; 73 6b 2d",
        "0000000 just words\n0000010 and more\n",
    ] {
        assert_eq!(cleaned(&redactor, text), text);
        assert_eq!(in_pieces(&redactor, text, &[3, 9, 20]), text);
    }
}

proptest! {
    #[test]
    fn no_way_of_writing_a_key_gets_through_in_any_pieces(
        key in "[!-~]{12,40}", before in "[a-z]{0,20}", cuts in prop::collection::vec(0_usize..400, 0..8),
    ) {
        let redactor = Redactor::new([key.as_str()]);
        for (way, text) in written(&key, &before) {
            let whole = format!("see:\n{text}\nend");
            let clean = redactor.redact_for_display(&whole);
            prop_assert!(clean.contains(REDACTED), "{} of {}: {}", way, key, text);
            let shown = in_pieces(&redactor, &whole, &cuts);
            prop_assert!(shown.contains(REDACTED), "{} of {}, cut at {:?}: {}", way, key, cuts, shown);
            prop_assert!(left(&shown, &text) <= left(&clean, &text) + 4, "{way} of {key}, {cuts:?}: {shown}\n{clean}");
        }
    }
}
