//! The cluster's certificates, and the kubeconfigs that hold them.

use std::{net::IpAddr, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::{
    error::Result,
    place::{Place, write_private},
};

/// Who signs.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM. Without `Debug`.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Leaf {
    /// Writes `<name>.crt` and `<name>.key` into a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        write_private(&folder.join(format!("{name}.crt")), &self.certificate)?;
        write_private(&folder.join(format!("{name}.key")), &self.key)
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = subject(name, None);
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// For who calls: Kubernetes takes the common name for the user, the organisation for a group.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Leaf> {
        self.leaf(Vec::new(), user, group)
    }

    /// For who is called, by these names and addresses; usable as a client's as well, since etcd calls itself with it.
    pub(crate) fn server(&self, name: &str, names: &[&str], addresses: &[IpAddr]) -> Result<Leaf> {
        let names = names.iter().map(|name| (*name).to_owned()).chain(addresses.iter().map(ToString::to_string));
        self.leaf(names.collect(), name, None)
    }

    fn leaf(&self, names: Vec<String>, common_name: &str, organisation: Option<&str>) -> Result<Leaf> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = subject(common_name, organisation);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Writes the kubeconfig of a user.
    pub(crate) fn kubeconfig(&self, place: &Place, file: &str, server: &str, user: &str, group: Option<&str>) -> Result<()> {
        let leaf = self.client(user, group)?;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "acb-e2e", "cluster": {
                "server": server, "certificate-authority-data": STANDARD.encode(self.pem()),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": STANDARD.encode(&leaf.certificate), "client-key-data": STANDARD.encode(&leaf.key),
            }}],
            "contexts": [{"name": "acb-e2e", "context": {"cluster": "acb-e2e", "user": user}}],
            "current-context": "acb-e2e",
        });
        // JSON is YAML.
        write_private(&place.kubeconfig(file), &serde_json::to_string_pretty(&config)?)
    }
}

fn subject(common_name: &str, organisation: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    if let Some(organisation) = organisation {
        subject.push(DnType::OrganizationName, organisation);
    }
    subject
}
