//! What a scenario acts on.

use crate::{kubectl::Kubectl, place::Place, state::State};

/// What a scenario acts on.
pub(super) struct World {
    pub(super) place: Place,
    pub(super) state: State,
    pub(super) kubectl: Kubectl,
}
