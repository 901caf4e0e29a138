//! Properties of a Rust source used by the rules: functions with their lengths, enums, traits, single words.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A named item with a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sized {
    pub(crate) name: String,
    /// Line where it starts.
    pub(crate) line: usize,
    /// Number of lines, variants or methods.
    pub(crate) count: usize,
}

/// The items of one file that the rules use.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Functions and methods with their lines, from `fn` to the closing brace.
    pub(crate) functions: Vec<Sized>,
    /// Enums with their variants.
    pub(crate) enums: Vec<Sized>,
    /// Public traits with their methods.
    pub(crate) traits: Vec<Sized>,
}

impl Outline {
    /// Parses one file.
    ///
    /// # Errors
    /// The line and message if the file is not Rust.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let file = syn::parse_file(text).map_err(|error| (error.span().start().line, error.to_string()))?;
        let mut outline = Self::default();
        outline.visit_file(&file);
        let mut made = MadeByMacros::default();
        made.visit_file(&file);
        outline.enums.extend(made.enums());
        Ok(outline)
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let (line, end) = lines(signature, body);
        self.functions.push(Sized { name: signature.ident.to_string(), line, count: end + 1 - line });
    }
}

impl<'ast> Visit<'ast> for Outline {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(body) = &node.default {
            self.function(&node.sig, body);
        }
        visit::visit_trait_item_fn(self, node);
    }

    fn visit_item_enum(&mut self, node: &'ast syn::ItemEnum) {
        let line = node.ident.span().start().line;
        self.enums.push(Sized { name: node.ident.to_string(), line, count: node.variants.len() });
        visit::visit_item_enum(self, node);
    }

    fn visit_item_trait(&mut self, node: &'ast syn::ItemTrait) {
        if matches!(node.vis, syn::Visibility::Public(_)) {
            let count = node.items.iter().filter(|item| matches!(item, syn::TraitItem::Fn(_))).count();
            let line = node.ident.span().start().line;
            self.traits.push(Sized { name: node.ident.to_string(), line, count });
        }
        visit::visit_item_trait(self, node);
    }
}

/// Enums generated from a list by a `macro_rules!` in the same file, with one variant for each comma-separated piece of
/// the invocation.
#[derive(Default)]
struct MadeByMacros {
    /// Name of the macro, name of the enum in its body.
    definitions: Vec<(String, String)>,
    /// Name of the macro, line of its use, number of pieces.
    uses: Vec<(String, usize, usize)>,
}

impl MadeByMacros {
    fn enums(self) -> impl Iterator<Item = Sized> {
        let Self { definitions, uses } = self;
        uses.into_iter().flat_map(move |(used, line, count)| {
            let made = definitions.clone().into_iter().filter(move |(name, _)| *name == used);
            made.map(move |(_, name)| Sized { name, line, count })
        })
    }
}

impl<'ast> Visit<'ast> for MadeByMacros {
    fn visit_item_macro(&mut self, node: &'ast syn::ItemMacro) {
        let Some(path) = node.mac.path.get_ident() else { return };
        if let Some(name) = &node.ident {
            let mut after_enum = false;
            each_word(node.mac.tokens.clone(), &mut |word, _| {
                if after_enum {
                    self.definitions.push((name.to_string(), word.to_string()));
                }
                after_enum = word == "enum";
            });
        } else {
            self.uses.push((path.to_string(), path.span().start().line, pieces(node.mac.tokens.clone())));
        }
    }
}

/// Counts the comma-separated pieces of a list; a trailing comma adds none.
fn pieces(tokens: TokenStream) -> usize {
    let (mut count, mut inside) = (0, false);
    for token in tokens {
        let comma = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',');
        count += usize::from(!comma && !inside);
        inside = !comma;
    }
    count
}

/// Returns the first and last line of a function: its `fn` and its closing brace.
fn lines(signature: &syn::Signature, body: &syn::Block) -> (usize, usize) {
    (signature.fn_token.span.start().line, body.brace_token.span.close().end().line)
}

/// Returns the lines on which `word` occurs in code, not in comments or literals.
pub(crate) fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    if let Ok(tokens) = text.parse::<TokenStream>() {
        each_word(tokens, &mut |ident, _| {
            if ident == word {
                lines.push(ident.span().start().line);
            }
        });
    }
    lines
}

/// Returns the lines on which a free function with one of `names` is called; methods with the same name, such as a
/// clock's, do not count. In a file that is not all test code, only the parts under `#[cfg(test)]` count.
pub(crate) fn calls_in_tests(text: &str, names: &[&str], all_is_test: bool) -> Vec<usize> {
    let Ok(file) = syn::parse_file(text) else { return Vec::new() };
    let Ok(tokens) = text.parse::<TokenStream>() else { return Vec::new() };
    let mut areas = TestAreas::default();
    areas.visit_file(&file);
    let mut lines = Vec::new();
    each_word(tokens, &mut |ident, called| {
        let line = ident.span().start().line;
        let counts = all_is_test || areas.0.iter().any(|(start, end)| (*start..=*end).contains(&line));
        if called && counts && names.iter().any(|name| ident == name) {
            lines.push(line);
        }
    });
    lines
}

