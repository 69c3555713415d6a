//! Quantities as the API server writes them: it stores `1` for `1000m`, and a plan that says `1000m` would never be done.

/// From the largest: the suffix, and what it stands for.
const DECIMAL: [(&str, u32); 8] = [("E", 21), ("P", 18), ("T", 15), ("G", 12), ("M", 9), ("k", 6), ("", 3), ("m", 0)];
const BINARY: [(&str, u32); 7] = [("Ei", 6), ("Pi", 5), ("Ti", 4), ("Gi", 3), ("Mi", 2), ("Ki", 1), ("", 0)];

/// The same quantity without a fraction, and with the largest suffix that allows it. What can't be read is left as it is: the API server says
/// what is wrong with it.
#[must_use]
pub(super) fn canonical(text: &str) -> String {
    parse(text).unwrap_or_else(|| text.to_owned())
}

/// In thousandths; `None` for what can't be read, or has more than a whole number of thousandths.
#[must_use]
pub(super) fn amount(text: &str) -> Option<u128> {
    let canonical = parse(text)?;
    let end = canonical.find(|character: char| !character.is_ascii_digit()).unwrap_or(canonical.len());
    let (number, suffix) = canonical.split_at(end);
    let power = |known: &[(&str, u32)]| known.iter().find(|(known, _)| *known == suffix).map(|(_, power)| *power);
    let unit = match power(&DECIMAL) {
        Some(power) => 10_u128.checked_pow(power)?,
        None => 1024_u128.checked_pow(power(&BINARY)?)?.checked_mul(1000)?,
    };
    number.parse::<u128>().ok()?.checked_mul(unit)
}

fn parse(text: &str) -> Option<String> {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let exact = |times: u128| {
        digits.checked_mul(times).filter(|product| product.is_multiple_of(divisor)).map(|product| product / divisor)
    };
    if let Some((_, power)) = BINARY.iter().find(|(known, power)| *known == suffix && *power > 0) {
        let bytes = exact(1024_u128.checked_pow(*power)?)?;
        return Some(largest(bytes, 1024, &BINARY));
    }
    let (_, power) = DECIMAL.iter().find(|(known, _)| *known == suffix)?;
    Some(largest(exact(10_u128.checked_pow(*power)?)?, 10, &DECIMAL))
}

/// An amount with the largest suffix that leaves no fraction.
fn largest(amount: u128, base: u128, suffixes: &[(&str, u32)]) -> String {
    if amount == 0 {
        return "0".to_owned();
    }
    let fits = suffixes.iter().find(|(_, power)| amount.is_multiple_of(base.pow(*power)));
    fits.map_or_else(|| amount.to_string(), |(suffix, power)| format!("{}{suffix}", amount / base.pow(*power)))
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn quantities_are_written_as_an_api_server_does() {
        // Each was seen on a real one.
        for (given, stored) in [
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
        ] {
            assert_eq!(canonical(given), stored, "{given}");
            assert_eq!(canonical(stored), stored);
        }
        for unreadable in ["", "1x", "1.2.3", "0.1Ki", "0.0001m", "99999999999999999999999999999999999999999999E"] {
            assert_eq!(canonical(unreadable), unreadable);
        }
    }
}
