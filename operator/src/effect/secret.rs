//! Makes what is in a Secret. The only place where the operator draws keys and passwords; what it made is never drawn again,
//! because the effect never overwrites a Secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use acb_crds::names::TenantId;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    EffectError, SecretData, SecretReader,
    key_material::{random, signing_key, unmade},
    key_rotation,
};
use crate::plan::SecretContent;

const AUTHORITY_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(90);
/// A leaf of this age is replaced: there is a month for what goes wrong with that.
const LEAF_REPLACED: Duration = Duration::days(60);
/// Earlier or later by so much, by the tenant: those whose leaves were made on one day don't all roll on one day.
const LEAF_JITTER: Duration = Duration::days(5);
/// A leaf of this age waits for no turn: its replacement was due for ten days.
const LEAF_OVERDUE: Duration = Duration::days(75);
/// Certificates are valid from a little earlier, for clocks that are behind ours.
const CLOCK_SKEW: Duration = Duration::hours(1);
/// Draws the content of a Secret; `secrets` gives the authority that signs a leaf.
pub async fn generate(content: &SecretContent, secrets: &dyn SecretReader) -> Result<SecretData, EffectError> {
    match content {
        SecretContent::CertificateAuthority { common_name } => authority(common_name),
        SecretContent::TlsLeaf { authority, names } => {
            let ca = secrets.read(authority).await?;
            leaf(ca.text(authority, "ca.crt")?, ca.text(authority, "ca.key")?, names)
        }
        SecretContent::HubKeys => Ok(SecretData::new()
            .with("signing.key", signing_key()?.as_bytes())
            .with("audit.key", signing_key()?.as_bytes())
            .with("pepper", random()?.as_slice())
            .with("refresh.key", random()?.as_slice())),
        SecretContent::RotatedHubKeys { previous } => {
            key_rotation::rotated(&secrets.read(previous).await?, previous, OffsetDateTime::now_utc())
        }
        SecretContent::Login { username, authorities } => {
            let login = SecretData::new()
                .with("username", username.as_str())
                .with("password", BASE64_URL_SAFE_NO_PAD.encode(random()?.as_slice()));
            Ok(match authorities {
                Some(authorities) => login.with("ca.crt", authorities.as_str()),
                None => login,
            })
        }
        SecretContent::ApiKey { .. } => {
            let prefix = hex::encode(&random()?[..6]);
            Ok(SecretData::new().with("api-key", format!("acb_{prefix}_{}", BASE64_URL_SAFE_NO_PAD.encode(random()?.as_slice()))))
        }
    }
}

/// Whether a tenant's leaf that was made then (RFC 3339) is to be replaced. One of unknown age is not.
pub(crate) fn is_leaf_old(made: &str, id: TenantId, now: OffsetDateTime) -> bool {
    OffsetDateTime::parse(made, &Rfc3339).is_ok_and(|made| now - made >= LEAF_REPLACED + jitter(id))
}

/// Whether a leaf that was made then is to be replaced without waiting for a turn.
pub(crate) fn is_leaf_overdue(made: &str, now: OffsetDateTime) -> bool {
    OffsetDateTime::parse(made, &Rfc3339).is_ok_and(|made| now - made >= LEAF_OVERDUE)
}

/// From `-LEAF_JITTER` to `LEAF_JITTER`, always the same of one tenant.
fn jitter(id: TenantId) -> Duration {
    let [high, low, ..] = id.bytes();
    let part = i64::from(u16::from_be_bytes([*high, *low]));
    Duration::seconds(2 * LEAF_JITTER.whole_seconds() * part / i64::from(u16::MAX)) - LEAF_JITTER
}

fn params(common_name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + life;
    params
}

