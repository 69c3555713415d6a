//! The tree of modules of one library or program, by its `mod` lines, and what is in each module.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use crate::{
    graph::Problem,
    items::{Declared, Item, items},
    paths::{Glob, Import, Paths, Segments},
    tokens::{self, Tree},
};

/// Where texts come from: the disk, or a test.
pub trait Texts {
    /// The text of a file, or nothing where there is no such file.
    ///
    /// # Errors
    /// Where there is one and it can't be read.
    fn text(&self, file: &Path) -> io::Result<Option<String>>;
}

/// Files as they are.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Texts for Disk {
    fn text(&self, file: &Path) -> io::Result<Option<String>> {
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Some(text)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// A module: a file, or a part of one in braces.
#[derive(Debug)]
pub struct Module {
    /// Its names from the root on; the root has none.
    pub path: Segments,
    /// The file that its text is in.
    pub file: PathBuf,
    /// The module that it is declared in.
    pub parent: Option<usize>,
    /// The modules that it declares, by their places in [`Modules`].
    pub children: BTreeMap<String, usize>,
    /// The names of what it defines.
    pub items: BTreeSet<String>,
    /// What its `use` lines bring in.
    pub imports: Vec<Import>,
    /// What its `use` lines with a star bring in.
    pub globs: Vec<Glob>,
    /// The paths in its code.
    pub used: BTreeSet<Segments>,
}

/// All modules of one library or program. The first is the root.
#[derive(Debug, Default)]
pub struct Modules {
    /// In the order of their declaration.
    pub all: Vec<Module>,
}

impl Modules {
    /// From the first file on. A module that is built for tests alone is not among them.
    ///
    /// # Errors
    /// Where a file is missing or its brackets don't match.
    pub fn read(texts: &dyn Texts, root: &Path) -> Result<Self, Problem> {
        let mut modules = Self::default();
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        modules.read_file(texts, root, &folder, Segments::new(), None)?;
        Ok(modules)
    }

    fn read_file(
        &mut self,
        texts: &dyn Texts,
        file: &Path,
        folder: &Path,
        path: Segments,
        parent: Option<usize>,
    ) -> Result<usize, Problem> {
        let text = texts.text(file)?.ok_or_else(|| format!("{} is not there", file.display()))?;
        let trees = tokens::read(&text).map_err(|problem| format!("{}: {problem}", file.display()))?;
        self.read_items(texts, &trees, file, folder, path, parent)
    }

    fn read_items(
        &mut self,
        texts: &dyn Texts,
        trees: &[Tree],
        file: &Path,
        folder: &Path,
        path: Segments,
        parent: Option<usize>,
    ) -> Result<usize, Problem> {
        let mut items = items(trees);
        items.retain(|item| !item.is_for_tests);
        let mut found = Paths::default();
        for item in &items {
            match item.used() {
                Some(used) => found.add_use(used, item.is_visible),
                // A module has paths of its own.
                None if item.declared().is_some() => {}
                None => found.add_code(item.trees),
            }
        }
        let index = self.all.len();
        self.all.push(Module {
            path: path.clone(),
            file: file.to_owned(),
            parent,
            children: BTreeMap::new(),
            items: items.iter().filter_map(Item::name).map(str::to_owned).collect(),
            imports: found.imports,
            globs: found.globs,
            used: found.used,
        });
        for (name, declared) in items.iter().filter_map(Item::declared) {
            let path: Segments = path.iter().map(String::as_str).chain([name]).map(str::to_owned).collect();
            let folder = folder.join(name);
            let child = match declared {
                Declared::Braces(trees) => self.read_items(texts, trees, file, &folder, path, Some(index))?,
                Declared::File => {
                    let flat = folder.with_extension("rs");
                    let file = if texts.text(&flat)?.is_some() { flat } else { folder.join("mod.rs") };
                    self.read_file(texts, &file, &folder, path, Some(index))?
                }
            };
            if let Some(module) = self.all.get_mut(index) {
                module.children.insert(name.to_owned(), child);
            }
        }
        Ok(index)
    }
}
