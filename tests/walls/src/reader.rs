//! The reader of sources, on sources made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, io, path::Path};

use crate::{
    arrows::Arrows,
    circles::{circles, shown},
    modules::{Modules, Texts},
    rooms::Rooms,
};

struct Given(BTreeMap<&'static str, &'static str>);

impl Texts for Given {
    fn text(&self, file: &Path) -> io::Result<Option<String>> {
        Ok(self.0.get(file.to_str().unwrap()).map(|text| (*text).to_owned()))
    }
}

fn modules<const N: usize>(files: [(&'static str, &'static str); N]) -> Modules {
    Modules::read(&Given(files.into()), Path::new("src/lib.rs")).unwrap()
}

/// All arrows, one a line.
fn arrows<const N: usize>(files: [(&'static str, &'static str); N]) -> Vec<String> {
    let arrows = Arrows::of(&modules(files));
    arrows.all.iter().flat_map(|(from, used)| used.keys().map(|to| arrows.shown(from, to))).collect()
}

/// What the file `a.rs` uses, where `b.rs`, `b/c.rs` and `b/d/mod.rs` are there to be used.
fn of(text: &'static str) -> Vec<String> {
    let found = arrows([
        ("src/lib.rs", "mod a; pub mod b;"),
        ("src/a.rs", text),
        ("src/b.rs", "pub mod c; pub mod d; pub struct B; pub fn d() {} pub use c::C; pub use serde::Serialize;"),
        ("src/b/c.rs", "pub struct C; pub const LIMIT: u8 = 1;"),
        ("src/b/d/mod.rs", "pub use super::c::*; pub enum D { One }"),
    ]);
    found.into_iter().map(|line| line.strip_prefix("src/a.rs → ").unwrap().to_owned()).collect()
}

#[test]
fn a_use_line_is_an_arrow_to_the_file_that_defines_what_it_names() {
    assert_eq!(of("use crate::b::B;"), ["src/b.rs (crate::b::B)"]);
    assert_eq!(of("use super::b::B as Other;"), ["src/b.rs (crate::b::B)"]);
    assert_eq!(
        of("use crate::{b::{B, c::{self, LIMIT as L}, d::D::{self, One}}};"),
        ["src/b/c.rs (crate::b::c::LIMIT)", "src/b/d/mod.rs (crate::b::d::D)", "src/b.rs (crate::b::B)"]
    );
    assert_eq!(of("fn f() { use crate::b::B; }"), ["src/b.rs (crate::b::B)"]);
}

#[test]
fn a_name_that_is_passed_on_leads_to_its_definition() {
    assert_eq!(of("use crate::b::C;"), ["src/b/c.rs (crate::b::c::C)"]);
    assert_eq!(of("use crate::b::d::LIMIT;"), ["src/b/c.rs (crate::b::c::LIMIT)"]);
    // Of another crate there is no file: what is used is the line that passes it on.
    assert_eq!(of("use crate::b::Serialize;"), ["src/b.rs (crate::b::Serialize)"]);
}

#[test]
fn passing_on_is_no_arrow_but_using_what_is_passed_on_is() {
    assert_eq!(of("pub use crate::b::C;"), [""; 0]);
    assert_eq!(of("pub(crate) use crate::b::*;"), [""; 0]);
    assert_eq!(of("pub use crate::b::C; fn f(_: C) {}"), ["src/b/c.rs (crate::b::c::C)"]);
}

#[test]
fn a_module_that_is_brought_in_is_an_arrow_where_something_is_named_through_it() {
    assert_eq!(of("use crate::b;"), [""; 0]);
    assert_eq!(of("use crate::b::{self as other}; fn f() { other::c::LIMIT; }"), ["src/b/c.rs (crate::b::c::LIMIT)"]);
    // A module and a function of one name.
    assert_eq!(of("fn f() { crate::b::d(); }"), ["src/b.rs (crate::b::d)"]);
    assert_eq!(of("fn f() -> crate::b::d::D { }"), ["src/b/d/mod.rs (crate::b::d::D)"]);
}

#[test]
fn a_star_is_an_arrow_to_the_module_and_to_what_it_brings_in() {
    assert_eq!(of("use crate::b::*;"), ["src/b.rs (crate::b::*)"]);
    assert_eq!(of("use crate::b::*; fn f(_: C) {}"), ["src/b/c.rs (crate::b::c::C)", "src/b.rs (crate::b::*)"]);
    assert_eq!(of("use crate::b::d::D::*;"), ["src/b/d/mod.rs (crate::b::d::D)"]);
}

#[test]
fn paths_in_code_count_wherever_they_are() {
    for text in [
        "fn f(_: Vec<&crate::b::B>) {}",
        "fn f() { let _ = super::b::B; }",
        "impl Clone for crate::b::B {}",
        "impl Iterator for X { type Item = <crate::b::B as Clone>::Out; }",
        "fn f() { println!(\"{}\", g(crate::b::B)); }",
        "fn f() { tokio::select! { x = y => crate::b::B { x: 1 } } }",
        "macro_rules! m { () => { $crate::b::B }; }",
        "#[serde(with = \"crate::b::B\")] struct S;",
        "struct S { #[arg(value_parser = crate::b::B::parse)] s: u8 }",
        "mod inner { use super::super::b::B; }",
        "const fn f() { '\\''; b'{'; \"\\\"{\"; b\"\\\\\"; 'a: loop {} let r#use = 0..super::b::B; 1.0.b::B }",
        "static mut S: [u8; 2] = { 1 }; const _: () = {}; extern \"C\" {} unsafe impl S for [u8; N] {} use super::b::B;",
        "fn f() -> impl Send + use<'_> { X::<{ super::b::B }>::c(|x| x.y) }",
    ] {
        assert_eq!(of(text), ["src/b.rs (crate::b::B)"], "{text}");
    }
}

