//! Checkpoints of a tree, as C2SP has them (<https://c2sp.org/tlog-checkpoint>): the text of a signed note whose lines are the log's name, the tree's size,
//! and its root.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    note::{self, NoteError, Signing, Verifier},
    tree::Hash,
};

/// What a log says of its tree at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many records it has.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note of it.
    #[must_use]
    pub fn sign(&self, key: &Signing) -> String {
        key.sign(&format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(self.root)))
    }

    /// Of a note that one of these keys has signed.
    ///
    /// # Errors
    /// Where none has, or the note is no checkpoint.
    pub fn open(note: &str, verifiers: &[Verifier]) -> Result<Self, NoteError> {
        let mut lines = note::open(note, verifiers)?.lines();
        let mut next = || lines.next().filter(|line| !line.is_empty()).ok_or(NoteError::Note);
        let (origin, size, root) = (next()?.to_owned(), next()?, next()?);
        // One form for each size: no sign, no zeros before it.
        let is_number = size.bytes().all(|byte| byte.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|_| is_number).ok_or(NoteError::Note)?;
        let root = BASE64_STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).ok_or(NoteError::Note)?;
        Ok(Self { origin, size, root })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn what_is_signed_is_opened() {
        let key = Signing::new("example.com/log", SigningKey::from_bytes(&[1; 32])).unwrap();
        let verifiers = [key.verifier().clone()];
        let checkpoint = Checkpoint { origin: "example.com/log".to_owned(), size: 7, root: [9; 32] };
        let note = checkpoint.sign(&key);
        assert!(note.starts_with("example.com/log\n7\nCQkJ"), "{note}");
        assert_eq!(Checkpoint::open(&note, &verifiers).unwrap(), checkpoint);
        let root = BASE64_STANDARD.encode([9; 32]);
        for text in
            ["a\n", "a\n7\n", "a\n07\nX\n", &format!("a\n+7\n{root}\n"), &format!("a\n07\n{root}\n"), "a\n7\nCQkJ\n", "\n7\nx\n"]
        {
            assert_eq!(Checkpoint::open(&key.sign(text), &verifiers), Err(NoteError::Note), "{text:?}");
        }
        // Others may add lines.
        assert_eq!(Checkpoint::open(&key.sign(&format!("a\n7\n{root}\nmore\n")), &verifiers).unwrap().size, 7);
    }
}
