//! The names of the agents that one message is for.

use crate::{fault::Fault, kit::quoted::quoted};

/// Agents that one message can be for at most.
pub const MAX_AGENTS: usize = 64;

/// Names of 2 to [`MAX_AGENTS`] agents, each once, in the order of the alphabet: two lists of the same agents are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentNames(Vec<String>);

impl AgentNames {
    /// These, in any order.
    ///
    /// # Errors
    /// `RECIPIENTS_INVALID` where there are too few or too many, or one is there twice: a list with a repetition is likely not the one that was
    /// meant.
    pub fn new(mut names: Vec<String>) -> Result<Self, Fault> {
        let invalid = |why| Err(Fault::invalid("RECIPIENTS_INVALID", why));
        if !(2..=MAX_AGENTS).contains(&names.len()) {
            return invalid(format!(
                "a message is for 2 to {MAX_AGENTS} agents by name, and {} are named: nothing was sent",
                names.len()
            ));
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => invalid(format!("agent {} is named twice: nothing was sent", quoted(&pair[0]))),
            None => Ok(Self(names)),
        }
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(names: &[&str]) -> Result<AgentNames, Fault> {
        AgentNames::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn the_same_agents_are_the_same_list() {
        assert_eq!(names(&["b", "a"]).unwrap(), names(&["a", "b"]).unwrap());
        assert_eq!(names(&["b", "a"]).unwrap().iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn too_few_too_many_and_repetitions_are_refused() {
        for (list, why) in [(&[][..], "0 are named"), (&["a"], "1 are named"), (&["b", "a", "b"], "\"b\" is named twice")] {
            let fault = names(list).unwrap_err();
            assert_eq!(fault.reason, "RECIPIENTS_INVALID");
            assert!(fault.message.contains(why), "{}", fault.message);
        }
        let many = |count: usize| AgentNames::new((0..count).map(|number| number.to_string()).collect());
        assert_eq!(many(MAX_AGENTS).unwrap().count(), MAX_AGENTS);
        assert!(many(MAX_AGENTS + 1).is_err());
    }
}
