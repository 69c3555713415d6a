//! A stranger's text in a message of ours.

/// The most of it that is shown.
const MAX_CHARACTERS: usize = 80;

/// The text in quotes, clipped, with everything escaped that steers a terminal or turns the direction of writing: what a caller sends must not make
/// an answer that no client takes, nor a log line that reads as something else.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    let mut left = MAX_CHARACTERS;
    for character in text.chars() {
        let escaped = character.escape_debug();
        let Some(rest) = left.checked_sub(escaped.len()) else {
            shown.push('…');
            break;
        };
        left = rest;
        shown.extend(escaped);
    }
    shown.push('"');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_escaped_and_what_is_long_is_clipped() {
        assert_eq!(quoted("grüße"), "\"grüße\"");
        assert_eq!(quoted("a\"b\\\n"), r#""a\"b\\\n""#);
        assert_eq!(quoted("\u{1b}[2J\u{202e}x\u{2066}\u{200f}\u{7f}"), r#""\u{1b}[2J\u{202e}x\u{2066}\u{200f}\u{7f}""#);
        assert_eq!(quoted(&"x".repeat(8000)), format!("\"{}…\"", "x".repeat(80)));
        assert_eq!(quoted(&"x".repeat(80)), format!("\"{}\"", "x".repeat(80)));
        assert!(quoted(&"\u{202e}".repeat(8000)).chars().count() <= 83);
    }
}