#[test]
fn what_names_nothing_of_the_crate_is_no_arrow() {
    for text in [
        "use std::fmt; use b::B; fn f() { ::b::x(); fmt::Debug; self.b::<u8>(); T::b(); }",
        "//! [`crate::b::B`]\n/// [`crate::b::B`]\n#[doc = \"crate::b::B\"] struct S;",
        "pub(super) struct S; pub(in crate::b) struct T;",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(test)] mod no_such_file;",
        "#[cfg(all(test, unix))] use crate::b::B;",
        "struct S; impl S { #[cfg(test)] fn f() { crate::b::B; } }",
        "fn f() { json!({ \"a\": x.b::c }); }",
        "struct S; fn f() { self::S; Self::S; }",
        "use hex::hex; fn f() { hex(); }",
        "struct S { #[cfg(test)] s: Map<crate::b::B, crate::b::B>, t: u8 }",
        "fn f() { #[cfg(test)] crate::b::d(); let _ = r#\"crate::b::B\"#; /* crate::b::B /* */ crate::b::B */ }",
    ] {
        assert_eq!(of(text), [""; 0], "{text}");
    }
    assert_eq!(of("#[cfg(not(test))] use crate::b::B;"), ["src/b.rs (crate::b::B)"]);
}

#[test]
fn a_parent_that_names_its_child_by_itself_uses_it() {
    let found = arrows([
        ("src/lib.rs", "mod a;"),
        ("src/a/mod.rs", "mod b; pub(crate) struct A; fn f() { b::g(); }"),
        ("src/a/b.rs", "mod c; pub(crate) fn g() {}"),
        ("src/a/b/c.rs", "use super::super::A;"),
    ]);
    assert_eq!(found, ["src/a/b/c.rs → src/a/mod.rs (crate::a::A)", "src/a/mod.rs → src/a/b.rs (crate::a::b::g)"]);
}

#[test]
fn a_module_in_braces_is_part_of_its_file() {
    let found = arrows([
        ("src/lib.rs", "mod a { pub struct A; pub mod b; } mod c;"),
        ("src/a/b.rs", "use super::A;"),
        ("src/c.rs", "use crate::a::b; use crate::a::A;"),
    ]);
    assert_eq!(found, ["src/a/b.rs → src/lib.rs (crate::a::A)", "src/c.rs → src/lib.rs (crate::a::A)"]);
}

#[test]
fn modules_that_bring_in_everything_of_each_other_are_read_to_the_end() {
    let found = arrows([
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a.rs", "pub use crate::b::*;"),
        ("src/b.rs", "pub use crate::a::*; fn f() { nowhere(); crate::a::nowhere(); }"),
    ]);
    assert_eq!(found, ["src/b.rs → src/a.rs (crate::a::nowhere)"]);
}

#[test]
fn a_missing_file_is_said() {
    let fault = Modules::read(&Given([("src/lib.rs", "mod a;")].into()), Path::new("src/lib.rs")).unwrap_err();
    assert_eq!(fault.to_string(), "src/a/mod.rs is not there");
}

#[test]
fn a_circle_is_found_and_its_way_shown() {
    let arrows = Arrows::of(&modules([
        ("src/lib.rs", "mod a; mod b; mod c; mod d;"),
        ("src/a.rs", "use crate::b::{B, b}; pub fn a() {}"),
        ("src/b.rs", "use crate::c::C; pub struct B; pub fn b() {}"),
        ("src/c.rs", "pub struct C; pub fn c() { super::a::a() }"),
        ("src/d.rs", "use crate::a::a;"),
    ]));
    let circles = circles(&arrows);
    assert_eq!(
        circles.iter().map(|circle| shown(&arrows, circle)).collect::<Vec<_>>(),
        [
            "a circle of 3 files:\n  src/a.rs → src/b.rs (crate::b::B, crate::b::b)\n  src/b.rs → src/c.rs (crate::c::C)\n  src/c.rs → src/a.rs (crate::a::a)"
        ]
    );
}

#[test]
fn what_is_against_the_order_of_rooms_is_found_and_its_way_shown() {
    let rooms = Rooms { package: "house", floors: &[&["cellar"], &["left", "right", "attic"]] };
    let modules = modules([
        ("src/lib.rs", "mod cellar; mod left; mod right; mod shed; pub struct House;"),
        ("src/cellar.rs", "use crate::left::LEFT;"),
        ("src/left.rs", "mod desk; use crate::cellar::X; pub const LEFT: u8 = 1;"),
        ("src/left/desk.rs", "use super::LEFT; use crate::right::RIGHT;"),
        ("src/right.rs", "use crate::House; pub const RIGHT: u8 = 1;"),
        ("src/shed.rs", ""),
    ]);
    assert_eq!(
        rooms.breaches(&modules, &Arrows::of(&modules)),
        [
            "house: `shed` is in no room",
            "house: there is no room `attic`",
            "src/cellar.rs → src/left.rs (crate::left::LEFT)",
            "src/left/desk.rs → src/right.rs (crate::right::RIGHT)",
            "src/right.rs → src/lib.rs (crate::House)",
        ]
    );
}
