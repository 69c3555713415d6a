//! What an API server takes as the key and the value of a label or an annotation. Pure.

/// Whether it is a label's key, such as `team` or `example.org/team`; an annotation's are alike.
pub(super) fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_domain(prefix) && is_name(name),
        None => is_name(text),
    }
}

/// Whether it is a label's value.
pub(super) fn is_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_name(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Whether it is a DNS subdomain.
fn is_domain(text: &str) -> bool {
    let is_part =
        |part: &str| is_name(part) && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    text.len() <= 253 && text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_read_as_an_api_server_does() {
        let long = "a".repeat(64);
        for key in ["a", "Team_1.x-y", "example.org/team", "a/b", "kubernetes.io/metadata.name"] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "",
            "/a",
            "a/",
            "a/b/c",
            "-a",
            "a-",
            "a b",
            "Example.org/a",
            "a..b/c",
            "é",
            &long,
            &format!("{}/a", "a.".repeat(130)),
        ] {
            assert!(!is_key(key), "{key}");
        }
        for value in ["", "a", "V_1.0-x"] {
            assert!(is_value(value), "{value}");
        }
        for value in ["a/b", "-", "a b", long.as_str()] {
            assert!(!is_value(value), "{value}");
        }
    }
}
