//! Quantities of Kubernetes: what may be written, how much it is, and how an API server stores it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a quantity that is written as text matches: Kubernetes' own pattern.
pub const QUANTITY_PATTERN: &str =
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// An amount of a resource: a whole number, or text such as `500m`, `1.5Gi` or `1e3`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// As in `cpu: 1`.
    Number(i64),
    /// As in `cpu: 500m`.
    Text(String),
}

/// How a quantity is written. An API server keeps it where it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimal,
    Exponent,
    Binary,
}

/// From the largest: the suffix, and the power of ten of the thousandths that it stands for.
const DECIMAL: [(&str, u32); 8] = [("E", 21), ("P", 18), ("T", 15), ("G", 12), ("M", 9), ("k", 6), ("", 3), ("m", 0)];
/// Below a thousandth: the suffix, and of which power of ten it is a part.
const SMALL: [(&str, u32); 2] = [("u", 3), ("n", 6)];
/// From the largest: the suffix, and the power of 1024.
const BINARY: [(&str, u32); 6] = [("Ei", 6), ("Pi", 5), ("Ti", 4), ("Gi", 3), ("Mi", 2), ("Ki", 1)];
/// The most thousandths that are read: what Kubernetes counts with has 63 bits.
const MOST: u128 = (1 << 63) * 1000;

impl Quantity {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    /// In thousandths, rounded up as an API server does. `None` for what is none, is negative or has no place in 63 bits.
    #[must_use]
    pub fn milli(&self) -> Option<u128> {
        parse(&self.text()).map(|(milli, _)| milli)
    }

    /// As an API server stores it: without a fraction, and with the largest suffix that allows it. A plan that said it otherwise would never
    /// be done. `None` for what [`milli`](Self::milli) can't read.
    #[must_use]
    pub fn canonical(&self) -> Option<String> {
        let (milli, form) = parse(&self.text())?;
        Some(match form {
            Form::Binary if milli >= 1_024_000 && milli.is_multiple_of(1000) => {
                let bytes = milli / 1000;
                let fits = BINARY.iter().find(|(_, power)| bytes.is_multiple_of(1024_u128.pow(*power)));
                fits.map_or_else(|| bytes.to_string(), |(suffix, power)| format!("{}{suffix}", bytes / 1024_u128.pow(*power)))
            }
            _ => decimal(milli, form),
        })
    }
}

/// With the largest power of a thousand that leaves no fraction.
fn decimal(milli: u128, form: Form) -> String {
    if milli == 0 {
        return "0".to_owned();
    }
    let fits = DECIMAL.iter().find(|(_, power)| milli.is_multiple_of(10_u128.pow(*power)));
    let (suffix, power) = fits.copied().unwrap_or(("m", 0));
    let number = milli / 10_u128.pow(power);
    match form {
        Form::Exponent if power != 3 => format!("{number}e{}", i64::from(power) - 3),
        _ => format!("{number}{suffix}"),
    }
}

fn parse(text: &str) -> Option<(u128, Form)> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (form, times, parts) = unit(suffix)?;
    let parts = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(parts)?;
    let milli = digits.checked_mul(times)?.div_ceil(parts);
    (milli <= MOST).then_some((milli, form))
}

/// What a suffix stands for: so many thousandths, in so many parts.
fn unit(suffix: &str) -> Option<(Form, u128, u128)> {
    let find = |known: &[(&str, u32)]| known.iter().find(|(known, _)| *known == suffix).map(|(_, power)| *power);
    if let Some(power) = find(&DECIMAL) {
        return Some((Form::Decimal, 10_u128.pow(power), 1));
    }
    if let Some(power) = find(&SMALL) {
        return Some((Form::Decimal, 1, 10_u128.pow(power)));
    }
    if let Some(power) = find(&BINARY) {
        return Some((Form::Binary, 1024_u128.pow(power) * 1000, 1));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = exponent.checked_add(3)?;
    let factor = 10_u128.checked_pow(power.unsigned_abs())?;
    Some(if power >= 0 { (Form::Exponent, factor, 1) } else { (Form::Exponent, 1, factor) })
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": true,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Quantity::Text(text.to_owned()).canonical()
    }

    #[test]
    fn quantities_are_written_as_an_api_server_does() {
        for (given, stored) in [
            // Each of these was seen on a real one.
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.0", "1"),
            ("2000", "2k"),
            ("1500m", "1500m"),
            ("100m", "100m"),
            ("0", "0"),
            ("0Mi", "0"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1000000", "1M"),
            ("128000k", "128M"),
            ("1536", "1536"),
            ("2048Ki", "2Mi"),
            ("64Mi", "64Mi"),
            // By the rules of Kubernetes' resource.Quantity: what is not whole is decimal, what is less than a thousandth is one.
            ("0.1Ki", "102400m"),
            ("1.0001Ki", "1024103m"),
            ("0.0001m", "1m"),
            ("1u", "1m"),
            ("1e3", "1e3"),
            ("1500e3", "1500e3"),
            ("1E6", "1e6"),
            ("5e-1", "500e-3"),
            ("5e1", "50"),
            ("+1", "1"),
            (".5", "500m"),
            ("1.", "1"),
        ] {
            let Some(written) = canonical(given) else { panic!("{given} is not read") };
            assert_eq!(written, stored, "{given}");
            assert_eq!(canonical(&written).as_deref(), Some(stored));
        }
        assert_eq!(Quantity::Number(1_073_741_824).canonical().as_deref(), Some("1073741824"));
        assert_eq!(Quantity::Number(4).milli(), Quantity::Text("4000m".into()).milli());
    }

    #[test]
    fn what_is_no_quantity_is_not_read() {
        for text in [
            "",
            ".",
            "1x",
            "1.2.3",
            "128K",
            "5ki",
            "-1",
            "1e",
            "1e99",
            "e3",
            "99999999999999999999999999999999999999999999E",
            "10E",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
        assert_eq!(Quantity::Number(-1).milli(), None);
    }
}
