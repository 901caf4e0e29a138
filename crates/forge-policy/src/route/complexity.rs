//! Difficulty of a task, estimated from its text alone (ROUTE-3, the specification's appendix C).
//!
//! Two scores in hundredths, so that thresholds are met exactly: one for a simple task and one for a hard task.
//! Keywords are whole words, each counted once.

use forge_types::Tier;

/// Hard scores below this do not count against a simple task.
const MIN_HARD_SCORE: u32 = 15;

/// Keywords of simple tasks, with their scores.
const SIMPLE_KEYWORDS: &[(&[&str], u32)] = &[
    (&["hello world"], 40),
    (&["fizzbuzz", "fizz buzz"], 50),
    (&["palindrome", "palindromes"], 30),
    (&["factorial", "factorials"], 30),
    (&["fibonacci"], 30),
    (&["typo", "typos", "spelling"], 30),
    (&["reverse a string", "reverse the string", "string reversal"], 30),
    (&["leap year"], 30),
    (&["prime number", "prime numbers"], 20),
    (&["even or odd", "odd or even"], 20),
    (&["temperature"], 10),
    (&["calculator"], 10),
    (&["rename"], 10),
    (&["convert", "conversion"], 10),
    (&["print"], 10),
    (&["comment", "comments", "docstring"], 10),
];

/// Keywords of hard tasks, with their scores.
const HARD_KEYWORDS: &[(&[&str], u32)] = &[
    (&["microservice", "microservices"], 40),
    (&["compiler", "compilers"], 40),
    (&["interpreter"], 40),
    (&["distributed"], 40),
    (&["operating system"], 40),
    (&["consensus", "raft", "paxos"], 40),
    (&["kubernetes"], 35),
    (&["race condition", "race conditions", "deadlock", "deadlocks"], 35),
    (&["machine learning", "neural network"], 35),
    (&["rest api", "rest apis", "restful"], 30),
    (&["concurrent", "concurrency", "concurrently"], 30),
    (&["multithreaded", "multi-threaded", "thread safe", "thread-safe"], 30),
    (&["graphql", "grpc"], 30),
    (&["oauth", "single sign-on"], 30),
    (&["encryption", "cryptography"], 30),
    (&["scheduler"], 30),
    (&["database", "databases"], 25),
    (&["authentication", "authorization"], 25),
    (&["websocket", "websockets"], 25),
    (&["parser"], 25),
    (&["migration", "migrations"], 25),
    (&["state machine"], 25),
    (&["transaction", "transactions"], 25),
    (&["architecture"], 25),
    (&["docker", "containers"], 20),
    (&["refactor", "refactoring", "redesign"], 20),
    (&["async", "asynchronous"], 20),
    (&["security", "vulnerability"], 20),
    (&["performance", "optimize", "optimise"], 15),
    (&["cache", "caching"], 15),
];

/// Phrases that join requirements.
const JOINING_PHRASES: &[&str] =
    &["additionally", "as well as", "furthermore", "moreover", "in addition", "on top of that"];

/// Thresholds between the tiers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Simple score at which a task is simple (`routing.simple_threshold`).
    pub simple: f64,
    /// Hard score at which a task is hard (`routing.complex_threshold`).
    pub complex: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { simple: 0.3, complex: 0.7 }
    }
}

/// Signals found in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComplexitySignals {
    /// Score for a simple task, in hundredths.
    pub simple: u32,
    /// Score for a hard task, in hundredths.
    pub hard: u32,
    /// Descriptions of the signals, such as `keyword database +0.25 hard`.
    pub found: Vec<String>,
}

impl ComplexitySignals {
    fn add_simple(&mut self, points: u32, what: &str) {
        self.simple += points;
        self.found.push(format!("{what} +{} simple", format_points(points)));
    }

    fn add_hard(&mut self, points: u32, what: &str) {
        self.hard += points;
        self.found.push(format!("{what} +{} hard", format_points(points)));
    }

    /// Returns the tier for these scores.
    pub fn tier(&self, thresholds: Thresholds) -> Tier {
        if self.hard >= to_hundredths(thresholds.complex) {
            Tier::Hard
        } else if self.simple >= to_hundredths(thresholds.simple) && self.hard < MIN_HARD_SCORE {
            Tier::Simple
        } else {
            Tier::Medium
        }
    }

    /// Describes the scores and their sources, for people.
    pub fn describe(&self) -> String {
        let found = if self.found.is_empty() { "no signals".to_owned() } else { self.found.join(", ") };
        format!("simple {}, hard {}: {found}", format_points(self.simple), format_points(self.hard))
    }
}

