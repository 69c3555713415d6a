//! What was read of one system, or why it could not be.

use crate::effect::EffectError;

/// One system, as far as it answered. A system that is away stops only the steps that need it.
#[derive(Clone, Debug)]
pub enum Read<T> {
    /// What it holds.
    Known(T),
    /// It did not answer, or refused to.
    Away(EffectError),
}

impl<T> Read<T> {
    /// What it holds; `None` while it is away.
    #[must_use]
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Away(_) => None,
        }
    }

    /// As [`known`](Self::known), to be changed.
    #[must_use]
    pub fn known_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Away(_) => None,
        }
    }

    /// Why it is away.
    #[must_use]
    pub fn away(&self) -> Option<&EffectError> {
        match self {
            Self::Known(_) => None,
            Self::Away(why) => Some(why),
        }
    }
}

impl<T: Default> Default for Read<T> {
    fn default() -> Self {
        Self::Known(T::default())
    }
}

impl<T> From<Result<T, EffectError>> for Read<T> {
    fn from(result: Result<T, EffectError>) -> Self {
        match result {
            Ok(known) => Self::Known(known),
            Err(why) => Self::Away(why),
        }
    }
}
