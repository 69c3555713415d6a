//! Payloads that only their recipients can read: how they are made and opened. No I/O. `docs/encryption.md` says the same for other languages.
//!
//! The content has a key of its own (ChaCha20-Poly1305). That key is wrapped for each recipient's public key by HPKE (RFC 9180), mode Auth: DHKEM(X25519,
//! HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. The hash of the sealed content is what each wrapping authenticates: nobody but the sender can put
//! other content beside it, not even another recipient.

use std::fmt;

use acb_proto::v1::{SealedContent, SealedPayload, WrappedKey};
use bytes::Bytes;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::Aead as _};
use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead, kdf::HkdfSha256, kem::X25519HkdfSha256};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::Error;

/// The content type of a sealed payload.
pub const SEALED: &str = "application/vnd.acb.sealed";
/// The only suite that there is.
pub(crate) const SUITE: &str = "X25519-HKDF-SHA256-CHACHA20POLY1305";
const VERSION: u32 = 1;
/// What HPKE's key schedule is told that the keys are for.
const INFO: &[u8] = b"acb sealed payload 1";
const KEY: usize = 32;
const NONCE: usize = 12;
/// Recipients' keys in one payload.
const MOST_KEYS: usize = 8000;

type Kem = X25519HkdfSha256;
type Private = <Kem as hpke::Kem>::PrivateKey;
type Public = <Kem as hpke::Kem>::PublicKey;

/// By what a public key is named: SHA-256 of it.
pub type EncryptionKeyId = [u8; 32];

/// A public key that payloads are sealed for.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicEncryptionKey {
    id: EncryptionKeyId,
    key: Public,
}

impl PublicEncryptionKey {
    /// As RFC 9180 serializes it: 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let key =
            Public::from_bytes(bytes).map_err(|error| Error::Usage(format!("this is no public key of {SUITE}: {error}")))?;
        Ok(Self { id: Sha256::digest(key.to_bytes()).into(), key })
    }

    /// The same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.key.to_bytes().to_vec()
    }

    /// By what it is named.
    #[must_use]
    pub fn id(&self) -> EncryptionKeyId {
        self.id
    }
}

impl fmt::Debug for PublicEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicEncryptionKey({})", shown(&self.id))
    }
}

/// A private key, and the public one that belongs to it. Whoever has it reads what was sealed for the agent, and seals in its name.
#[derive(Clone)]
pub struct EncryptionKey {
    private: Private,
    public: PublicEncryptionKey,
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({})", shown(&self.public.id))
    }
}

impl EncryptionKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        let (private, key) = Kem::gen_keypair();
        let id = Sha256::digest(key.to_bytes()).into();
        Self { private, public: PublicEncryptionKey { id, key } }
    }

    /// One that was kept: 32 bytes, as RFC 9180 serializes a private key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let private =
            Private::from_bytes(bytes).map_err(|error| Error::Usage(format!("this is no private key of {SUITE}: {error}")))?;
        let public = PublicEncryptionKey::from_bytes(&Kem::sk_to_pk(&private).to_bytes())?;
        Ok(Self { private, public })
    }

    /// To be kept, where nobody else reads it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.private.to_bytes().to_vec()
    }

    /// What others seal by.
    #[must_use]
    pub fn public(&self) -> &PublicEncryptionKey {
        &self.public
    }
}

/// What the sender says of a payload beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) content_type: String,
    pub(crate) payload: Bytes,
    pub(crate) from: String,
    pub(crate) purpose: String,
}

/// Seals it for those keys.
pub(crate) fn seal(content: Content, sender: &EncryptionKey, recipients: &[PublicEncryptionKey]) -> Result<Bytes, Error> {
    let failed = |what: &str| Error::Payload(format!("{what} failed"));
    let mut secret = [0; KEY + NONCE];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut secret)
        .map_err(|_| failed("getting random bytes from the system"))?;
    let (key, nonce) = secret.split_at(KEY);
    let Content { content_type, payload, from, purpose } = content;
    let content = SealedContent { content_type, payload, from, purpose }.encode_to_vec();
    let cipher = ChaCha20Poly1305::new_from_slice(key).map_err(|_| failed("sealing"))?;
    let nonce_array = <&chacha20poly1305::Nonce>::try_from(nonce).map_err(|_| failed("sealing"))?;
    let ciphertext = cipher.encrypt(nonce_array, content.as_slice()).map_err(|_| failed("sealing"))?;
    let bound = bound(nonce, &ciphertext);
    let mode = OpModeS::Auth((sender.private.clone(), sender.public.key.clone()));
    let wrap = |recipient: &PublicEncryptionKey| {
        let wrapped = hpke::single_shot_seal::<aead::ChaCha20Poly1305, HkdfSha256, Kem>(&mode, &recipient.key, INFO, key, &bound);
        let (encapsulated, ciphertext) =
            wrapped.map_err(|error| Error::Payload(format!("sealing for {recipient:?}: {error}")))?;
        Ok(WrappedKey {
            recipient_key_id: Bytes::copy_from_slice(&recipient.id),
            encapsulated_key: Bytes::copy_from_slice(&encapsulated.to_bytes()),
            ciphertext: ciphertext.into(),
        })
    };
    let sealed = SealedPayload {
        version: VERSION,
        suite: SUITE.to_owned(),
        sender_key_id: Bytes::copy_from_slice(&sender.public.id),
        keys: recipients.iter().map(wrap).collect::<Result<_, Error>>()?,
        nonce: Bytes::copy_from_slice(nonce),
        ciphertext: ciphertext.into(),
    };
    Ok(sealed.encode_to_vec().into())
}