/// A call of a function through a path: `qualifier::name(argument`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) line: usize,
    /// Last part of the path before the name; empty if there is none.
    pub(crate) qualifier: String,
    pub(crate) name: String,
    /// First string literal of the arguments, if they begin with one, a reference to one, or a macro such as `format!`
    /// that does.
    pub(crate) argument: Option<String>,
}

/// Returns the calls in the parts of a file that are not test code.
pub(crate) fn calls_outside_tests(text: &str) -> Vec<Call> {
    let Ok(file) = syn::parse_file(text) else { return Vec::new() };
    let Ok(tokens) = text.parse::<TokenStream>() else { return Vec::new() };
    let mut areas = TestAreas::default();
    areas.visit_file(&file);
    let mut calls = Vec::new();
    each_call(tokens, &mut calls);
    calls.retain(|call| !areas.0.iter().any(|(start, end)| (*start..=*end).contains(&call.line)));
    calls
}

/// Returns the string literals with their lines in the parts of a file that are neither test code nor documentation.
pub(crate) fn literals_outside_tests(text: &str) -> Vec<(usize, String)> {
    let Ok(file) = syn::parse_file(text) else { return Vec::new() };
    let Ok(tokens) = text.parse::<TokenStream>() else { return Vec::new() };
    let mut areas = TestAreas::default();
    areas.visit_file(&file);
    let mut literals = Vec::new();
    each_literal(tokens, &mut literals);
    literals.retain(|(line, _)| !areas.0.iter().any(|(start, end)| (*start..=*end).contains(line)));
    literals
}

fn each_literal(tokens: TokenStream, literals: &mut Vec<(usize, String)>) {
    let mut before = [' '; 2];
    for token in tokens {
        let mut sign = ' ';
        match token {
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if text.ends_with(['"', '#']) {
                    literals.push((literal.span().start().line, join_lines(&text)));
                }
            }
            TokenTree::Group(group) => {
                let attribute = before[1] == '#' || before == ['#', '!'];
                let doc = matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(word)) if word == "doc");
                if !(attribute && doc) {
                    each_literal(group.stream(), literals);
                }
            }
            TokenTree::Punct(punct) => sign = punct.as_char(),
            TokenTree::Ident(_) => {}
        }
        before = [before[1], sign];
    }
}

/// Returns the source of a literal without its quotes, with each line break that a backslash hides removed.
fn join_lines(source: &str) -> String {
    let inner = source.trim_start_matches(['r', 'b', 'c', '#']).trim_end_matches('#').trim_matches('"');
    let mut parts = inner.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

fn each_call(tokens: TokenStream, calls: &mut Vec<Call>) {
    // The words before the present token, as long as only `::` is between them.
    let (mut before, mut last, mut colons) = (String::new(), String::new(), 0);
    let mut line = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                before = if colons == 2 { std::mem::take(&mut last) } else { String::new() };
                last = ident.to_string();
                line = ident.span().start().line;
                colons = 0;
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Parenthesis && !last.is_empty() && colons == 0 {
                    let (qualifier, name) = (std::mem::take(&mut before), std::mem::take(&mut last));
                    calls.push(Call { line, qualifier, name, argument: first_literal(group.stream()) });
                }
                each_call(group.stream(), calls);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        (before, last, colons) = (String::new(), String::new(), 0);
    }
}

fn first_literal(tokens: TokenStream) -> Option<String> {
    for token in tokens {
        match token {
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                return Some(text.trim_start_matches(['b', 'c']).trim_matches('"').to_owned());
            }
            TokenTree::Punct(punct) if matches!(punct.as_char(), '&' | '!') => {}
            TokenTree::Ident(ident) if ident == "format" => {}
            TokenTree::Group(group) => return first_literal(group.stream()),
            _ => return None,
        }
    }
    None
}

/// Line ranges of modules and functions that only exist in tests.
#[derive(Default)]
struct TestAreas(Vec<(usize, usize)>);

impl<'ast> Visit<'ast> for TestAreas {
    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if node.attrs.iter().any(is_test_attribute) {
            let end = node.content.as_ref().map_or(0, |(brace, _)| brace.span.close().end().line);
            self.0.push((node.mod_token.span.start().line, end));
        }
        visit::visit_item_mod(self, node);
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        if node.attrs.iter().any(is_test_attribute) {
            self.0.push(lines(&node.sig, &node.block));
        }
        visit::visit_item_fn(self, node);
    }
}

