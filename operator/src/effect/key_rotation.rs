//! The keys of a hub, rotated: what signs next, what signs until every replica knows that, and whose tokens are taken meanwhile. Pure, apart from
//! what is drawn.

use rcgen::KeyPair;
use time::{Duration, OffsetDateTime};

use super::{
    EffectError, SecretData,
    key_material::{signing_key, unmade},
};
use crate::plan::SecretRef;

/// Tokens of a key that was replaced are taken for so long: their hour, and what it takes until every replica signs with the new one.
const PREVIOUS_KEY_LIFE: Duration = Duration::hours(2);
/// The key before signs for so long, so that no replica is shown what a new key signed before it knows that key: as long as a hub needs to roll.
const NEW_KEY_SIGNS_AFTER: Duration = Duration::minutes(15);
/// So many replaced keys are kept. With more rotations within [`PREVIOUS_KEY_LIFE`] the oldest tokens are refused before their time.
const MOST_REPLACED: usize = 16;
/// How a public key ends, as PEM.
const PUBLIC_KEY_END: &str = "-----END PUBLIC KEY-----";

/// A key that was replaced: its public half as PEM, and until when its tokens are taken (Unix seconds).
struct Replaced {
    public: String,
    until: i64,
}

/// The Secret that follows this one.
pub(super) fn rotated(before: &SecretData, of: &SecretRef, now: OffsetDateTime) -> Result<SecretData, EffectError> {
    let (from, until) = ((now + NEW_KEY_SIGNS_AFTER).unix_timestamp(), (now + PREVIOUS_KEY_LIFE).unix_timestamp());
    let newest = before.text(of, "signing.key")?;
    let signer = signer(before, of, now)?;
    let mut replaced = vec![Replaced { public: public_half(signer)?, until }];
    // Replicas that still have the Secret before sign by its key as soon as that one's time comes.
    replaced.push(Replaced { public: public_half(newest)?, until });
    replaced.extend(replaced_before(before, of)?.into_iter().filter(|key| key.until > now.unix_timestamp()));
    let mut kept: Vec<Replaced> = Vec::new();
    for key in replaced {
        if kept.len() < MOST_REPLACED && kept.iter().all(|other| other.public != key.public) {
            kept.push(key);
        }
    }
    let publics: String = kept.iter().map(|key| format!("{}\n", key.public)).collect();
    let untils: Vec<String> = kept.iter().map(|key| key.until.to_string()).collect();
    // Without the pepper every API key would have to be made anew; with another refresh key what a sender repeats would not be
    // known as the same.
    Ok(SecretData::new()
        .with("signing.key", signing_key()?.as_bytes())
        .with("audit.key", signing_key()?.as_bytes())
        .with("signing.from", from.to_string())
        .with("signing.previous.key", signer)
        .with("signing.previous.pub", publics)
        .with("signing.previous.until", untils.join("\n"))
        .with("pepper", before.bytes(of, "pepper")?)
        .with("refresh.key", before.bytes(of, "refresh.key")?))
}

/// The key (PEM) that signs at this time by the Secret before. Where the newest one does not sign yet, some replicas may not know it: the one that
/// signs in its place goes on.
fn signer<'a>(before: &'a SecretData, of: &SecretRef, now: OffsetDateTime) -> Result<&'a str, EffectError> {
    let is_to_come = match before.get("signing.from") {
        Some(_) => before.text(of, "signing.from")?.trim().parse::<i64>().is_ok_and(|from| now.unix_timestamp() < from),
        None => false,
    };
    match before.get("signing.previous.key") {
        Some(_) if is_to_come => before.text(of, "signing.previous.key"),
        _ => before.text(of, "signing.key"),
    }
}

/// The replaced keys that the Secret before has, the newest first.
fn replaced_before(before: &SecretData, of: &SecretRef) -> Result<Vec<Replaced>, EffectError> {
    let text = |key| if before.get(key).is_some() { before.text(of, key) } else { Ok("") };
    let (publics, untils) = (text("signing.previous.pub")?, text("signing.previous.until")?);
    let publics = publics.split_inclusive(PUBLIC_KEY_END).map(str::trim).filter(|public| !public.is_empty());
    let untils = untils.lines().filter_map(|until| until.trim().parse().ok());
    Ok(publics.zip(untils).map(|(public, until)| Replaced { public: public.to_owned(), until }).collect())
}

fn public_half(pem: &str) -> Result<String, EffectError> {
    let key = KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ED25519).map_err(unmade)?;
    Ok(key.public_key_pem().trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn reference() -> SecretRef {
        SecretRef { namespace: "acbhub-acme".into(), name: "hub-keys".into(), generation: 1 }
    }

    fn drawn() -> SecretData {
        SecretData::new()
            .with("signing.key", signing_key().unwrap().as_bytes())
            .with("pepper", [1; 32].as_slice())
            .with("refresh.key", [2; 32].as_slice())
    }

    fn after(minutes: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::minutes(minutes)
    }

    fn text<'a>(data: &'a SecretData, key: &str) -> &'a str {
        data.text(&reference(), key).unwrap()
    }

    fn public(data: &SecretData) -> String {
        public_half(text(data, "signing.key")).unwrap()
    }

    /// Whose tokens are taken, and until which minute.
    fn taken(data: &SecretData) -> Vec<(String, i64)> {
        let found = replaced_before(data, &reference()).unwrap();
        found.into_iter().map(|key| (key.public, key.until / 60)).collect()
    }

    #[test]
    fn the_key_before_signs_until_each_replica_knows_the_new_one() {
        let first = drawn();
        let second = rotated(&first, &reference(), after(0)).unwrap();
        assert_eq!(text(&second, "signing.previous.key"), text(&first, "signing.key"));
        assert_eq!(text(&second, "signing.from"), (15 * 60).to_string());
        assert_eq!(taken(&second), [(public(&first), 120)]);
    }

    #[test]
    fn two_rotations_soon_after_each_other_refuse_nobodys_tokens() {
        let first = drawn();
        let second = rotated(&first, &reference(), after(0)).unwrap();
        let third = rotated(&second, &reference(), after(10)).unwrap();
        // The second key has signed nothing: what signs is what every replica knows. Replicas of the second Secret sign by its key from minute 15 on.
        assert_eq!(text(&third, "signing.previous.key"), text(&first, "signing.key"));
        assert_eq!(text(&third, "signing.from"), (25 * 60).to_string());
        assert_eq!(taken(&third), [(public(&first), 130), (public(&second), 130)]);
    }

    #[test]
    fn tokens_of_every_key_are_taken_until_their_end() {
        let first = drawn();
        let second = rotated(&first, &reference(), after(0)).unwrap();
        let third = rotated(&second, &reference(), after(60)).unwrap();
        assert_eq!(text(&third, "signing.previous.key"), text(&second, "signing.key"));
        assert_eq!(taken(&third), [(public(&second), 180), (public(&first), 120)]);
        let fourth = rotated(&third, &reference(), after(121)).unwrap();
        assert_eq!(taken(&fourth), [(public(&third), 241), (public(&second), 180)], "the first one's are over");
    }

    #[test]
    fn however_often_it_is_rotated_few_keys_are_kept_and_the_one_that_signs_among_them() {
        let first = drawn();
        let last = (0..40).fold(first.clone(), |before, _| rotated(&before, &reference(), after(1)).unwrap());
        assert_eq!(taken(&last).len(), MOST_REPLACED);
        assert_eq!((text(&last, "signing.previous.key"), &taken(&last)[0].0), (text(&first, "signing.key"), &public(&first)));
    }
}
