//! Sizes such as `2g` and times such as `90s`: parsing and formatting.

use thiserror::Error;

/// The reason why a size or time is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// The number is missing.
    #[error("a number is missing")]
    NoNumber,
    /// The unit is unknown.
    #[error("the unit `{unit}` is not one of {known}")]
    Unit {
        /// Unit that was found.
        unit: String,
        /// List of valid units.
        known: &'static str,
    },
    /// The quantity is too large to represent.
    #[error("it is too large")]
    TooLarge,
}

const SIZE_UNITS: &str = "k, m, g, t";
const TIME_UNITS: &str = "ms, s, m, h, d";

/// Parses a size in bytes from a text such as `512m`, `2g`, `1.5GiB` or `1048576`. Units are powers of 1024.
///
/// # Errors
/// If the text has no number or an unknown unit, or the size does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let text = text.trim();
    let (number, unit) = split_number(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(QuantityError::Unit { unit: unit.to_owned(), known: SIZE_UNITS }),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = parse_digits(whole)?;
    let mut bytes = u128::from(whole) << shift;
    if number.contains('.') {
        // Beyond nine digits, even a fraction of a terabyte is less than a kilobyte and can be ignored.
        let fraction = &fraction[..fraction.len().min(9)];
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
        bytes += (u128::from(parse_digits(fraction)?) << shift) / scale;
    }
    u64::try_from(bytes).map_err(|_| QuantityError::TooLarge)
}

/// Parses a time in milliseconds from a text such as `500ms`, `90s` or `1h30m`. Every number needs a unit.
///
/// # Errors
/// If a number or unit is missing or unknown, or the sum does not fit 64 bits.
pub fn parse_time(text: &str) -> Result<u64, QuantityError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(QuantityError::NoNumber);
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => {
                let unit = if unit.is_empty() { tail } else { unit };
                return Err(QuantityError::Unit { unit: unit.to_owned(), known: TIME_UNITS });
            }
        };
        let part = parse_digits(number)?.checked_mul(factor).ok_or(QuantityError::TooLarge)?;
        total = total.checked_add(part).ok_or(QuantityError::TooLarge)?;
        rest = tail.trim_start();
    }
    Ok(total)
}

/// Formats a size in its shortest exact spelling: `2g`, `1536m`, `1000`.
pub fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Splits a text into the leading number, with its decimal point, and the rest.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn parse_digits(text: &str) -> Result<u64, QuantityError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::NoNumber);
    }
    text.parse().map_err(|_| QuantityError::TooLarge)
}
