use crate::{first_cells, read};

/// The reasons as the source names them: a list beside the enum could lack one.
fn variants() -> Vec<String> {
    let source = read("operator/src/condition.rs");
    let body = source.split("pub enum Reason {").nth(1).unwrap().split("\n}").next().unwrap();
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.is_empty());
    lines.map(|line| line.trim_end_matches(',').to_owned()).collect()
}

#[test]
fn every_reason_is_explained() {
    let reasons = variants();
    assert!(reasons.contains(&"Provisioned".to_owned()), "{reasons:?}");
    assert_eq!(first_cells(&read("docs/day-two.md"), "Reasons"), reasons, "docs/day-two.md, in the order of the enum");
}
