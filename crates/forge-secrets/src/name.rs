//! Names, values and previews of secrets.

/// Longest name in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Longest value in bytes, sufficient for certificates.
const MAX_VALUE_BYTES: usize = 64 << 10;
/// Length in characters below which a preview shows nothing of the value.
const MIN_PREVIEW_CHARS: usize = 16;

/// An invalid name or value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSecretEntry(String);

/// Checks that a name has a form like `OPENAI_API_KEY`.
///
/// # Errors
/// If it has another form. The message describes valid names and suggests the closest one.
pub fn check_name(name: &str) -> Result<(), InvalidSecretEntry> {
    let good = |name: &str| {
        !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    if good(name) {
        return Ok(());
    }
    let near = name.trim().to_ascii_uppercase().replace(['-', '.', ' '], "_");
    // The input is not repeated, because it may be the secret's value.
    let plain = near.len() < 40 && !near.contains(|c: char| c.is_ascii_digit());
    let hint = if good(&near) && plain { format!(", such as {near}") } else { String::new() };
    Err(InvalidSecretEntry(format!(
        "the name of a secret consists of capital letters, digits and underscores, like that of a variable{hint}"
    )))
}

/// Checks that a value can be stored.
///
/// # Errors
/// If it is empty, too long or contains a NUL byte.
pub fn check_value(value: &str) -> Result<(), InvalidSecretEntry> {
    if value.is_empty() {
        Err(InvalidSecretEntry("the value is empty; to remove a secret, delete it".to_owned()))
    } else if value.len() > MAX_VALUE_BYTES {
        Err(InvalidSecretEntry(format!("the value is longer than {} kB", MAX_VALUE_BYTES >> 10)))
    } else if value.contains('\0') {
        Err(InvalidSecretEntry("the value contains a NUL byte, which variables do not support".to_owned()))
    } else {
        Ok(())
    }
}

/// Returns a preview of a value: the first three and the last four characters, or nothing of a short one.
pub fn redacted_preview(value: &str) -> String {
    let chars: Vec<char> = value.chars().collect();
    if chars.len() < MIN_PREVIEW_CHARS || chars.iter().any(|c| c.is_control()) {
        return "***".to_owned();
    }
    let (head, tail) = (&chars[..3], &chars[chars.len() - 4..]);
    format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_look_like_variables() {
        assert!(check_name("OPENAI_API_KEY").is_ok());
        assert!(check_name("_X9").is_ok());
        for bad in ["", "openai", "A-B", "9A", "A B", "ÄB", &"A".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("openai-api-key").unwrap_err().to_string().contains("OPENAI_API_KEY"));
    }

    #[test]
    fn three_and_four_characters_are_shown_of_long_values_only() {
        assert_eq!(redacted_preview("sk-test-0123456789abcdef"), "sk-…cdef");
        assert_eq!(redacted_preview("short"), "***");
        assert_eq!(redacted_preview("ключ-из-многих-букв"), "клю…букв");
        assert_eq!(redacted_preview("line\nline\nline\nline"), "***");
    }
}
