//! Bundles of certificates, as what they hold: a program that writes one anew may put it in another order, and no hub is to roll for that.

use std::collections::BTreeSet;

use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Whether two bundles (PEM) hold the same certificates. What can't be read is compared as it is.
#[must_use]
pub(crate) fn are_same(left: &[u8], right: &[u8]) -> bool {
    left == right || matches!((parsed(left), parsed(right)), (Some(left), Some(right)) if left == right)
}

/// Whether there is a certificate in it, and nothing that can't be read.
#[must_use]
pub(crate) fn are_some(pem: &[u8]) -> bool {
    parsed(pem).is_some()
}

fn parsed(pem: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let all: Result<BTreeSet<Vec<u8>>, _> =
        CertificateDer::pem_slice_iter(pem).map(|found| found.map(|found| found.as_ref().to_vec())).collect();
    all.ok().filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn certificate(name: &str) -> String {
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_bundle_is_what_it_holds() {
        let (one, two) = (certificate("one"), certificate("two"));
        let same = |left: &str, right: &str| are_same(left.as_bytes(), right.as_bytes());
        assert!(same(&format!("{one}{two}"), &format!("# a comment\n{two}\n\n{one}{two}")));
        assert!(!same(&one, &two) && !same(&one, &format!("{one}{two}")));
        assert!(are_some(one.as_bytes()) && !are_some(b"") && !are_some(b"no PEM"));
        assert!(same("no PEM", "no PEM") && !same("no PEM", "other") && !same("", &one));
    }
}
