//! Sizes such as `2g` and times such as `90s`, read from text and written back.

use thiserror::Error;

/// Why a size or time could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// There is no number.
    #[error("a number is missing")]
    NoNumber,
    /// The unit is not known.
    #[error("the unit `{unit}` is not one of {known}")]
    Unit {
        /// What stood there.
        unit: String,
        /// What may stand there.
        known: &'static str,
    },
    /// It is larger than what can be counted.
    #[error("it is too large")]
    TooLarge,
}

const SIZE_UNITS: &str = "k, m, g, t";
const TIME_UNITS: &str = "ms, s, m, h, d";

/// Bytes from a text such as `512m`, `2g`, `1.5GiB` or `1048576`. Units are powers of 1024.
///
/// # Errors
/// When it has no number, an unknown unit, or does not fit 64 bits.
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
        // More than nine digits of a fraction of a terabyte is less than a kilobyte; nobody means that.
        let fraction = &fraction[..fraction.len().min(9)];
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
        bytes += (u128::from(parse_digits(fraction)?) << shift) / scale;
    }
    u64::try_from(bytes).map_err(|_| QuantityError::TooLarge)
}

/// Milliseconds from a text such as `500ms`, `90s` or `1h30m`. Every number needs a unit.
///
/// # Errors
/// When a number or unit is missing or unknown, or the sum does not fit 64 bits.
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

/// The shortest exact spelling of a size: `2g`, `1536m`, `1000`.
pub fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// The number at the front, with its dot, and what follows it.
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
