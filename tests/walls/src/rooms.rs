//! Rooms of a crate: its modules at the top, and the order in which they may use each other.

use std::collections::BTreeMap;

use crate::{arrows::Arrows, modules::Modules};

/// The rooms of a crate, from the ground up. A room may use the rooms of the floors below its own, and no other.
#[derive(Clone, Copy, Debug)]
pub struct Rooms {
    /// The crate's package.
    pub package: &'static str,
    /// The lowest floor first.
    pub floors: &'static [&'static [&'static str]],
}

impl Rooms {
    fn floor(&self, room: &str) -> Option<usize> {
        self.floors.iter().position(|floor| floor.contains(&room))
    }

    /// What is against the order, one a line: arrows, modules that are in no room, rooms that are not there. The root of the crate
    /// declares the rooms and is above them all: it may use each, and none may use it.
    #[must_use]
    pub fn breaches(&self, modules: &Modules, arrows: &Arrows) -> Vec<String> {
        let rooms: BTreeMap<_, _> = modules.all.iter().map(|module| (&module.file, module.path.first())).collect();
        let names: Vec<&String> = modules.all.first().into_iter().flat_map(|root| root.children.keys()).collect();
        let mut breaches: Vec<String> = names
            .iter()
            .filter(|name| self.floor(name).is_none())
            .map(|name| format!("{}: `{name}` is in no room", self.package))
            .collect();
        let all = self.floors.iter().flat_map(|floor| floor.iter());
        let missing = all.filter(|room| !names.iter().any(|name| name == *room));
        breaches.extend(missing.map(|room| format!("{}: there is no room `{room}`", self.package)));
        for (from, used) in &arrows.all {
            for to in used.keys() {
                let (Some(Some(room)), Some(other)) = (rooms.get(from), rooms.get(to)) else { continue };
                let allowed = match other {
                    Some(other) => room == other || self.floor(other) < self.floor(room),
                    None => false,
                };
                if !allowed {
                    breaches.push(arrows.shown(from, to));
                }
            }
        }
        breaches
    }
}