fn format_points(points: u32) -> String {
    format!("{}.{:02}", points / 100, points % 100)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a threshold lies between 0 and 10"
)]
fn to_hundredths(threshold: f64) -> u32 {
    (threshold.clamp(0.0, 10.0) * 100.0).round() as u32
}

/// Finds the signals of difficulty in a text. Longer texts are checked before shorter ones, so that every line of the
/// table can be reached.
pub fn find_signals(text: &str) -> ComplexitySignals {
    let mut signals = ComplexitySignals::default();
    let words = text.split_whitespace().count();
    match words {
        301.. => signals.add_hard(30, "more than 300 words"),
        151..=300 => signals.add_hard(20, "more than 150 words"),
        50..=150 => {}
        20..=49 => signals.add_simple(10, "fewer than 50 words"),
        0..=19 => signals.add_simple(25, "fewer than 20 words"),
    }
    match count_sentences(text) {
        11.. => signals.add_hard(30, "more than 10 sentences"),
        7..=10 => signals.add_hard(20, "more than 6 sentences"),
        0..=6 => {}
    }
    match count_steps(text) {
        5.. => signals.add_hard(30, "5 or more listed steps"),
        3..=4 => signals.add_hard(15, "3 listed steps"),
        0..=2 => {}
    }
    let plain = normalize_text(text);
    let ands = count_phrase(&plain, "and");
    let joins: usize = JOINING_PHRASES.iter().map(|join| count_phrase(&plain, join)).sum();
    if joins >= 2 || ands >= 4 {
        signals.add_hard(15, "several requirements joined");
    }
    match (defines_class(text), defines_function(text)) {
        (true, true) => signals.add_hard(15, "a class and a function in the text"),
        (true, false) => signals.add_hard(10, "a class in the text"),
        (false, _) => {}
    }
    for (table, is_hard) in [(SIMPLE_KEYWORDS, false), (HARD_KEYWORDS, true)] {
        for (forms, points) in table {
            if let Some(form) = forms.iter().find(|form| count_phrase(&plain, form) > 0) {
                let what = format!("keyword {form}");
                if is_hard { signals.add_hard(*points, &what) } else { signals.add_simple(*points, &what) }
            }
        }
    }
    signals
}

/// Converts a text to lower case with single spaces between words and a space at both ends. Hyphens inside words are
/// kept, so that `thread-safe` is one word and `data-base` does not match `base`.
fn normalize_text(text: &str) -> String {
    let mut out = String::from(" ");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let joins =
            c == '-' && !out.ends_with(' ') && chars.peek().is_some_and(|next| next.is_alphanumeric());
        if c.is_alphanumeric() || c == '_' || joins {
            out.extend(c.to_lowercase());
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if !out.ends_with(' ') {
        out.push(' ');
    }
    out
}

/// Counts the occurrences of `phrase` in a normalised text.
fn count_phrase(plain: &str, phrase: &str) -> usize {
    let wanted = format!(" {phrase} ");
    let (mut from, mut found) = (0, 0);
    while let Some(at) = plain[from..].find(&wanted) {
        found += 1;
        // The space after one word is the space before the next.
        from += at + wanted.len() - 1;
    }
    found
}

/// Counts ends of sentences: a mark before white space or the end, except the dot of a list number.
fn count_sentences(text: &str) -> usize {
    let words = text.split_whitespace();
    words.filter(|word| word.ends_with(['.', '!', '?']) && !is_number(word)).count()
}

/// Returns whether a word is a list number, such as `1.` or `2)`.
fn is_number(word: &str) -> bool {
    let digits = word.trim_end_matches(['.', ')']);
    digits.len() < word.len()
        && !digits.is_empty()
        && digits.len() <= 2
        && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Counts listed steps: numbers with a mark, and lines with a bullet.
fn count_steps(text: &str) -> usize {
    let numbered = text.split_whitespace().filter(|word| is_number(word)).count();
    let bullets = text.lines().filter(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("-" | "*" | "•")) && words.next().is_some()
    });
    numbered + bullets.count()
}

/// Returns whether the text contains source code that defines a class: `class Name` and a bracket or colon.
fn defines_class(text: &str) -> bool {
    defines_name(text, "class", &[':', '{', '('])
}

fn defines_function(text: &str) -> bool {
    ["def", "fn", "function", "func"].iter().any(|word| defines_name(text, word, &['(']))
}

