//! The seeded bugs are made in the code as it is now.

use std::{fs, path::Path};

/// What a patch takes to be there: by file, the lines of each hunk.
fn expected(patch: &str) -> Vec<(String, String)> {
    let (mut file, mut hunks): (String, Vec<(String, String)>) = (String::new(), Vec::new());
    for line in patch.lines() {
        if let Some(name) = line.strip_prefix("+++ b/") {
            name.clone_into(&mut file);
        } else if line.starts_with("@@ ") {
            hunks.push((file.clone(), String::new()));
        } else if let (Some((_, text)), false) = (hunks.last_mut(), line.starts_with('+') || line.starts_with("--- ")) {
            text.push_str(line.get(1..).unwrap_or_default());
            text.push('\n');
        }
    }
    hunks
}

#[test]
fn every_seeded_bug_can_still_be_made() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tried = 0;
    for entry in fs::read_dir(here.join("seeded")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let hunks = expected(&fs::read_to_string(&path).unwrap());
        assert!(!hunks.is_empty(), "{}: it changes nothing", path.display());
        for (file, lines) in hunks {
            let text = fs::read_to_string(here.join("../..").join(&file)).unwrap_or_default();
            assert!(text.contains(&lines), "{}: make it again in {file} as it is now: there is no\n{lines}", path.display());
        }
        tried += 1;
    }
    assert!(tried >= 40, "{tried} bugs");
}
