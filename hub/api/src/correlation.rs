//! What ties calls, log lines and messages of several hubs and agents together.

use acb_hub_core::door::admission::Ties;
use http::HeaderMap;

/// The header by which a caller names that, and is told.
pub(crate) const CORRELATION_ID: &str = "x-correlation-id";
/// Bytes of it. What is longer, or has other than visible ASCII characters, is as good as none: it goes into logs.
const MAX_BYTES: usize = 128;

/// What the caller calls it.
pub(crate) fn named_correlation(headers: &HeaderMap) -> Option<&str> {
    let named = headers.get(CORRELATION_ID)?.to_str().ok()?;
    let fits = (1..=MAX_BYTES).contains(&named.len()) && named.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(named)
}

/// What a request is part of. Where the caller names nothing, its trace ties things together.
pub(crate) fn ties(headers: &HeaderMap) -> Ties<'_> {
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let trace = || traceparent.split('-').nth(1).filter(|id| is_trace_id(id));
    Ties { correlation: named_correlation(headers).or_else(trace), traceparent }
}

fn is_trace_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_the_caller_names_comes_before_its_trace() {
        let of = |headers: &[(&'static str, &str)]| {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect();
            ties(&headers).correlation.map(str::to_owned)
        };
        let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(of(&[trace, (CORRELATION_ID, "case-7")]).as_deref(), Some("case-7"));
        assert_eq!(of(&[trace]).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        let long = "x".repeat(MAX_BYTES + 1);
        for strange in ["", "two words", "\u{fc}", &long] {
            assert_eq!(of(&[(CORRELATION_ID, strange)]), None, "{strange}");
        }
        assert_eq!(of(&[("traceparent", "00-x-y-01")]), None);
    }
}
