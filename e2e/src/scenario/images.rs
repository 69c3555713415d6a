//! The images: made twice from the same binaries, they are the same to the byte.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use super::World;
use crate::{
    error::{Result, at, wrong},
    process::run,
};

/// `images`.
pub(super) fn reproducible(world: &mut World) -> Result<()> {
    let folder = world.place.run().join("images");
    let _ = fs::remove_dir_all(&folder);
    let [first, second] = ["first", "second"].map(|name| folder.join(name));
    for to in [&first, &second] {
        run(Command::new(world.place.root.join("images/build")).arg("target/debug").arg(to))?;
    }
    let (first, second) = (archives(&first)?, archives(&second)?);
    let differ: Vec<&String> = first.keys().filter(|name| first.get(*name) != second.get(*name)).collect();
    let _ = fs::remove_dir_all(&folder);
    if first.is_empty() || first.len() != second.len() || !differ.is_empty() {
        return wrong(format!("of {} images, made twice from the same binaries, these differ: {differ:?}", first.len()));
    }
    Ok(())
}

/// Name and content.
fn archives(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        let path = entry.path();
        found.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(&path).map_err(at(&path))?);
    }
    Ok(found)
}
