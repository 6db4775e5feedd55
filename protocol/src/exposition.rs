//! How both programs write their metrics out: OpenMetrics as their library writes it, or
//! Prometheus' own older text for whoever does not ask for the newer. Pure text to text.

/// Content type of [`Format::OpenMetrics`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of [`Format::Classic`].
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4: a counter's name has its `_total` everywhere.
    Classic,
}

impl Format {
    /// What a request's `Accept` header asks for; OpenMetrics only by name.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => OPEN_METRICS,
            Self::Classic => CLASSIC,
        }
    }

    /// OpenMetrics text in this format.
    #[must_use]
    pub fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Classic => classic(&open_metrics),
        }
    }
}

fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut help: Option<&str> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ")
            && let Some((name, kind)) = rest.split_once(' ')
        {
            let (kind, end) = match kind {
                "counter" => (kind, "_total"),
                "unknown" => ("untyped", ""),
                "info" => ("gauge", "_info"),
                kind => (kind, ""),
            };
            if let Some((name, words)) = help.take().and_then(|help| help.split_once(' ')) {
                out.push_str(&format!("# HELP {name}{end} {words}\n"));
            }
            out.push_str(&format!("# TYPE {name}{end} {kind}\n"));
            continue;
        }
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_carry_their_suffix_and_the_rest_stays() {
        let open = "# HELP a_jobs Jobs done.\n# TYPE a_jobs counter\na_jobs_total{kind=\"x\"} 1\n\
                    # HELP a_wait_seconds Waits.\n# TYPE a_wait_seconds histogram\n# UNIT a_wait_seconds seconds\n\
                    a_wait_seconds_bucket{le=\"+Inf\"} 0\na_wait_seconds_sum 0.0\na_wait_seconds_count 0\n# EOF\n";
        let text = Format::Classic.write(open.to_owned());
        assert_eq!(
            text,
            "# HELP a_jobs_total Jobs done.\n# TYPE a_jobs_total counter\na_jobs_total{kind=\"x\"} 1\n\
             # HELP a_wait_seconds Waits.\n# TYPE a_wait_seconds histogram\n\
             a_wait_seconds_bucket{le=\"+Inf\"} 0\na_wait_seconds_sum 0.0\na_wait_seconds_count 0\n"
        );
        assert_eq!(Format::OpenMetrics.write(open.to_owned()), open);
    }

    #[test]
    fn the_newer_format_is_for_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Classic);
        assert_eq!(Format::accepted(None), Format::Classic);
    }
}
