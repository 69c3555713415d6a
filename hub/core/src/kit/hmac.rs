//! HMAC-SHA-256.

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

/// HMAC-SHA-256 of `data` under `key`.
#[must_use]
pub fn keyed(key: &[u8], data: &[u8]) -> [u8; 32] {
    // HMAC pads or hashes a key of any length; this is the form that can't fail.
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(data);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hmac_is_the_standard_one() {
        // RFC 4231, test cases 1 and 6: a short key, and one longer than a block.
        assert_eq!(
            hex::encode(keyed(&[0x0b; 20], b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let data = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(hex::encode(keyed(&[0xaa; 131], data)), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }
}
