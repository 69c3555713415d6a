//! SCRAM-SHA-256 verifiers, as PostgreSQL stores them (RFC 5803): it gets these and never a password.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

const ITERATIONS: u32 = 4096;

/// A verifier of this password, with a new salt. The password must be ASCII: it is not normalised.
///
/// # Errors
/// Where the system gives no random numbers.
pub fn scram_verifier(password: &str) -> Result<String, getrandom::Error> {
    let mut salt = [0u8; 16];
    getrandom::fill(&mut salt)?;
    Ok(verifier(password, &salt))
}

fn verifier(password: &str, salt: &[u8]) -> String {
    let mut salted = [0u8; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, ITERATIONS, &mut salted);
    let stored_key = Sha256::digest(keyed(&salted, b"Client Key"));
    let server_key = keyed(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

fn keyed(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length, so that this is never the default.
    Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(text).finalize().into_bytes().into()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_shape_that_postgresql_takes_and_a_new_salt_each_time() {
        let one = scram_verifier("secret").unwrap();
        assert!(one.starts_with("SCRAM-SHA-256$4096:"));
        assert_eq!(one.len(), "SCRAM-SHA-256$4096:".len() + 24 + 1 + 44 + 1 + 44);
        assert_ne!(one, scram_verifier("secret").unwrap());
    }
}