/// Returns whether an attribute is `#[test]`, `#[tokio::test]` or `#[cfg(test)]`.
pub(crate) fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    let named = attribute.path().segments.last().is_some_and(|segment| segment.ident == "test");
    let configured = attribute.path().is_ident("cfg")
        && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test");
    named || configured
}

/// Visits all words; the flag tells whether the word is called as a function: an argument list follows directly and no
/// dot precedes it.
fn each_word(tokens: TokenStream, visit: &mut dyn FnMut(&Ident, bool)) {
    let mut tokens = tokens.into_iter().peekable();
    let mut after_dot = false;
    while let Some(token) = tokens.next() {
        let dot = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '.');
        match token {
            TokenTree::Group(group) => each_word(group.stream(), visit),
            TokenTree::Ident(ident) => {
                let called = matches!(tokens.peek(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
                visit(&ident, called && !after_dot);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        after_dot = dot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_ignore_braces_in_strings_chars_and_comments() {
        let text = "fn a() {\n  let s = \"}\";\n  let c = '}';\n  let r = r#\"}\"#;\n  // }\n  /* } */\n}\nfn b() {}\n";
        let outline = Outline::parse(text).unwrap();
        let sizes: Vec<_> = outline.functions.iter().map(|f| (f.name.as_str(), f.line, f.count)).collect();
        assert_eq!(sizes, [("a", 1, 7), ("b", 8, 1)]);
    }

    #[test]
    fn attributes_and_docs_are_not_part_of_a_function() {
        let outline = Outline::parse("/// One.\n/// Two.\n#[inline]\npub fn a()\n{\n}\n").unwrap();
        assert_eq!(outline.functions, [Sized { name: "a".into(), line: 4, count: 3 }]);
    }

    #[test]
    fn methods_defaults_and_inner_functions_are_found() {
        let text = "struct S; impl S { fn m(&self) {} }\ntrait T { fn d(&self) {} fn r(&self); }\nfn o() { fn i() {} }";
        let names: Vec<_> = Outline::parse(text).unwrap().functions.into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["m", "d", "o", "i"]);
    }

    #[test]
    fn enums_made_by_a_macro_are_counted_where_it_is_used() {
        let text = "macro_rules! kinds { ($($v:ident = $n:literal),*) => { pub enum Kind { $($v),* } } }\n\
                    other! { A, B }\nkinds! { /// Doc, with a comma.\n A = \"a,b\", B = \"b\", C = f(1, 2), }\n";
        assert_eq!(Outline::parse(text).unwrap().enums, [Sized { name: "Kind".into(), line: 3, count: 3 }]);
    }

    #[test]
    fn words_are_found_in_code_and_macros_only() {
        let text =
            "// unsafe\nfn a() { let s = \"unsafe\"; m!(unsafe {}); }\n#[unsafe(no_mangle)]\nfn b() {}";
        assert_eq!(lines_with_word(text, "unsafe"), [2, 3]);
    }

    #[test]
    fn calls_are_found_with_their_path_and_first_literal() {
        let text = "fn a() { std::fs::read(&path); fs::read(\"/proc/self/stat\"); File::open(format!(\"/sys/{x}\")); b(1) }\n\
                    #[cfg(test)]\nmod tests { fn c() { fs::read(p); } }\n";
        let calls: Vec<_> = calls_outside_tests(text)
            .into_iter()
            .map(|call| (call.line, format!("{}::{}", call.qualifier, call.name), call.argument))
            .collect();
        let some = |text: &str| Some(text.to_owned());
        let wanted = [
            (1, "::a".to_owned(), None),
            (1, "fs::read".to_owned(), None),
            (1, "fs::read".to_owned(), some("/proc/self/stat")),
            (1, "File::open".to_owned(), some("/sys/{x}")),
            (1, "::b".to_owned(), some("1")),
            (2, "::cfg".to_owned(), None),
        ];
        assert_eq!(calls, wanted);
    }

    #[test]
    fn literals_are_found_outside_of_tests_and_documentation() {
        let text = "//! \"a\"\n/// \"b\"\n#[error(\"c {x}\")]\nenum E {}\nfn f() { format!(\"d \\\n  e\"); }\n\
                    #[doc = \"f\"]\n#[cfg(test)]\nmod tests { const A: &str = \"g\"; }\n";
        let wanted = [(3, "c {x}".to_owned()), (5, "d e".to_owned())];
        assert_eq!(literals_outside_tests(text), wanted);
    }

    #[test]
    fn only_test_code_is_searched_for_calls() {
        let text = "fn live() { sleep(1); }\n#[cfg(test)]\nmod tests {\n fn a() { t::sleep(1); let sleep = 1; c.sleep(2); }\n}\n";
        assert_eq!(calls_in_tests(text, &["sleep"], false), [4]);
        assert_eq!(calls_in_tests(text, &["sleep"], true), [1, 4]);
    }
}
