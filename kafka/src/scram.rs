//! SCRAM-SHA-512 (RFC 5802), the client's side, without channel binding: Kafka has none.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

/// Fewer would make an intercepted exchange cheap to search; many more would let a false server keep this one busy. Kafka stores at most 16,384.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=65_536;

/// What a server keeps instead of a password, and what a client proves that it knows.
#[must_use]
pub fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 64]> {
    let mut salted = Zeroizing::new([0; 64]);
    pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, salted.as_mut());
    salted
}

/// An exchange under way.
pub(crate) struct Exchange {
    password: Zeroizing<Vec<u8>>,
    first: String,
    nonce: String,
    server_signature: Vec<u8>,
}

impl Exchange {
    /// `nonce` must be random.
    pub(crate) fn new(username: &str, password: &[u8], nonce: &str) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        let password = Zeroizing::new(password.to_vec());
        Self { password, first: format!("n={username},r={nonce}"), nonce: nonce.to_owned(), server_signature: Vec::new() }
    }

    pub(crate) fn first_message(&self) -> String {
        format!("n,,{}", self.first)
    }

    /// The proof, from the server's first message, and what is to be checked of its last one. `None` where that is not what a server says. The hash is made
    /// slow on purpose: it is computed where it holds up no other task.
    pub(crate) async fn prove(mut self, server_first: String) -> Option<(Self, String)> {
        let proving = tokio::task::spawn_blocking(move || {
            let proof = self.final_message(&server_first)?;
            Some((self, proof))
        });
        proving.await.ok().flatten()
    }

    /// The proof, from the server's first message. `None` where that is not what a server says.
    fn final_message(&mut self, server_first: &str) -> Option<String> {
        let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let nonce = field("r").filter(|nonce| nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce))?;
        let salt = STANDARD.decode(field("s")?).ok()?;
        let iterations = field("i")?.parse().ok().filter(|iterations| ITERATIONS.contains(iterations))?;

        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = hmac(salted.as_ref(), b"Client Key")?;
        let without_proof = format!("c=biws,r={nonce}");
        let exchange = format!("{},{server_first},{without_proof}", self.first);
        let signature = hmac(&Sha512::digest(&client_key), exchange.as_bytes())?;
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
        self.server_signature = hmac(&hmac(salted.as_ref(), b"Server Key")?, exchange.as_bytes())?;
        Some(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server knows the password too.
    pub(crate) fn server_is_true(&self, server_final: &str) -> bool {
        let signature = server_final.strip_prefix("v=").and_then(|text| STANDARD.decode(text).ok());
        !self.server_signature.is_empty() && signature.as_deref() == Some(&self.server_signature)
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_false_servers_messages_are_refused() {
        let mut exchange = Exchange::new("a,b=c", b"secret", "nonce");
        assert_eq!(exchange.first_message(), "n,,n=a=2Cb=3Dc,r=nonce");
        for bad in [
            "r=other,s=c2FsdA==,i=4096",
            "r=nonce,s=c2FsdA==,i=4096",
            "r=nonceX,s=c2FsdA==,i=1",
            "r=nonceX,s=c2FsdA==,i=65537",
            "r=nonceX,s=!,i=4096",
            "",
        ] {
            assert_eq!(exchange.final_message(bad), None, "{bad}");
        }
        assert!(!exchange.server_is_true("v="));
        assert!(exchange.final_message("r=nonceX,s=c2FsdA==,i=4096").is_some());
        assert!(!exchange.server_is_true("v=AAAA"));
    }

    #[tokio::test]
    async fn a_login_holds_up_no_other_task() {
        let exchange = Exchange::new("a", b"secret", "nonce");
        let mut proving = std::pin::pin!(exchange.prove("r=nonceX,s=c2FsdA==,i=65536".to_owned()));
        let mut turns = 0_u32;
        let proved = loop {
            tokio::select! {
                biased;
                proved = &mut proving => break proved,
                () = tokio::task::yield_now() => turns += 1,
            }
        };
        assert!(proved.is_some_and(|(exchange, _)| !exchange.server_is_true("v=AAAA")));
        assert!(turns > 0, "others had their turn meanwhile");
    }
}
