//! Commands and flags in texts: only surfaces name them, since the user of another surface cannot type them.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use crate::rust::literals_outside_tests;
use crate::{Rules, Tree, Violation};

/// Maximum number of exceptions.
const MAX_EXCEPTIONS: usize = 10;

/// Checks that string literals outside of surfaces name no command and no flag of the command line.
pub(crate) fn surface_texts(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let report = |path: &str, line, message: String| Violation::new(path, line, "surface-texts", message);
    let surfaces = &rules.surfaces;
    let mut vocabulary = Vocabulary { program: surfaces.program.clone(), ..Vocabulary::default() };
    for (_, text) in tree.rust_files().filter(|(path, _)| path.starts_with(&surfaces.arguments)) {
        vocabulary.read(text, &surfaces.commands);
    }
    vocabulary.flags.retain(|flag| !surfaces.ambiguous_flags.contains(flag));
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for (path, text) in tree.rust_files().filter(|(path, _)| path.contains("/src/") && !is_test(path)) {
        if tree.package_of(path).is_none_or(|package| surfaces.crates.contains(&package.name)) {
            continue;
        }
        for (line, literal) in literals_outside_tests(text) {
            let Some(named) = vocabulary.find_in(&literal) else { continue };
            if let Some(exception) = surfaces.exceptions.iter().position(|one| one.path == path) {
                used.insert(exception);
                continue;
            }
            let message = format!(
                "names `{named}`, which only a surface knows: give the error a `NextStep`, which the surface words"
            );
            found.push(report(path, line, message));
        }
    }
    for (at, exception) in surfaces.exceptions.iter().enumerate() {
        if !used.contains(&at) {
            let message = format!("`{}` is an exception for surface texts but needs none", exception.path);
            found.push(report("layers.toml", 0, message));
        }
        if at == MAX_EXCEPTIONS {
            let message = format!("surface texts have more than {MAX_EXCEPTIONS} exceptions");
            found.push(report("layers.toml", 0, message));
        }
    }
    found
}

/// The program, its commands and its flags.
#[derive(Default)]
struct Vocabulary {
    program: String,
    commands: BTreeSet<String>,
    flags: BTreeSet<String>,
}

impl Vocabulary {
    /// Adds the variants of the enum `commands` and the fields with `#[arg(long)]`.
    fn read(&mut self, text: &str, commands: &str) {
        if let Ok(file) = syn::parse_file(text) {
            ArgumentReader { vocabulary: self, commands }.visit_file(&file);
        }
    }

    /// Returns the first command or flag that a text names. A text without spaces is an argument, not a message.
    fn find_in(&self, text: &str) -> Option<String> {
        if !text.contains(char::is_whitespace) {
            return None;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let start = format!("{} ", self.program);
        let commands = text.match_indices(&start).filter(|(at, _)| !text[..*at].ends_with(is_word));
        let commands = commands.filter_map(|(at, start)| {
            let word = text[at + start.len()..].split(|c| !is_word(c)).next()?;
            self.commands.contains(word).then(|| format!("{start}{word}"))
        });
        let flags = text.match_indices("--").filter(|(at, _)| !text[..*at].ends_with(is_word));
        let flags = flags.filter_map(|(at, dashes)| {
            let word = text[at + dashes.len()..].split(|c| !is_word(c)).next()?;
            self.flags.contains(word).then(|| format!("{dashes}{word}"))
        });
        commands.chain(flags).next()
    }
}

struct ArgumentReader<'v> {
    vocabulary: &'v mut Vocabulary,
    commands: &'v str,
}

impl<'ast> Visit<'ast> for ArgumentReader<'_> {
    fn visit_item_enum(&mut self, node: &'ast syn::ItemEnum) {
        if node.ident == self.commands {
            let names = node.variants.iter().map(|variant| variant.ident.to_string().to_lowercase());
            self.vocabulary.commands.extend(names);
        }
        visit::visit_item_enum(self, node);
    }

    fn visit_field(&mut self, node: &'ast syn::Field) {
        let Some(ident) = &node.ident else { return };
        for attribute in node.attrs.iter().filter(|attribute| attribute.path().is_ident("arg")) {
            let Ok(list) = attribute.meta.require_list() else { continue };
            let words = list.tokens.to_string();
            let long = words.split(',').map(str::trim).find_map(|word| word.strip_prefix("long"));
            let Some(name) = long else { continue };
            let name = name.trim().trim_start_matches('=').trim().trim_matches('"');
            let own = ident.to_string().replace('_', "-");
            self.vocabulary.flags.insert(if name.is_empty() { own } else { name.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_flags_are_found_in_messages_only() {
        let mut vocabulary = Vocabulary { program: "tool".to_owned(), ..Vocabulary::default() };
        vocabulary.read(
            "enum Cli { Run(Run), Stop }\nstruct Run {\n #[arg(long)]\n no_wait: bool,\n \
             #[arg(short, long = \"to\", value_name = \"X\")]\n target: String,\n #[arg(value_name = \"Y\")]\n y: u8 }",
            "Cli",
        );
        let find = |text: &str| vocabulary.find_in(text);
        assert_eq!(find("try `tool stop` now").as_deref(), Some("tool stop"));
        assert_eq!(find("tool run X").as_deref(), Some("tool run"));
        assert_eq!(find("omit --no-wait.").as_deref(), Some("--no-wait"));
        assert_eq!(find("name it with `--to X`").as_deref(), Some("--to"));
        for fine in [
            "tool stops here",
            "tool itself",
            "a mytool run",
            "--no-wait",
            "x --wait",
            "x --no-waiting",
            "a--to b",
        ] {
            assert_eq!(find(fine), None, "{fine}");
        }
    }
}
