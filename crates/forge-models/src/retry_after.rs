//! The retry delay that a provider requests in headers or error bodies. No clock is read: a date is compared with the
//! response's own `Date`, so that a wrong clock on this machine does not matter.

use std::time::Duration;

use serde_json::Value;

/// Upper bound of a delay. Longer ones are not realistic, and arithmetic on them overflows.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// A function that looks up a header by its lower-case name.
pub(crate) type HeaderLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns the delay that the response requests, from the most precise source.
pub(crate) fn retry_after(header: HeaderLookup<'_>, body: &Value) -> Option<Duration> {
    let millis = header("retry-after-ms").and_then(|text| text.trim().parse::<f64>().ok());
    let wait = millis
        .and_then(|millis| duration_from_secs(millis / 1e3))
        .or_else(|| header("retry-after").and_then(|text| parse_retry_header(&text, header)))
        .or_else(|| parse_retry_info(body))
        .or_else(|| rate_limit_reset(header))?;
    Some(wait.min(MAX_RETRY_AFTER))
}

fn duration_from_secs(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok()
}

/// Parses RFC 9110, 10.2.3: seconds (some vendors send fractions) or a date.
fn parse_retry_header(text: &str, header: HeaderLookup<'_>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(value) = text.parse::<f64>() {
        return duration_from_secs(value);
    }
    let then = parse_http_date(text)?;
    let now = parse_http_date(&header("date")?)?;
    Some(Duration::from_secs(u64::try_from(then - now).unwrap_or(0)))
}

/// Parses an HTTP date in the only form that may be sent today (RFC 9110, 5.6.7) into seconds since the Unix epoch.
fn parse_http_date(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(time.as_second())
}

/// Reads Google's `RetryInfo` in the details of an error.
fn parse_retry_info(body: &Value) -> Option<Duration> {
    let details = body["error"]["details"].as_array()?;
    let delay = details.iter().find_map(|detail| detail["retryDelay"].as_str())?;
    duration_from_secs(delay.strip_suffix('s')?.parse().ok()?)
}

/// Returns the longest reset time among the exhausted rate limits.
fn rate_limit_reset(header: HeaderLookup<'_>) -> Option<Duration> {
    const ANTHROPIC_LIMITS: [&str; 4] = ["requests", "tokens", "input-tokens", "output-tokens"];
    const OPENAI_LIMITS: [&str; 2] = ["requests", "tokens"];
    let spent = |name: String| header(&name).is_some_and(|left| left.trim() == "0");
    let by_date = ANTHROPIC_LIMITS
        .into_iter()
        .filter(|limit| spent(format!("anthropic-ratelimit-{limit}-remaining")))
        .filter_map(|limit| {
            let then = header(&format!("anthropic-ratelimit-{limit}-reset"))?;
            let then = then.trim().parse::<jiff::Timestamp>().ok()?.as_second();
            let now = parse_http_date(&header("date")?)?;
            Some(Duration::from_secs(u64::try_from(then - now).unwrap_or(0)))
        });
    let by_span = OPENAI_LIMITS
        .into_iter()
        .filter(|limit| spent(format!("x-ratelimit-remaining-{limit}")))
        .filter_map(|limit| parse_span(&header(&format!("x-ratelimit-reset-{limit}"))?));
    by_date.chain(by_span).max()
}

/// Parses OpenAI's durations: `1s`, `6m0s`, `1h2m3.5s`, `120ms`.
fn parse_span(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let scale = match &rest[digits..unit] {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += rest[..digits].parse::<f64>().ok()? * scale;
        rest = &rest[unit..];
    }
    duration_from_secs(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wait(headers: &[(&str, &str)]) -> Option<f64> {
        let header =
            |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        retry_after(&header, &Value::Null).map(|wait| wait.as_secs_f64())
    }

    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    #[test]
    fn seconds_milliseconds_and_dates() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(0.5));
        assert_eq!(wait(&[("retry-after", "9"), ("retry-after-ms", "1500")]), Some(1.5));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), DATE]), Some(30.0));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), DATE]), Some(0.0));
        assert_eq!(
            wait(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]),
            None,
            "no date to compare with"
        );
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for text in ["soon", "-3", "NaN", "inf", ""] {
            assert_eq!(wait(&[("retry-after", text)]), None, "{text}");
        }
        assert_eq!(wait(&[("retry-after", "99999999999999")]), Some(MAX_RETRY_AFTER.as_secs_f64()));
    }

    #[test]
    fn only_spent_limits_count() {
        let reset = ("anthropic-ratelimit-tokens-reset", "1994-11-06T08:49:57Z");
        assert_eq!(wait(&[DATE, reset, ("anthropic-ratelimit-tokens-remaining", "0")]), Some(20.0));
        assert_eq!(wait(&[DATE, reset, ("anthropic-ratelimit-tokens-remaining", "500")]), None);
        let openai = ("x-ratelimit-reset-requests", "1m2.5s");
        assert_eq!(wait(&[openai, ("x-ratelimit-remaining-requests", "0")]), Some(62.5));
        assert_eq!(parse_span("120ms"), Some(Duration::from_millis(120)));
        assert_eq!(parse_span("12"), None);
    }

    #[test]
    fn google_says_it_in_the_body() {
        let body = json!({"error": {"details": [{"@type": "x"}, {"retryDelay": "34.5s"}]}});
        assert_eq!(retry_after(&|_| None, &body), Some(Duration::from_millis(34_500)));
    }
}
