//! Commands as they were called before. For one release they say what they are called now.

/// What to type instead of a command of before.
pub(crate) fn hint(before: &str) -> Option<String> {
    let now = match before {
        "contexts" => "`acb profile list` and `acb profile use`",
        "agents" => "`acb agent list` and `acb agent discover`",
        "share" => "`acb context share`",
        "shared" => "`acb context`",
        "push" => "`acb context push`",
        "pull" => "`acb context pull ID [DEST]`",
        _ => return None,
    };
    Some(format!("`acb {before}` is now {now}; see `acb --help`"))
}
