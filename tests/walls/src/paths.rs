//! What the text of a module names: its `use` lines, and every path in its code, in attributes and in the arguments of macros too.
//! Doc comments and what is built for tests alone are left out.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

/// `crate::log::Bounds` is `["crate", "log", "Bounds"]`.
pub type Segments = Vec<String>;

/// One name that a `use` line brings in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Import {
    /// As the module calls it: with `as`, the new name.
    pub name: String,
    /// Where it comes from.
    pub path: Segments,
    /// `pub use`, in any width: the name is passed on, and the module itself need not use it.
    pub passed_on: bool,
}

/// `use path::*`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    /// What stands before the star.
    pub path: Segments,
    /// As for [`Import`].
    pub passed_on: bool,
}

/// Collects from items that are visited.
#[derive(Debug, Default)]
pub struct Paths {
    /// Every name of every `use` line, those inside functions included.
    pub imports: Vec<Import>,
    /// Every `use` line that ends in a star.
    pub globs: Vec<Glob>,
    /// Every path in code.
    pub used: BTreeSet<Segments>,
}

impl Paths {
    fn tree(&mut self, tree: &syn::UseTree, before: &Segments, passed_on: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                let mut longer = before.clone();
                longer.push(path.ident.to_string());
                self.tree(&path.tree, &longer, passed_on);
            }
            syn::UseTree::Name(name) => self.import(&name.ident.to_string(), None, before, passed_on),
            syn::UseTree::Rename(rename) => {
                self.import(&rename.ident.to_string(), Some(rename.rename.to_string()), before, passed_on);
            }
            syn::UseTree::Glob(_) => self.globs.push(Glob { path: before.clone(), passed_on }),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before, passed_on)),
        }
    }

    fn import(&mut self, last: &str, renamed: Option<String>, before: &Segments, passed_on: bool) {
        let mut path = before.clone();
        // `use a::{self}` brings in `a`.
        if last != "self" || before.is_empty() {
            path.push(last.to_owned());
        }
        let Some(own) = path.last().cloned() else { return };
        self.imports.push(Import { name: renamed.unwrap_or(own), path, passed_on });
    }

    /// Macros and attributes hold tokens, not syntax: every run of names with `::` between them is taken for a path.
    fn tokens(&mut self, tokens: TokenStream, in_attribute: bool) {
        let mut path = Segments::new();
        let mut before = String::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if before.ends_with("::") && !path.is_empty() {
                        path.push(ident.to_string());
                    } else {
                        self.found(&mut path);
                        // A field or method behind a point, a lifetime, and what is behind `<T>::` or `::` alone name no module of ours.
                        if !(before.ends_with('.') || before.ends_with('\'') || before.ends_with("::")) || before.ends_with("..")
                        {
                            path.push(ident.to_string());
                        }
                    }
                    before.clear();
                }
                TokenTree::Punct(punct) => {
                    before.push(punct.as_char());
                    if !matches!(before.as_str(), ":" | "::") {
                        self.found(&mut path);
                    }
                }
                TokenTree::Group(group) => {
                    self.found(&mut path);
                    before.clear();
                    self.tokens(group.stream(), in_attribute);
                }
                TokenTree::Literal(literal) => {
                    self.found(&mut path);
                    before.clear();
                    if in_attribute {
                        self.literal(&syn::Lit::new(literal));
                    }
                }
            }
        }
        self.found(&mut path);
    }

    /// `#[serde(with = "crate::hex")]`
    fn literal(&mut self, literal: &syn::Lit) {
        if let syn::Lit::Str(text) = literal
            && let Ok(path) = text.parse::<syn::Path>()
        {
            self.visit_path(&path);
        }
    }

    fn found(&mut self, path: &mut Segments) {
        if !path.is_empty() {
            self.used.insert(std::mem::take(path));
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.tree(&item.tree, &Segments::new(), !matches!(item.vis, syn::Visibility::Inherited));
        }
    }

    /// A module has paths of its own.
    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_for_tests(&local.attrs) {
            syn::visit::visit_local(self, local);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_for_tests(&field.attrs) {
            syn::visit::visit_field(self, field);
        }
    }

    /// `pub(super)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.used.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone(), false);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        match &attribute.meta {
            syn::Meta::NameValue(pair) if !pair.path.is_ident("doc") => {
                if let syn::Expr::Lit(literal) = &pair.value {
                    self.literal(&literal.lit);
                }
            }
            syn::Meta::List(list) if !list.path.is_ident("doc") => {
                self.visit_path(&list.path);
                self.tokens(list.tokens.clone(), true);
            }
            syn::Meta::Path(path) => self.visit_path(path),
            _ => {}
        }
    }
}

/// Whether `#[cfg(test)]` or `#[cfg(all(test, …))]` is among them.
#[must_use]
pub fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        attribute.parse_args::<syn::Meta>().is_ok_and(|condition| match condition {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") => {
                list.tokens.into_iter().any(|token| matches!(token, TokenTree::Ident(ident) if ident == "test"))
            }
            _ => false,
        })
    })
}

/// The attributes of any item.
#[must_use]
pub fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::ForeignMod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::TraitAlias(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item has in its module; an `impl` and a `use` have none.
#[must_use]
pub fn name(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::TraitAlias(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
