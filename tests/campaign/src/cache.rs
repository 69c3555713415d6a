//! What the watches of an operator have told it: each kind in its order, and each may be behind. What it writes it knows at once, but for what it
//! removes (`operator/src/runtime/kubernetes/cache.rs`). Secrets, PostgreSQL and Kafka are not watched: they are read as they are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use acb_operator::effect::kubernetes::ObjectKey;
use serde_json::Value;

/// An object as it was once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) object: Value,
    /// What orders two versions of it.
    pub(crate) version: u64,
    /// Which one of its name it is: as its UID says.
    pub(crate) made: u64,
}

#[derive(Clone, Debug)]
struct Event {
    key: ObjectKey,
    version: u64,
    /// Nothing: it is gone.
    now: Option<Seen>,
}

type Objects = BTreeMap<ObjectKey, Seen>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    /// As the API server has it.
    there: Objects,
    /// As the process knows it.
    known: Objects,
    /// As a process knows it that wrote nothing.
    told: Objects,
    /// By kind: what the watch has not told yet.
    untold: BTreeMap<String, VecDeque<Event>>,
    /// Kinds that are told nothing.
    pub(crate) behind: BTreeSet<String>,
    count: u64,
}

fn take(objects: &mut Objects, event: &Event) {
    if objects.get(&event.key).is_some_and(|known| known.version >= event.version) {
        return;
    }
    match &event.now {
        Some(now) => drop(objects.insert(event.key.clone(), now.clone())),
        None => drop(objects.remove(&event.key)),
    }
}

impl Cache {
    /// Notes what became otherwise.
    pub(crate) fn note<'a>(&mut self, all: impl Iterator<Item = (ObjectKey, &'a Value)>) {
        let now: BTreeMap<ObjectKey, &Value> = all.collect();
        let gone: Vec<ObjectKey> = self.there.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
        for key in gone {
            self.there.remove(&key);
            self.happened(key, None);
        }
        for (key, object) in now {
            let before = self.there.get(&key);
            if before.is_none_or(|before| before.object != *object) {
                let made = before.map_or(self.count + 1, |before| before.made);
                let seen = Seen { object: object.clone(), version: self.count + 1, made };
                self.there.insert(key.clone(), seen.clone());
                self.happened(key, Some(seen));
            }
        }
    }

    fn happened(&mut self, key: ObjectKey, now: Option<Seen>) {
        self.count += 1;
        self.untold.entry(key.kind.clone()).or_default().push_back(Event { key, version: self.count, now });
    }

    /// The watches tell what there is, but for the kinds that are behind; of those they tell so many changes.
    pub(crate) fn tell(&mut self, of_behind: usize) {
        for (kind, events) in &mut self.untold {
            let most = if self.behind.contains(kind) { of_behind } else { events.len() };
            for event in events.drain(..most.min(events.len())) {
                take(&mut self.known, &event);
                take(&mut self.told, &event);
            }
        }
    }

    /// Nothing is behind any more.
    pub(crate) fn catch_up(&mut self) {
        self.behind.clear();
        self.tell(0);
    }

    /// Another process goes on, that has followed the same watches. What decides most it lists anew (`Watches::list_anew`).
    pub(crate) fn change_leader(&mut self) {
        for kind in ["Tenant", "Agent", "Quota", "Namespace", "Deployment"] {
            for event in self.untold.remove(kind).into_iter().flatten() {
                take(&mut self.told, &event);
            }
        }
        self.known.clone_from(&self.told);
    }

    /// Of a process that was asleep: it knows what it knew, and the API server has what it has now. That is taken from who followed every change of
    /// it: of two looks alone, what was deleted and made again meanwhile would seem to be the one before.
    pub(crate) fn late(self, leading: &Self) -> Self {
        Self { known: self.known, ..leading.clone() }
    }

    /// The API server answered with this object: as it is now. One that went with its last finalizer is known without it.
    pub(crate) fn answered(&mut self, key: &ObjectKey) {
        if let Some(there) = self.there.get(key) {
            self.known.insert(key.clone(), there.clone());
        } else if let Some(known) = self.known.get_mut(key) {
            known.object["metadata"]["finalizers"] = Value::Null;
        }
    }

    pub(crate) fn known(&self, key: &ObjectKey) -> Option<&Seen> {
        self.known.get(key)
    }

    pub(crate) fn there(&self, key: &ObjectKey) -> Option<&Seen> {
        self.there.get(key)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Value)> {
        self.known.iter().map(|(key, seen)| (key, &seen.object))
    }
}
