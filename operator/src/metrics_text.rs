//! Reads the text that Prometheus scrapes, as hubs and operators write it: the one reader of it, for the command line, the scenarios and the figures.

/// One line of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Of the metric, with the suffix that its kind gives it.
    pub name: &'a str,
    /// By name, in their order.
    pub labels: Vec<(&'a str, String)>,
    /// What it is now.
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// What a label says.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    /// `None`: a comment, or no sample.
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' ', '\t'])?;
        let (name, mut rest) = line.split_at(end);
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
        if name.is_empty() || !name.bytes().all(is_part) {
            return None;
        }
        let mut labels = Vec::new();
        if let Some(listed) = rest.strip_prefix('{') {
            (labels, rest) = labels_of(listed)?;
        }
        // A time, or an example, may stand behind it.
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self { name, labels, value })
    }
}

/// The labels up to the closing brace, and what stands behind it.
fn labels_of(listed: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let (mut labels, mut rest) = (Vec::new(), listed);
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, behind) = unquoted(quoted)?;
        labels.push((name, value));
        rest = behind;
    }
}

/// A value up to its closing quote, and what stands behind it.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let (mut value, mut letters) = (String::new(), quoted.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// Every sample in a text. What is none is left out.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter_map(Sample::read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn samples_have_names_labels_and_values() {
        let text = "# HELP acb_lag How far.\n# TYPE acb_lag gauge\nacb_lag{topic=\"acb.a.notes\"} 3\nacb_up 1 1700000000\n\
                    acb_took_seconds_bucket{le=\"+Inf\",to=\"a,b} \\\"c\\\" \\\\ \\n\"} 7 # {trace_id=\"x\"} 0.1\nacb_most +Inf\n\n# EOF\n";
        let all: Vec<Sample<'_>> = samples(text).collect();
        let found: Vec<(&str, f64)> = all.iter().map(|sample| (sample.name, sample.value)).collect();
        assert_eq!(found, [("acb_lag", 3.0), ("acb_up", 1.0), ("acb_took_seconds_bucket", 7.0), ("acb_most", f64::INFINITY)]);
        assert_eq!((all[0].label("topic"), all[0].label("le")), (Some("acb.a.notes"), None));
        assert_eq!(all[2].label("to"), Some("a,b} \"c\" \\ \n"));
    }

    #[test]
    fn what_is_cut_short_is_no_sample() {
        let line = "acb_lag{topic=\"acb.\\\"ä\\\"\",of=\"x\"} 3";
        assert_eq!(samples(line).count(), 1);
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
            assert_eq!(samples(&line[..end]).count(), 0, "{}", &line[..end]);
        }
        for none in ["", " ", "{} 1", "a{", "a{b} 1", "a{b=\"c} 1", "a", "a x", "a{b=\"c\" 1", "a\u{e4} 1"] {
            assert_eq!(samples(none).count(), 0, "{none}");
        }
    }
}
