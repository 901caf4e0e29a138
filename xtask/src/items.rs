//! Named items of a source and their doc comments, without what exists in tests only.

use syn::visit::{self, Visit};

use crate::rust::is_test_attribute;

/// A name, or the first line of a doc comment, with its line number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Name {
    fn of(ident: &syn::Ident) -> Self {
        Self { text: ident.to_string(), line: ident.span().start().line }
    }
}

/// Names and comments of one file, without its tests.
#[derive(Default)]
pub(crate) struct Items {
    pub(crate) types: Vec<Name>,
    pub(crate) functions: Vec<Name>,
    pub(crate) constants: Vec<Name>,
    /// Constants of an integer type, among `constants`.
    pub(crate) integers: Vec<Name>,
    /// First line of each doc comment.
    pub(crate) docs: Vec<Name>,
    /// Lines of modules that exist in tests only.
    pub(crate) test_lines: usize,
}

impl Items {
    /// Reads a source; `None` if it is not Rust.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut items = Self::default();
        items.visit_file(&syn::parse_file(text).ok()?);
        Some(items)
    }

    /// Records the doc comment of an item; returns `false` if the item exists in tests only.
    fn enter(&mut self, attributes: &[syn::Attribute]) -> bool {
        if attributes.iter().any(is_test_attribute) {
            return false;
        }
        if let Some(doc) = attributes.iter().find_map(doc_line) {
            self.docs.push(doc);
        }
        true
    }
}

fn doc_line(attribute: &syn::Attribute) -> Option<Name> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if pair.path.is_ident("doc") => {
            Some(Name { text: text.value().trim().to_owned(), line: text.span().start().line })
        }
        _ => None,
    }
}

fn is_integer(kind: &syn::Type) -> bool {
    const INTEGERS: [&str; 12] =
        ["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"];
    matches!(kind, syn::Type::Path(path) if INTEGERS.iter().any(|name| path.path.is_ident(name)))
}

macro_rules! visit_items {
    ($($method:ident $node:ident $list:ident),* $(,)?) => {$(
        fn $method(&mut self, node: &'ast syn::$node) {
            if self.enter(&node.attrs) {
                self.$list.push(Name::of(&node.ident));
                visit::$method(self, node);
            }
        }
    )*};
}

impl<'ast> Visit<'ast> for Items {
    visit_items! {
        visit_item_struct ItemStruct types,
        visit_item_enum ItemEnum types,
        visit_item_union ItemUnion types,
        visit_item_trait ItemTrait types,
        visit_item_type ItemType types,
        visit_item_static ItemStatic constants,
    }

    fn visit_item_const(&mut self, node: &'ast syn::ItemConst) {
        if self.enter(&node.attrs) {
            self.constants.push(Name::of(&node.ident));
            if is_integer(&node.ty) {
                self.integers.push(Name::of(&node.ident));
            }
            visit::visit_item_const(self, node);
        }
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if self.enter(&node.attrs) {
            visit::visit_item_mod(self, node);
        } else if let Some((brace, _)) = &node.content {
            let (start, end) = (node.mod_token.span.start().line, brace.span.close().end().line);
            self.test_lines += end + 1 - start;
        }
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        if self.enter(&node.attrs) {
            self.functions.push(Name::of(&node.sig.ident));
            visit::visit_item_fn(self, node);
        }
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        if !self.enter(&node.attrs) {
            return;
        }
        for item in &node.items {
            match item {
                // Method names of a trait are counted where it is declared.
                syn::ImplItem::Fn(function) if node.trait_.is_none() && self.enter(&function.attrs) => {
                    self.functions.push(Name::of(&function.sig.ident));
                }
                syn::ImplItem::Const(constant) if node.trait_.is_none() && self.enter(&constant.attrs) => {
                    self.constants.push(Name::of(&constant.ident));
                    if is_integer(&constant.ty) {
                        self.integers.push(Name::of(&constant.ident));
                    }
                }
                _ => {}
            }
        }
        visit::visit_item_impl(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if self.enter(&node.attrs) {
            self.functions.push(Name::of(&node.sig.ident));
            visit::visit_trait_item_fn(self, node);
        }
    }

    fn visit_field(&mut self, node: &'ast syn::Field) {
        self.enter(&node.attrs);
    }

    fn visit_variant(&mut self, node: &'ast syn::Variant) {
        self.enter(&node.attrs);
        visit::visit_variant(self, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Items {
        Items::read(text).unwrap()
    }

    #[test]
    fn names_outside_of_tests_are_counted_once() {
        let found = items(
            "/// A lease.\nstruct Lease;\nimpl Lease { const MAX: u8 = 1; fn take(&self) {} }\n\
             impl Clone for Lease { fn clone(&self) -> Self { Lease } }\ntrait Port { fn find_run(&self); }\n\
             #[cfg(test)]\nmod tests {\n struct Rig;\n fn rig() {}\n}\n#[test]\nfn alone() {}\n",
        );
        let texts = |names: &[Name]| names.iter().map(|name| name.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&found.types), ["Lease", "Port"]);
        assert_eq!(texts(&found.functions), ["take", "find_run"]);
        assert_eq!(texts(&found.constants), ["MAX"]);
        assert_eq!((texts(&found.docs), found.test_lines), (vec!["A lease.".to_owned()], 4));
    }
}