/// Returns whether the text contains `word`, a name, and then one of these marks.
fn defines_name(text: &str, word: &str, marks: &[char]) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let rest = &text[at + word.len()..];
        let name = rest.trim_start_matches([' ', '\t']);
        let after = name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            && name.len() < rest.len()
            && after.len() < name.len()
            && after.trim_start_matches([' ', '\t']).starts_with(marks)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a text of `n` plain words.
    fn words(n: usize) -> String {
        vec!["word"; n].join(" ")
    }

    fn check(text: &str, simple: u32, hard: u32, tier: Tier) {
        let signals = find_signals(text);
        assert_eq!((signals.simple, signals.hard), (simple, hard), "{text}: {}", signals.describe());
        assert_eq!(signals.tier(Thresholds::default()), tier, "{text}: {}", signals.describe());
    }

    #[test]
    fn every_line_of_the_table_can_be_reached() {
        use Tier::{Hard, Medium, Simple};
        check(&words(19), 25, 0, Medium);
        check(&words(20), 10, 0, Medium);
        check(&words(49), 10, 0, Medium);
        check(&words(50), 0, 0, Medium);
        check(&words(150), 0, 0, Medium);
        check(&words(151), 0, 20, Medium);
        check(&words(300), 0, 20, Medium);
        check(&words(301), 0, 30, Medium);
        check(&format!("{} a. b. c. d. e. f.", words(60)), 0, 0, Medium);
        check(&format!("{} a. b. c. d. e. f. g.", words(60)), 0, 20, Medium);
        check(&format!("{} a. b. c. d. e. f. g. h. i. j.", words(60)), 0, 20, Medium);
        check(&format!("{} a. b. c. d. e. f. g. h. i. j. k!", words(60)), 0, 30, Medium);
        check("1. read 2. change", 25, 0, Medium);
        check("1. read 2. change 3. test", 25, 15, Medium);
        check("- read\n- change\n- test\n* look", 25, 15, Medium);
        check("1) a 2) b 3) c 4) d 5) e", 25, 30, Medium);
        check("Additionally it sorts. It filters as well as it can.", 25, 15, Medium);
        check("a and b and c and d", 25, 0, Medium);
        check("a and b and c and d and e", 25, 15, Medium);
        check("class Stack: needs a method", 25, 10, Medium);
        check("class Stack: and def push(x)", 25, 15, Medium);
        check("first class seats, classify (them)", 25, 0, Medium);
        check("Print hello world", 75, 0, Simple);
        check("Write FizzBuzz.", 75, 0, Simple);
        check("Convert it", 35, 0, Simple);
        check("hello world in a database", 65, 25, Medium);
        check("A REST API with a database and authentication", 25, 80, Hard);
        check("a compiler, concurrent", 25, 70, Hard);
        check("a compiler, async", 25, 60, Medium);
    }

    #[test]
    fn keywords_are_whole_words_and_count_once() {
        check("databased microserviced fizzbuzzer", 25, 0, Tier::Medium);
        check("database, database; (database)", 25, 25, Tier::Medium);
        check("thread-safe", 25, 30, Tier::Medium);
    }

    #[test]
    fn every_keyword_lies_in_its_range_and_moves_its_score() {
        for (table, range) in [(SIMPLE_KEYWORDS, 10..=50), (HARD_KEYWORDS, 15..=40)] {
            for (forms, points) in table {
                assert!(range.contains(points), "{forms:?}");
                for form in *forms {
                    let found = find_signals(form).found.len();
                    assert!(found >= 2, "{form} is not found: {:?}", find_signals(form).found);
                }
            }
        }
    }

    #[test]
    fn thresholds_move_the_lines() {
        let text = "a compiler, async";
        assert_eq!(find_signals(text).tier(Thresholds { simple: 0.3, complex: 0.6 }), Tier::Hard);
        assert_eq!(find_signals("word").tier(Thresholds { simple: 0.25, complex: 0.7 }), Tier::Simple);
    }

    proptest! {
        #[test]
        fn any_text_has_a_tier(text in "\\PC{0,400}") {
            let signals = find_signals(&text);
            prop_assert!(signals.simple + signals.hard < 2_000);
        }

        #[test]
        fn more_words_of_nothing_are_never_simpler(few in 0_usize..400, more in 0_usize..400) {
            let (few, more) = (few.min(more), few.max(more));
            prop_assert!(find_signals(&words(few)).simple >= find_signals(&words(more)).simple);
            prop_assert!(find_signals(&words(few)).hard <= find_signals(&words(more)).hard);
        }
    }
}
