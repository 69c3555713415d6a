//! What a URL says: percent-encoding (RFC 3986) and the fields of a query.

use acb_hub_core::{fault::Fault, kit::quoted::quoted};
use percent_encoding::percent_decode_str;

/// Fields of a query, at most.
const MAX_FIELDS: usize = 256;

fn invalid(part: &str) -> Fault {
    Fault::invalid("URL_INVALID", format!("{} is not percent-encoded UTF-8", quoted(part)))
}

/// What a part of a URL means.
pub(super) fn decode(part: &str) -> Result<String, Fault> {
    // A percent sign that escapes nothing would be taken as it is.
    let bytes = part.as_bytes();
    let escapes = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if (0..bytes.len()).any(|at| bytes[at] == b'%' && !escapes(at)) {
        return Err(invalid(part));
    }
    let text = percent_decode_str(part).decode_utf8().map_err(|_| invalid(part))?;
    if text.contains('\0') {
        return Err(invalid(part));
    }
    Ok(text.into_owned())
}

/// The fields of a query and what they are to be, in their order.
pub(super) fn fields(query: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut fields = Vec::new();
    for field in query.split('&').filter(|field| !field.is_empty()) {
        if fields.len() == MAX_FIELDS {
            return Err(Fault::invalid("URL_INVALID", format!("the URL has more than {MAX_FIELDS} fields")));
        }
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        // As in forms: a plus is a space.
        fields.push((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_is_what_it_means() {
        let found = fields("filter.since=2026-01-01T00:00:00%2B01:00&from=a+b&&empty").unwrap();
        let pairs: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("filter.since", "2026-01-01T00:00:00+01:00"), ("from", "a b"), ("empty", "")]);
        assert_eq!(decode("a%2Fb%20%C3%BC").unwrap(), "a/b ü");
        for strange in ["%", "%2", "%zz", "%ff", "%00", "a%"] {
            assert_eq!(decode(strange).unwrap_err().reason, "URL_INVALID", "{strange}");
        }
        assert_eq!(fields(&"a=1&".repeat(MAX_FIELDS + 1)).unwrap_err().reason, "URL_INVALID");
    }
}
