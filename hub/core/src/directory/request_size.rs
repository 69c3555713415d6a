//! How large one request may be: of its message as it is on the wire, or of the payload of a message that is sent on a session.

use super::{
    agent::Agent,
    limits::{LimitUsage, Limits, Whose},
};
use crate::fault::{Code, Exhausted, Fault};

/// The name of the limit in the resources.
const LIMIT: &str = "requestBytes";

/// The smaller of two limits: an account's own, and its tenant's.
#[derive(Clone, Debug)]
pub struct RequestSize {
    /// Whose it is, with the name and without.
    subject: String,
    kind: &'static str,
    most: u64,
}

impl RequestSize {
    /// That of this account. `None`: nothing but what a hub takes from anybody.
    #[must_use]
    pub fn of(account: &Agent, tenant: (&str, Limits)) -> Option<Self> {
        let (whose, most) = each(account, tenant).min_by_key(|(_, most)| *most)?;
        Some(Self { subject: whose.subject(), kind: whose.kind(), most })
    }

    /// Whether a request may have so many bytes.
    ///
    /// # Errors
    /// `REQUEST_SIZE_LIMIT_EXCEEDED`.
    pub fn check(&self, bytes: u64) -> Result<(), Fault> {
        let Self { subject, kind, most } = self;
        if bytes <= *most {
            return Ok(());
        }
        let why = format!(
            "{kind} may send {most} bytes in one request, and this one has {bytes}: nothing was done; send less at a time, or share a context that is streamed"
        );
        Err(Fault::new(Code::ResourceExhausted, "REQUEST_SIZE_LIMIT_EXCEEDED", why).exhausted(Exhausted {
            subject: subject.clone(),
            limit: LIMIT,
            most: *most,
            // It is as large when it is sent again.
            retry_after: None,
        }))
    }
}

/// The limits of this account and of its tenant that there are. Nothing is used up of them.
#[must_use]
pub fn usage(account: &Agent, tenant: (&str, Limits)) -> Vec<LimitUsage> {
    let shown = |(whose, most): (Whose<'_>, u64)| LimitUsage {
        subject: whose.subject(),
        limit: LIMIT,
        most: Some(most),
        used: 0,
        resets_in: None,
    };
    each(account, tenant).map(shown).collect()
}

fn each<'a>(account: &'a Agent, (tenant, of_tenant): (&'a str, Limits)) -> impl Iterator<Item = (Whose<'a>, u64)> {
    let both = [(Whose::Agent(&account.name), account.limits), (Whose::Tenant(tenant), of_tenant)];
    both.into_iter().filter_map(|(whose, limits)| Some((whose, limits.request_bytes?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory::agent::Role, door::access_token::tests::agent};

    #[test]
    fn the_smaller_one_holds_and_says_whose_it_is() {
        let limits = |request_bytes| Limits { request_bytes, ..Limits::default() };
        let check = |own, all, bytes| {
            let alice = Agent { limits: limits(own), ..agent(Role::Full) };
            let size = RequestSize::of(&alice, ("acme", limits(all)));
            size.map_or(Ok(()), |size| size.check(bytes)).map_err(|fault| {
                let exhausted = fault.exhausted.unwrap();
                assert_eq!((fault.reason, exhausted.retry_after), ("REQUEST_SIZE_LIMIT_EXCEEDED", None));
                (exhausted.subject, exhausted.most)
            })
        };
        assert_eq!(check(None, None, u64::MAX), Ok(()));
        assert_eq!(check(Some(10), None, 10), Ok(()));
        assert_eq!(check(Some(10), Some(20), 11), Err(("agent alice".to_owned(), 10)));
        assert_eq!(check(Some(20), Some(10), 11), Err(("tenant acme".to_owned(), 10)));
        // What has nothing in it is no more than nothing.
        assert_eq!(check(Some(0), None, 0), Ok(()));
        assert_eq!(check(Some(0), None, 1), Err(("agent alice".to_owned(), 0)));
        assert_eq!(check(Some(1 << 63), Some(u64::MAX), 1 << 63), Ok(()));
    }
}
