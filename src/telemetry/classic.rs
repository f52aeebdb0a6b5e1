//! OpenMetrics text as the older text format of Prometheus (0.0.4), for whoever does not ask for
//! OpenMetrics: `curl`, `promtool check metrics`, other collectors.
//!
//! The two differ little: a counter's family bears the suffix `_total` itself, and there are
//! neither units nor a last line. Samples look the same.

use std::fmt::Write as _;

/// Writes `openmetrics` anew.
pub fn classic(openmetrics: &str) -> String {
    // Writing to a String does not fail.
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = kind_of(line) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(helped, _)| *helped == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {words}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn kind_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_bear_their_suffix_and_units_go() {
        let openmetrics = "# HELP pears Pears eaten.\n# TYPE pears counter\n\
            pears_total{kind=\"a b\"} 3\n# HELP wait_seconds Waits.\n# TYPE wait_seconds gauge\n\
            # UNIT wait_seconds seconds\nwait_seconds 4\n# EOF\n";
        let expected = "# HELP pears_total Pears eaten.\n# TYPE pears_total counter\n\
            pears_total{kind=\"a b\"} 3\n# HELP wait_seconds Waits.\n# TYPE wait_seconds gauge\n\
            wait_seconds 4\n";
        assert_eq!(classic(openmetrics), expected);
    }
}