/// A payload that is to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Sealed(SealedPayload);

impl Sealed {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Error> {
        let sealed = SealedPayload::decode(payload).map_err(|_| damaged("it is no sealed payload"))?;
        if sealed.version != VERSION || sealed.suite != SUITE {
            let why = format!("it is of version {} and suite {:?}, which this SDK does not know", sealed.version, sealed.suite);
            return Err(Error::refused(Code::Unimplemented, "SEALED_VERSION_UNKNOWN", why));
        }
        let is_whole = sealed.sender_key_id.len() == 32 && sealed.nonce.len() == NONCE && sealed.keys.len() <= MOST_KEYS;
        if is_whole { Ok(Self(sealed)) } else { Err(damaged("it is no sealed payload")) }
    }

    /// The key of who says to have sealed it.
    pub(crate) fn sender(&self) -> &[u8] {
        &self.0.sender_key_id
    }

    /// What is in it: where it was sealed for one of these keys, by who has that one.
    pub(crate) fn open(&self, own: &[EncryptionKey], sender: &PublicEncryptionKey) -> Result<Content, Error> {
        let found = self.0.keys.iter().find_map(|wrapped| {
            let key = own.iter().find(|key| key.public.id[..] == wrapped.recipient_key_id[..])?;
            Some((wrapped, key))
        });
        let (wrapped, own) = found.ok_or_else(|| {
            let why = "it was sealed for none of the keys that are here: for another agent, or for a key that was thrown away";
            Error::refused(Code::FailedPrecondition, "NOT_SEALED_FOR_ME", why)
        })?;
        let wrong = || damaged("it was changed, or sealed by another key than it says");
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&wrapped.encapsulated_key).map_err(|_| wrong())?;
        let bound = bound(&self.0.nonce, &self.0.ciphertext);
        let key = hpke::single_shot_open::<aead::ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Auth(sender.key.clone()),
            &own.private,
            &encapsulated,
            INFO,
            &wrapped.ciphertext,
            &bound,
        )
        .map_err(|_| wrong())?;
        let cipher = ChaCha20Poly1305::new_from_slice(&key).map_err(|_| wrong())?;
        let nonce = <&chacha20poly1305::Nonce>::try_from(&self.0.nonce[..]).map_err(|_| wrong())?;
        let content = cipher.decrypt(nonce, &self.0.ciphertext[..]).map_err(|_| wrong())?;
        let SealedContent { content_type, payload, from, purpose } =
            SealedContent::decode(content.as_slice()).map_err(|_| wrong())?;
        Ok(Content { content_type, payload, from, purpose })
    }
}

/// What each wrapping authenticates.
fn bound(nonce: &[u8], ciphertext: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(nonce).chain_update(ciphertext).finalize().into()
}

pub(crate) fn damaged(why: &str) -> Error {
    Error::Damaged(format!("the sealed payload can't be opened: {why}"))
}

