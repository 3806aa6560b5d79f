//! `keyward usage`.
//!
//! A process of its own: it knows what running services have written, at most a second ago.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::projects;
use crate::features::usage::figures::{self, Asked, Figures, Group, Label, Question, Report, Span, Whose};
use crate::gate::Grain;

use super::args::{Format, Usage};
use super::keys::find;
use super::{Failure, output};

/// The longest bar, in characters.
const BAR: u32 = 40;
/// The longest span that is shown by the hour.
const A_SCREEN: Duration = Duration::from_hours(48);
/// Times that a chart shows at most, those at which nothing happened included.
const ROWS: usize = 1_000;

pub(super) async fn run(ctx: &Ctx, asked: Usage, format: Format) -> Result<(), Failure> {
    let by_day = format == Format::Table;
    let report = figures::read(ctx, &question(ctx, asked, by_day).await?).await?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Table => show(&report),
    }
    ctx.db.close().await;
    Ok(())
}

/// More hours than fit a screen are shown by day, if nobody says otherwise.
async fn question(ctx: &Ctx, asked: Usage, by_day: bool) -> Result<Question, Failure> {
    let whose = match (asked.key, asked.project) {
        (Some(key), _) => {
            let (key, project) = find(ctx, &key).await?;
            Whose::Key(key, project)
        }
        (None, Some(project)) => {
            let missing = || Failure::Refused("there is no such project".to_owned());
            let id: ProjectId = project.parse().map_err(|_| missing())?;
            let project = projects::store::find(ctx.db.reader().await?.conn(), id).await?.ok_or_else(missing)?;
            Whose::Projects(vec![project.id])
        }
        (None, None) => Whose::All,
    };
    let usage = |name: &str, error: &dyn std::fmt::Display| Failure::Usage(format!("--{name}: {error}"));
    let time = |name: &'static str, text: Option<String>| {
        text.map(|text| Timestamp::parse(&text).map_err(|error| usage(name, &error))).transpose()
    };
    let period =
        asked.period.map(|text| text.parse::<Seconds>().map_err(|error| usage("period", &error))).transpose()?;
    let group =
        asked.group_by.map(|word| serde_json::from_value(word.into()).map_err(|error| usage("group-by", &error)));
    let asked_for = Asked {
        period,
        since: time("since", asked.since)?,
        until: time("until", asked.until)?,
        group: group.transpose()?,
    };
    let of = |asked| {
        Span::of(asked, ctx.now(), &ctx.config.usage)
            .map_err(|error| Failure::Usage(format!("the span of time {error}")))
    };
    let (mut span, mut group) = of(asked_for)?;
    if by_day && asked_for.group.is_none() && span.until.since(span.since) > A_SCREEN {
        (span, group) = of(Asked { group: Some(Group::Day), ..asked_for })?;
    }
    Ok(Question { whose, span, group, limit: usize::from(asked.limit), after: None })
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && n % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn millis(millis: Option<f64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.2} ms"),
        Some(millis) if millis < 10_000.0 => format!("{millis:.0} ms"),
        Some(millis) => format!("{:.1} s", millis / 1000.0),
    }
}

fn rate(figures: &Figures) -> String {
    format!("{:.1} %", figures.error_rate * 100.0)
}

/// A bar as long as its share of the longest, to an eighth of a character.
fn bar(requests: u64, most: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(requests) * u128::from(BAR * 8) / u128::from(most.max(1));
    // Whatever isn't nothing is seen.
    let eighths = usize::try_from(eighths).unwrap_or(0).max(usize::from(requests > 0));
    "█".repeat(eighths / 8) + PARTS.get(eighths % 8).copied().unwrap_or_default()
}

fn name(label: &Label) -> String {
    match label {
        Label::At(at) => at.to_string(),
        Label::Endpoint(name) | Label::KeyId(name) | Label::ProjectId(name) => name.clone(),
        Label::Status(status) => status.map_or("(verification)".to_owned(), |status| status.to_string()),
        Label::Code(code) => code.map_or("-".to_owned(), |code| code.word().to_owned()),
    }
}

/// The times of a chart, those at which nothing happened among them.
fn times(report: &Report) -> Option<Vec<(String, Option<&Figures>)>> {
    let grain =
        [Grain::Minute, Grain::Hour, Grain::Day].into_iter().find(|grain| grain.word() == report.granularity)?;
    let mut found = BTreeMap::new();
    for point in &report.series {
        let Label::At(at) = point.label else { return None };
        found.insert(at.as_micros(), &point.figures);
    }
    let end = if report.next_cursor.is_some() { *found.last_key_value()?.0 + 1 } else { report.until.as_micros() };
    let step = usize::try_from(grain.micros()).ok()?;
    let rows: Vec<_> = (report.since.as_micros()..end)
        .step_by(step)
        .take(ROWS)
        .map(|at| (Timestamp::from_micros(at).map_or_else(String::new, |at| at.to_string()), found.get(&at).copied()))
        .collect();
    Some(rows)
}

fn show(report: &Report) {
    let Report { since, until, totals, series, .. } = report;
    output::say(&format!("{since} to {until}"));
    output::say(&format!(
        "requests {}, allowed {}, denied {}, failed {}, errors {}",
        grouped(totals.requests),
        grouped(totals.allowed),
        grouped(totals.denied),
        grouped(totals.failed),
        rate(totals)
    ));
    let latency = &totals.latency_ms;
    let [mean, half, most, nearly] = [latency.mean, latency.p50, latency.p95, latency.p99].map(millis);
    output::say(&format!("latency: mean {mean}, p50 {half}, p95 {most}, p99 {nearly}"));
    if series.is_empty() {
        return;
    }
    output::say("");
    let rows = match times(report) {
        Some(rows) => rows,
        None => series.iter().map(|point| (name(&point.label), Some(&point.figures))).collect(),
    };
    let most = series.iter().map(|point| point.figures.requests).max().unwrap_or(0);
    let rows = rows.into_iter().map(|(name, figures)| match figures {
        None => vec![name, "0".to_owned(), String::new(), String::new(), String::new()],
        Some(figures) => vec![
            name,
            grouped(figures.requests),
            rate(figures),
            millis(figures.latency_ms.p95),
            bar(figures.requests, most),
        ],
    });
    output::table(&["", "REQUESTS", "ERRORS", "P95", ""], rows);
    if report.next_cursor.is_some() {
        output::complain("there is more: name a shorter period, or a higher --limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_shares_of_the_longest() {
        assert_eq!(bar(0, 10), "");
        assert_eq!(bar(10, 10), "█".repeat(40));
        assert_eq!(bar(5, 10), "█".repeat(20));
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(u64::MAX, u64::MAX).chars().count(), 40);
        assert_eq!(bar(1, 64), "▋");
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        let shown: Vec<String> = [0, 999, 1_000, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        let shown: Vec<String> = [None, Some(0.034), Some(12.6), Some(12_345.0)].into_iter().map(millis).collect();
        assert_eq!(shown, ["-", "0.03 ms", "13 ms", "12.3 s"]);
    }
}
