//! Signed notes, as C2SP has them (<https://c2sp.org/signed-note>), with Ed25519.
//!
//! A note is a text, an empty line, and lines of signatures: `— NAME BASE64`, of 4 bytes that name the key and the signature over the text. A key is
//! written as `NAME+HASH+BASE64`: its name, those 4 bytes in hex, and a byte 1 before the 32 bytes of the key.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

const ED25519: u8 = 1;

/// The longest note that is looked at.
const MAX_NOTE: usize = 64 * 1024;

/// Why a note or a key was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It has no form of a key.
    #[error("it is no key: one is NAME+HASH+BASE64, of Ed25519")]
    Key,
    /// It has no form of a note.
    #[error("it is no signed note")]
    Note,
    /// None of the keys has signed it.
    #[error("none of the given keys has signed the note")]
    Unsigned,
    /// One of the keys is said to have signed it, and has not.
    #[error("the signature of {0} is wrong")]
    Signature(String),
}

/// A public key with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: VerifyingKey,
}

impl Verifier {
    /// Of this name, which has no space and no `+`.
    ///
    /// # Errors
    /// Where it is no name.
    pub fn new(name: &str, key: VerifyingKey) -> Result<Self, NoteError> {
        let is_name = !name.is_empty() && !name.contains(|char: char| char.is_whitespace() || char == '+');
        if is_name { Ok(Self { name: name.to_owned(), key }) } else { Err(NoteError::Key) }
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        let hash = Sha256::new().chain_update(&self.name).chain_update([b'\n', ED25519]).chain_update(self.key.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), BASE64_STANDARD.encode(key))
    }
}

impl FromStr for Verifier {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, rest) = text.trim().split_once('+').ok_or(NoteError::Key)?;
        let (id, key) = rest.split_once('+').ok_or(NoteError::Key)?;
        let key = BASE64_STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let Some((&ED25519, key)) = key.split_first() else { return Err(NoteError::Key) };
        let key: [u8; 32] = key.try_into().map_err(|_| NoteError::Key)?;
        let verifier = Self::new(name, VerifyingKey::from_bytes(&key).map_err(|_| NoteError::Key)?)?;
        let is_its = id.len() == 8 && u32::from_str_radix(id, 16) == Ok(u32::from_be_bytes(verifier.id()));
        if is_its { Ok(verifier) } else { Err(NoteError::Key) }
    }
}

/// A key that signs, with its name.
pub struct Signing {
    key: SigningKey,
    verifier: Verifier,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

impl Signing {
    /// Of this name, which has no space and no `+`.
    ///
    /// # Errors
    /// Where it is no name.
    pub fn new(name: &str, key: SigningKey) -> Result<Self, NoteError> {
        let verifier = Verifier::new(name, key.verifying_key())?;
        Ok(Self { key, verifier })
    }

    /// Who verifies what this signs.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The note of a text that ends with a line's end.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut signature = self.verifier.id().to_vec();
        signature.extend(self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", self.verifier.name, BASE64_STANDARD.encode(signature))
    }
}

/// The text of a note that at least one of these keys has signed.
///
/// # Errors
/// Where none has, or a signature of one of them is wrong.
pub fn open<'a>(note: &'a str, verifiers: &[Verifier]) -> Result<&'a str, NoteError> {
    if note.len() > MAX_NOTE {
        return Err(NoteError::Note);
    }
    let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Note)?;
    let text = note.get(..=text.len()).ok_or(NoteError::Note)?;
    let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Note)?;
    let mut signed = false;
    for line in signatures.split('\n') {
        let (name, signature) = line.strip_prefix("\u{2014} ").and_then(|line| line.split_once(' ')).ok_or(NoteError::Note)?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_| NoteError::Note)?;
        let (id, signature) = signature.split_first_chunk::<4>().ok_or(NoteError::Note)?;
        // Keys that nobody knows may sign, too.
        let known = verifiers.iter().find(|verifier| verifier.name == name && verifier.id() == *id);
        if let Some(verifier) = known {
            let wrong = || NoteError::Signature(name.to_owned());
            let signature = Signature::from_slice(signature).map_err(|_| wrong())?;
            verifier.key.verify_strict(text.as_bytes(), &signature).map_err(|_| wrong())?;
            signed = true;
        }
    }
    if signed { Ok(text) } else { Err(NoteError::Unsigned) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The example of <https://pkg.go.dev/golang.org/x/mod/sumdb/note>.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn signing(name: &str, seed: u8) -> Signing {
        Signing::new(name, SigningKey::from_bytes(&[seed; 32])).unwrap()
    }

    #[test]
    fn a_note_of_another_program_is_opened() {
        let peter: Verifier = KEY.parse().unwrap();
        assert_eq!((peter.to_string().as_str(), peter.name()), (KEY, "PeterNeumann"));
        assert!(open(NOTE, std::slice::from_ref(&peter)).unwrap().ends_with("problem is.\n"));
        let changed = NOTE.replacen("answer", "question", 1);
        assert_eq!(open(&changed, &[peter]), Err(NoteError::Signature("PeterNeumann".to_owned())));
    }

    #[test]
    fn a_note_is_opened_by_one_of_its_keys_and_by_no_other() {
        let (one, other) = (signing("example.com/log", 1), signing("example.com/log", 2));
        let note = one.sign("a\nb\n");
        assert_eq!(open(&note, &[other.verifier().clone(), one.verifier().clone()]), Ok("a\nb\n"));
        assert_eq!(open(&note, &[other.verifier().clone()]), Err(NoteError::Unsigned));
        assert_eq!(open(&note, &[]), Err(NoteError::Unsigned));
        let renamed = Signing::new("example.com/else", SigningKey::from_bytes(&[1; 32])).unwrap();
        assert_eq!(open(&note, &[renamed.verifier().clone()]), Err(NoteError::Unsigned));
    }

    #[test]
    fn what_is_no_note_and_no_key_is_refused() {
        let one = signing("k", 1);
        let (note, verifiers) = (one.sign("text\n"), [one.verifier().clone()]);
        for bad in [
            "",
            "\n",
            "\n\n",
            "text\n",
            "text\n\n",
            "text\n\n\n",
            "text\n\nx y z\n",
            "text\n\n\u{2014} k\n",
            "text\n\n\u{2014} k AA==\n",
        ] {
            assert_eq!(open(bad, &verifiers), Err(NoteError::Note), "{bad:?}");
        }
        assert_eq!(open(note.trim_end(), &verifiers), Err(NoteError::Note));
        assert_eq!(open(&format!("{}{note}", "x".repeat(MAX_NOTE)), &verifiers), Err(NoteError::Note));
        let key = one.verifier().to_string();
        for bad in ["", "k", "k+", "k++", "k+00000000+", &key.replacen('k', "j", 1), &key.replace("+A", "+B"), &format!("{key}A")]
        {
            assert!(bad.parse::<Verifier>().is_err(), "{bad}");
        }
        for name in ["", "a b", "a+b"] {
            assert!(Signing::new(name, SigningKey::from_bytes(&[1; 32])).is_err(), "{name}");
        }
    }
}
