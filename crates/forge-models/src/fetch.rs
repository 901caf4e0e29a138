//! Download of a table of models from an address that the user named.

use std::time::Duration;

use crate::http::{self, HttpClients};
use crate::options::Options;

/// Longest time for the whole download.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Downloads the text at `url`, which must begin with `http://` or `https://`. Sends no API key.
///
/// # Errors
/// The reason, for people.
pub async fn fetch_table(url: &str) -> Result<String, String> {
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err("the address must begin with http:// or https://".to_owned());
    }
    let (status, body) =
        http::get_text(&HttpClients::new(&Options::default()), url, Vec::new(), FETCH_TIMEOUT).await?;
    match status {
        200 => Ok(body),
        300..=399 => Err(format!("status {status}: use the address that it redirects to")),
        _ => Err(format!("status {status}")),
    }
}
