//! Which file uses which.
//!
//! An arrow goes from the file that names something to the file that defines it. A `mod` line is no arrow. A `pub use` is none
//! either: whoever takes a name through it has an arrow to the file where the name is defined. So has the file with the
//! `pub use` where its own code uses the name. To bring in a module is no arrow: what is named through it is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::modules::{Module, Modules};

/// The arrows between the files of one library or program.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Arrows {
    /// By the file that uses, then by the file that is used: what is used.
    pub all: BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>,
}

impl Arrows {
    /// Of these modules.
    #[must_use]
    pub fn of(modules: &Modules) -> Self {
        let mut arrows = Self::default();
        for (index, module) in modules.all.iter().enumerate() {
            for import in module.imports.iter().filter(|import| !import.passed_on) {
                arrows.add(modules, module, Names::of(modules).from(index, &import.path));
            }
            for glob in module.globs.iter().filter(|glob| !glob.passed_on) {
                let all = Names::of(modules).from(index, &glob.path).into_iter();
                arrows.add(modules, module, all.map(|(index, item)| (index, item.or_else(|| Some("*".to_owned())))).collect());
            }
            for path in &module.used {
                arrows.add(modules, module, Names::of(modules).from(index, path));
            }
        }
        arrows
    }

    fn add(&mut self, modules: &Modules, from: &Module, found: Found) {
        for (index, item) in found {
            // Without an item it is a module alone.
            let (Some(to), Some(item)) = (modules.all.get(index), item) else { continue };
            if to.file != from.file {
                let what = ["crate"].into_iter().chain(to.path.iter().map(String::as_str)).chain([item.as_str()]);
                let what = what.collect::<Vec<_>>().join("::");
                self.all.entry(from.file.clone()).or_default().entry(to.file.clone()).or_default().insert(what);
            }
        }
    }

    /// One arrow, to be read.
    #[must_use]
    pub fn shown(&self, from: &Path, to: &Path) -> String {
        let what: Vec<&str> = self.all.get(from).and_then(|all| all.get(to)).into_iter().flatten().map(String::as_str).collect();
        format!("{} → {} ({})", from.display(), to.display(), what.join(", "))
    }
}

/// The places of modules, and what is named in each; without a name it is the module.
type Found = BTreeSet<(usize, Option<String>)>;

/// Finds what a path means, as the compiler does. A path into another crate means nothing here.
struct Names<'a> {
    modules: &'a Modules,
    /// The `use` lines that are being followed, by module and line: none leads through itself, as `use hex::hex` would, and two
    /// modules may bring in everything of each other.
    pending: BTreeSet<(usize, Line)>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Line {
    Import(usize),
    Glob(usize),
}

impl<'a> Names<'a> {
    const fn of(modules: &'a Modules) -> Self {
        Self { modules, pending: BTreeSet::new() }
    }

    fn from(&mut self, module: usize, path: &[String]) -> Found {
        let Some((first, rest)) = path.split_first() else { return Found::from([(module, None)]) };
        match first.as_str() {
            "crate" => self.known(0, rest),
            "self" => self.known(module, rest),
            "super" => self.parent(module).map_or_else(Found::new, |parent| self.known(parent, rest)),
            _ => self.within(module, path),
        }
    }

    fn parent(&self, module: usize) -> Option<usize> {
        self.modules.all.get(module)?.parent
    }

    /// In a crate of ours: what isn't found there is made by a macro, or passed on from another crate.
    fn known(&mut self, module: usize, path: &[String]) -> Found {
        match path.split_first() {
            None => Found::from([(module, None)]),
            Some((first, rest)) if first == "super" => {
                self.parent(module).map_or_else(Found::new, |parent| self.known(parent, rest))
            }
            Some((first, _)) => {
                let found = self.within(module, path);
                if found.is_empty() { Found::from([(module, Some(first.clone()))]) } else { found }
            }
        }
    }

    fn within(&mut self, index: usize, path: &[String]) -> Found {
        let (Some(module), Some((first, rest))) = (self.modules.all.get(index), path.split_first()) else {
            return Found::new();
        };
        let mut found = Found::new();
        let child = module.children.get(first).copied();
        if let Some(child) = child {
            found.extend(self.known(child, rest));
        }
        // A module and a function may have the same name; only the module has something behind it.
        if child.is_none() || rest.is_empty() {
            if module.items.contains(first) {
                found.insert((index, Some(first.clone())));
            }
            for (line, import) in module.imports.iter().enumerate().filter(|(_, import)| import.name == *first) {
                if self.pending.insert((index, Line::Import(line))) {
                    let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
                    found.extend(self.from(index, &path));
                    self.pending.remove(&(index, Line::Import(line)));
                }
            }
        }
        if found.is_empty() {
            for (line, glob) in module.globs.iter().enumerate() {
                if self.pending.insert((index, Line::Glob(line))) {
                    for (from, item) in self.from(index, &glob.path) {
                        if item.is_none() {
                            found.extend(self.within(from, path));
                        }
                    }
                    self.pending.remove(&(index, Line::Glob(line)));
                }
            }
        }
        found
    }
}
