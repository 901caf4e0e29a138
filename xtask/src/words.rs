//! Words of names and of prose: those that no name may consist of or begin with, and those that comments do without.

use std::collections::BTreeMap;

use crate::items::{Items, Name};
use crate::{Rules, Tree, Violation, WordRules};

/// Returns whether a doc comment begins without naming its subject.
pub(crate) fn is_hollow(doc: &str, words: &WordRules) -> bool {
    let first = doc.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    words.openings.iter().any(|opening| opening == first)
}

/// Returns whether a word is one that comments do without.
pub(crate) fn is_stilted(word: &str, words: &WordRules) -> bool {
    words.prose.iter().any(|stilted| word.eq_ignore_ascii_case(stilted))
}

/// Returns the sources that these rules apply to: those of the product, tests excluded.
fn product_sources<'a>(tree: &'a Tree, rules: &'a Rules) -> impl Iterator<Item = (&'a str, &'a str)> {
    tree.rust_files().filter(|(path, _)| {
        let package = tree.package_of(path).and_then(|package| rules.crates.get(&package.name));
        package.is_some_and(|rule| rule.layer != "dev")
            && path.contains("/src/")
            && !path.ends_with("/tests.rs")
    })
}

/// Rejects files, types, functions and constants that are named by a metaphor.
pub(crate) fn names(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in product_sources(tree, rules) {
        let file = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
        let mut named = vec![Name { text: file.to_owned(), line: 0 }];
        if let Some(items) = Items::read(text) {
            named.extend(items.types.into_iter().chain(items.functions).chain(items.constants));
        }
        for Name { text, line } in named {
            let first = first_word(&text);
            if rules.words.names.contains(&first) && !rules.words.allowed_names.contains(&text) {
                let message = format!(
                    "`{text}` begins with `{first}`, which names no kind of thing: use a standard term of two words"
                );
                found.push(Violation::new(path, line, "names", message));
            }
        }
    }
    found
}

/// Rejects integer constants with a name that leaves their unit open.
pub(crate) fn constants(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in product_sources(tree, rules) {
        for Name { text, line } in Items::read(text).map(|items| items.integers).unwrap_or_default() {
            let last = text.rsplit('_').next().unwrap_or_default().to_lowercase();
            if rules.words.unitless.contains(&last) {
                let message = format!("`{text}` has no unit: name it, as in `{text}_BYTES` or `{text}_MS`");
                found.push(Violation::new(path, line, "constants", message));
            }
        }
    }
    found
}

/// Returns the first word of a name in snake case, camel case or capitals, in small letters.
fn first_word(name: &str) -> String {
    let name = name.trim_start_matches('_');
    let end = name.char_indices().skip(1).find(|(at, c)| {
        let before = name[..*at].chars().next_back().unwrap_or('_');
        *c == '_' || (c.is_uppercase() && before.is_lowercase())
    });
    name[..end.map_or(name.len(), |(at, _)| at)].to_lowercase()
}

/// Rejects a type name that more than two types have, except those that many crates share by convention.
pub(crate) fn type_names(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut places: BTreeMap<String, Vec<(&str, usize)>> = BTreeMap::new();
    for (path, text) in product_sources(tree, rules) {
        for Name { text, line } in Items::read(text).map(|items| items.types).unwrap_or_default() {
            places.entry(text).or_default().push((path, line));
        }
    }
    let shared = |name: &String| rules.words.shared_types.contains(name);
    let mut found = Vec::new();
    for (name, places) in places.into_iter().filter(|(name, places)| places.len() > 2 && !shared(name)) {
        for (path, line) in places {
            let message = format!("`{name}` names more than two types: give each its own name");
            found.push(Violation::new(path, line, "type-names", message));
        }
    }
    found
}

/// Rejects doc comments without a subject, and words that comments do without.
pub(crate) fn prose(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in product_sources(tree, rules) {
        for Name { text, line } in Items::read(text).map(|items| items.docs).unwrap_or_default() {
            if is_hollow(&text, &rules.words) {
                let message = "a doc comment begins with a verb (function) or a noun phrase (type) and names its subject";
                found.push(Violation::new(path, line, "prose", message));
            }
        }
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let mut words = comment.split(|c: char| !c.is_alphabetic());
            if let Some(word) = words.find(|word| is_stilted(word, &rules.words)) {
                let message =
                    format!("`{word}` is not plain technical English: name the subject, or say it directly");
                found.push(Violation::new(path, number + 1, "prose", message));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_name_is_found_in_each_case() {
        let names = ["RoomPlan", "room_plan", "ROOM_BYTES", "_room", "room", "Roomy", "roomy_place"];
        let firsts: Vec<_> = names.iter().map(|name| first_word(name)).collect();
        assert_eq!(firsts, ["room", "room", "room", "room", "room", "roomy", "roomy"]);
    }

    #[test]
    fn openings_and_words_are_judged_whole() {
        let words = WordRules {
            openings: vec!["What".to_owned(), "It".to_owned()],
            prose: vec!["nobody".to_owned(), "stands".to_owned()],
            ..WordRules::default()
        };
        assert!(is_hollow("What it holds.", &words) && !is_hollow("Iterates over it.", &words));
        assert!(is_stilted("Nobody", &words) && !is_stilted("standard", &words));
    }
}
