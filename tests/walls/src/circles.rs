//! Circles of files: each of them can be reached from each other one, so that none can be understood, moved or tested alone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::arrows::Arrows;

/// Every circle, each with all its files.
#[must_use]
pub fn circles(arrows: &Arrows) -> Vec<BTreeSet<PathBuf>> {
    let mut circles: Vec<BTreeSet<PathBuf>> = Vec::new();
    for file in arrows.all.keys() {
        if !circles.iter().any(|circle| circle.contains(file)) {
            let circle: BTreeSet<PathBuf> =
                reached(arrows, file).into_iter().filter(|other| reached(arrows, other).contains(file)).collect();
            if circle.len() > 1 {
                circles.push(circle);
            }
        }
    }
    circles
}

/// The arrows inside a circle, one a line.
#[must_use]
pub fn shown(arrows: &Arrows, circle: &BTreeSet<PathBuf>) -> String {
    let inside = circle.iter().flat_map(|from| {
        let used = arrows.all.get(from).into_iter().flatten().map(|(to, _)| to).filter(|to| circle.contains(*to));
        used.map(|to| arrows.shown(from, to))
    });
    format!("a circle of {} files:\n  {}", circle.len(), inside.collect::<Vec<_>>().join("\n  "))
}

/// What a file uses, and what that uses, and so on. The file itself is among them only where a way leads back to it.
fn reached(arrows: &Arrows, file: &Path) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![file];
    while let Some(file) = pending.pop() {
        for next in arrows.all.get(file).into_iter().flatten().map(|(next, _)| next) {
            if reached.insert(next.clone()) {
                pending.push(next);
            }
        }
    }
    reached
}
