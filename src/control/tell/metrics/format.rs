//! In which format a scraper gets the metrics: OpenMetrics 1.0, or the text format 0.0.4 that came
//! before it and that many libraries read alone.
//!
//! Both have the same samples. The older one names a family of counters as its samples are named,
//! knows no type `info`, and has no end mark.

use axum::http::HeaderValue;

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Text,
}

impl Exposition {
    /// The one that an `Accept` header prefers (RFC 9110, section 12.5.1); OpenMetrics when it does
    /// not say.
    pub(crate) fn accepted<'a>(headers: impl Iterator<Item = &'a HeaderValue>) -> Self {
        let (mut open, mut text) = (None, None);
        for header in headers {
            for range in header.to_str().unwrap_or("").split(',') {
                let (kind, quality) = media_range(range);
                let best = match kind.as_str() {
                    "application/openmetrics-text" => &mut open,
                    "text/plain" | "text/*" => &mut text,
                    _ => continue,
                };
                *best = quality.max(*best);
            }
        }
        match (open, text) {
            (None, Some(text)) if text > 0 => Self::Text,
            (Some(open), Some(text)) if text > open => Self::Text,
            _ => Self::OpenMetrics,
        }
    }

    /// Its media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Metrics in this format; given in OpenMetrics.
    pub(super) fn of(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => as_text(&openmetrics),
        }
    }
}

/// The media type of an element of `Accept`, in lower case, and its quality in thousandths.
fn media_range(range: &str) -> (String, Option<u32>) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or("").to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (kind, quality.map_or(Some(1000), thousandths))
}

/// A quality value: 0 to 1 with at most three decimals. `None` is malformed.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = decimals.len() <= 3 && decimals.bytes().all(|digit| digit.is_ascii_digit());
    match (whole, is_number) {
        ("1", true) => Some(1000),
        ("0", true) => format!("{decimals:0<3}").parse().ok(),
        _ => None,
    }
}

fn as_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // The encoder writes HELP before TYPE, and only TYPE tells how the family is to be named.
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').unwrap_or((rest, "")));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(named, _)| *named == family) {
                text.push_str(&format!("# HELP {family}{suffix} {words}\n"));
            }
            text.push_str(&format!("# TYPE {family}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a scraper that reads one format gets the other.
    #[test]
    fn the_accepted_format_is_given() {
        let accepted = |text: &str| {
            let header = HeaderValue::from_str(text).unwrap();
            Exposition::accepted([&header].into_iter())
        };
        // What Prometheus 2.42 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for open in [prometheus, "*/*", "", "text/plain;q=0", "application/json", "text/plain;q=x"]
        {
            assert_eq!(accepted(open), Exposition::OpenMetrics, "{open}");
        }
        let reversed = "text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.50";
        for text in ["text/plain", "Text/Plain; version=0.0.4", "text/*", reversed] {
            assert_eq!(accepted(text), Exposition::Text, "{text}");
        }
        assert_eq!(Exposition::accepted([].into_iter()), Exposition::OpenMetrics);
    }

    // If this fails, parsers of the older format lose the type of counters, or refuse the page.
    #[test]
    fn counters_and_infos_are_named_as_their_samples() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# HELP\"} 1\n\
                    # HELP b Build.\n# TYPE b info\nb_info{version=\"1\"} 1\n\
                    # HELP c Now.\n# TYPE c gauge\n# UNIT c seconds\nc 2\n# EOF\n";
        assert_eq!(
            Exposition::Text.of(open.to_owned()),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# HELP\"} 1\n\
             # HELP b_info Build.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n\
             # HELP c Now.\n# TYPE c gauge\nc 2\n"
        );
        assert_eq!(Exposition::OpenMetrics.of(open.to_owned()), open);
    }
}