fn shown(id: &[u8]) -> String {
    id.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn content() -> Content {
        Content {
            content_type: "text/plain".to_owned(),
            payload: "secret".into(),
            from: "alice".to_owned(),
            purpose: "message plans".to_owned(),
        }
    }

    #[test]
    fn recipients_open_it_and_nobody_else_does() {
        let [alice, bob, carol, eve] = std::array::from_fn(|_| EncryptionKey::generate());
        let sealed = seal(content(), &alice, &[bob.public.clone(), carol.public.clone()]).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        let parsed = Sealed::parse(&sealed).unwrap();
        assert_eq!(parsed.sender(), alice.public.id);
        for own in [&bob, &carol] {
            let kept = EncryptionKey::from_bytes(&own.to_bytes()).unwrap();
            assert_eq!(parsed.open(&[eve.clone(), kept], &alice.public).unwrap(), content());
        }
        let Error::Refused { reason, .. } = parsed.open(std::slice::from_ref(&eve), &alice.public).unwrap_err() else { panic!() };
        assert_eq!(reason, "NOT_SEALED_FOR_ME");
        assert!(matches!(parsed.open(&[bob], &eve.public), Err(Error::Damaged(_))), "another sender");
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let [alice, bob] = std::array::from_fn(|_| EncryptionKey::generate());
        let sealed = seal(content(), &alice, std::slice::from_ref(&bob.public)).unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[place] ^= 1;
            let opened = Sealed::parse(&changed).and_then(|parsed| {
                let is_alices = parsed.sender() == alice.public.id;
                if is_alices { parsed.open(std::slice::from_ref(&bob), &alice.public) } else { Err(damaged("another sender")) }
            });
            assert!(opened.is_err(), "byte {place}");
        }
        for cut in 0..sealed.len() {
            let opened = Sealed::parse(&sealed[..cut]).and_then(|parsed| parsed.open(std::slice::from_ref(&bob), &alice.public));
            assert!(opened.is_err(), "cut to {cut}");
        }
    }

    #[test]
    fn a_recipient_cannot_put_other_content_beside_a_wrapping_for_others() {
        let [alice, bob, carol] = std::array::from_fn(|_| EncryptionKey::generate());
        let sealed = seal(content(), &alice, &[bob.public.clone(), carol.public.clone()]).unwrap();
        let mut forged = SealedPayload::decode(&sealed[..]).unwrap();
        let other = seal(Content { payload: "forged".into(), ..content() }, &bob, std::slice::from_ref(&carol.public)).unwrap();
        let other = SealedPayload::decode(&other[..]).unwrap();
        (forged.nonce, forged.ciphertext) = (other.nonce, other.ciphertext);
        assert!(Sealed::parse(&forged.encode_to_vec()).unwrap().open(&[carol], &alice.public).is_err());
    }

    #[test]
    fn what_every_language_opens_is_opened() {
        let vectors: Value = serde_json::from_str(include_str!("../../vectors/sealed.json")).unwrap();
        let bytes = |value: &Value| hex(value.as_str().unwrap());
        let mut tried = 0;
        for vector in vectors["vectors"].as_array().unwrap() {
            let sender = PublicEncryptionKey::from_bytes(&bytes(&vector["senderPublicKey"])).unwrap();
            let own = EncryptionKey::from_bytes(&bytes(&vector["recipientPrivateKey"])).unwrap();
            let opened = Sealed::parse(&bytes(&vector["sealed"])).and_then(|sealed| sealed.open(&[own], &sender));
            match &vector["content"] {
                Value::Null => assert!(opened.is_err(), "{}", vector["name"]),
                content => {
                    let opened = opened.unwrap();
                    assert_eq!(
                        (opened.content_type.as_str(), opened.from.as_str(), opened.purpose.as_str()),
                        (
                            content["contentType"].as_str().unwrap(),
                            content["from"].as_str().unwrap(),
                            content["purpose"].as_str().unwrap()
                        )
                    );
                    assert_eq!(opened.payload, bytes(&content["payload"]));
                }
            }
            tried += 1;
        }
        assert!(tried >= 5);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|place| u8::from_str_radix(&text[2 * place..2 * place + 2], 16).unwrap()).collect()
    }

    /// Writes the vectors anew: `WRITE_VECTORS=1`. They change with the format alone, and so never within a version.
    #[test]
    fn vectors_are_written_where_that_is_asked_for() {
        if std::env::var_os("WRITE_VECTORS").is_none() {
            return;
        }
        let to_hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let key = |fill: u8| EncryptionKey::from_bytes(&[fill; 32]).unwrap();
        let (alice, bob, carol) = (key(1), key(2), key(3));
        let mut vectors = Vec::new();
        let mut add = |name: &str, sealed: &[u8], own: &EncryptionKey, content: Option<&Content>| {
            let content = content.map(|content| {
                serde_json::json!({"contentType": content.content_type, "from": content.from, "purpose": content.purpose, "payload": to_hex(&content.payload)})
            });
            vectors.push(serde_json::json!({
                "name": name, "senderPublicKey": to_hex(&alice.public.to_bytes()), "recipientPrivateKey": to_hex(&own.to_bytes()),
                "sealed": to_hex(sealed), "content": content,
            }));
        };
        let one = seal(content(), &alice, std::slice::from_ref(&bob.public)).unwrap();
        add("one recipient", &one, &bob, Some(&content()));
        let two = seal(content(), &alice, &[bob.public.clone(), carol.public.clone()]).unwrap();
        add("the first of two recipients", &two, &bob, Some(&content()));
        add("the second of two recipients", &two, &carol, Some(&content()));
        let empty = Content { from: "alice".to_owned(), ..Content::default() };
        add("an empty payload", &seal(empty.clone(), &alice, std::slice::from_ref(&bob.public)).unwrap(), &bob, Some(&empty));
        add("for another recipient", &one, &carol, None);
        let mut changed = SealedPayload::decode(&one[..]).unwrap();
        changed.ciphertext = changed.ciphertext.iter().map(|byte| byte ^ 1).collect::<Vec<_>>().into();
        add("a changed ciphertext", &changed.encode_to_vec(), &bob, None);
        add("by another sender than it says", &seal(content(), &carol, std::slice::from_ref(&bob.public)).unwrap(), &bob, None);
        let mut later = SealedPayload::decode(&one[..]).unwrap();
        later.version = 2;
        add("a later version", &later.encode_to_vec(), &bob, None);
        let text = serde_json::to_string_pretty(&serde_json::json!({"suite": SUITE, "vectors": vectors})).unwrap();
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/sealed.json"), text + "\n").unwrap();
    }
}