fn authority(common_name: &str) -> Result<SecretData, EffectError> {
    let key = KeyPair::generate().map_err(unmade)?;
    let mut params = params(common_name, AUTHORITY_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(unmade)?;
    Ok(SecretData::new().with("ca.crt", certificate.pem()).with("ca.key", key.serialize_pem()))
}

fn leaf(ca_certificate: &str, ca_key: &str, names: &[String]) -> Result<SecretData, EffectError> {
    let issuer = Issuer::from_ca_cert_pem(ca_certificate, KeyPair::from_pem(ca_key).map_err(unmade)?).map_err(unmade)?;
    let key = KeyPair::generate().map_err(unmade)?;
    let mut params = params(names.first().map_or("hub", String::as_str), LEAF_LIFE);
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(unmade)?),
        });
    }
    // A port-forward and the standalone runtime both come by loopback.
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        push_new(&mut params.subject_alt_names, SanType::IpAddress(address));
    }
    push_new(&mut params.subject_alt_names, SanType::DnsName("localhost".try_into().map_err(unmade)?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(unmade)?;
    Ok(SecretData::new().with("tls.crt", certificate.pem()).with("tls.key", key.serialize_pem()).with("ca.crt", ca_certificate))
}

fn push_new(names: &mut Vec<SanType>, name: SanType) {
    if !names.contains(&name) {
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use async_trait::async_trait;

    use super::*;
    use crate::plan::SecretRef;

    struct One(SecretData);

    #[async_trait]
    impl SecretReader for One {
        async fn read(&self, _: &SecretRef) -> Result<SecretData, EffectError> {
            Ok(self.0.clone())
        }
    }

    fn reference() -> SecretRef {
        SecretRef { namespace: "acb-system".into(), name: "ca-acme".into(), generation: 1 }
    }

    #[tokio::test]
    async fn a_leaf_carries_its_names_and_loopback() {
        let none = One(SecretData::new());
        let ca = generate(&SecretContent::CertificateAuthority { common_name: "acme".into() }, &none).await.unwrap();
        let content =
            SecretContent::TlsLeaf { authority: reference(), names: vec!["hub.acbhub-acme.svc".into(), "127.0.0.1".into()] };
        let leaf = generate(&content, &One(ca.clone())).await.unwrap();
        assert_eq!(leaf.get("ca.crt"), ca.get("ca.crt"));
        assert!(leaf.get("ca.key").is_none());
        let der = rustls_pki_types::pem::PemObject::from_pem_slice(leaf.get("tls.crt").unwrap());
        let der: rustls_pki_types::CertificateDer<'_> = der.unwrap();
        let text = String::from_utf8_lossy(&der).into_owned();
        assert!(text.contains("hub.acbhub-acme.svc") && text.contains("localhost"), "{text}");
    }

    #[test]
    fn a_leaf_is_replaced_long_before_it_ends() {
        let made = "2026-01-01T00:00:00Z";
        let after = |days| OffsetDateTime::parse(made, &Rfc3339).unwrap() + Duration::days(days);
        let id = |start: &str| TenantId::from_hex(&format!("{start}{}", "0".repeat(16))).unwrap();
        for (start, days) in [("0000", 55), ("8000", 60), ("ffff", 65)] {
            let old = |days| is_leaf_old(made, id(start), after(days));
            assert!(!old(days - 1) && old(days + 1), "{start}");
        }
        assert!(LEAF_REPLACED + LEAF_JITTER + Duration::days(25) <= LEAF_LIFE);
        assert!(!is_leaf_old("", id("0000"), after(1000)), "of unknown age");
        assert!(!is_leaf_overdue(made, after(74)) && is_leaf_overdue(made, after(76)) && !is_leaf_overdue("", after(1000)));
        assert!(LEAF_REPLACED + LEAF_JITTER < LEAF_OVERDUE && LEAF_OVERDUE < LEAF_LIFE);
    }

    #[test]
    fn leaves_that_were_made_on_one_day_are_replaced_on_many() {
        let days: std::collections::BTreeSet<i64> =
            (0..1_000).map(|number| jitter(TenantId::from_uid(&format!("uid-{number}"))).whole_days()).collect();
        assert!(days.len() >= 9 && days.first() >= Some(&-5) && days.last() <= Some(&5), "{days:?}");
    }

    #[tokio::test]
    async fn keys_have_their_forms() {
        let none = One(SecretData::new());
        let keys = generate(&SecretContent::HubKeys, &none).await.unwrap();
        assert_eq!(keys.get("pepper").unwrap().len(), 32);
        assert_eq!(keys.get("refresh.key").unwrap().len(), 32);
        let pem = std::str::from_utf8(keys.get("signing.key").unwrap()).unwrap();
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ED25519).expect("an Ed25519 key in PKCS#8");

        let key = generate(&SecretContent::ApiKey { authority: reference() }, &none).await.unwrap();
        let key = key.text(&reference(), "api-key").unwrap().to_owned();
        let parts: Vec<&str> = key.splitn(3, '_').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("acb", 12, 43), "{key}");
        assert!(crate::effect::seal::is_api_key(&key), "{key}");
    }

    #[tokio::test]
    async fn keys_are_rotated_apart_from_what_outlives_them() {
        let first = generate(&SecretContent::HubKeys, &One(SecretData::new())).await.unwrap();
        let rotated = generate(&SecretContent::RotatedHubKeys { previous: reference() }, &One(first.clone())).await.unwrap();
        for kept in ["pepper", "refresh.key"] {
            assert_eq!(rotated.get(kept), first.get(kept));
        }
        for drawn in ["signing.key", "audit.key"] {
            assert_ne!(rotated.get(drawn), first.get(drawn));
        }
    }

    #[tokio::test]
    async fn debug_shows_no_secret() {
        let none = One(SecretData::new());
        let login = generate(&SecretContent::Login { username: "acb_t_x".into(), authorities: None }, &none).await.unwrap();
        assert_eq!(format!("{login:?}"), r#"{"password", "username"}"#);
    }
}
