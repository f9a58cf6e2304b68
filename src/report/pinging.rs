//! The outcome of `--ping`, as text and as JSON (docs/schema/ping.json).
use super::{Verdict, counters::in_milliseconds, ping_line::state};
use crate::{
    net::{Protocol, zone::ScopedIp},
    path::{Bucket, Distribution, Tally},
};
use serde::Serialize;
use std::{fmt::Write, net::SocketAddr, time::Duration};

/// Maximum targets whose histograms are printed.
const MAX_HISTOGRAMS: usize = 8;
/// Least round trips of a histogram that is printed.
const FEW: u64 = 10;
/// Length of the longest bar of a histogram, in characters.
const BAR: u64 = 40;

/// A target that was pinged.
#[derive(Debug)]
pub(crate) struct PingedTarget {
    pub remote: SocketAddr,
    pub tally: Tally,
    /// The kernel's path, with --both.
    pub kernel: Option<Tally>,
}

/// Pings that are over.
#[derive(Debug, Serialize)]
pub(crate) struct Pinging {
    verdict: Verdict,
    targets: Vec<Target>,
    #[serde(skip)]
    text: String,
}

/// A target's part of the object.
#[derive(Debug, Serialize)]
struct Target {
    address: String,
    port: u16,
    protocol: Protocol,
    verdict: Verdict,
    #[serde(flatten)]
    path: Path,
    /// The same of the kernel's path; null without --both.
    kernel: Option<Path>,
    /// The kernel's median less ours.
    kernel_difference_ms: Option<f64>,
}

/// The pings of a target by one path.
#[derive(Debug, Serialize)]
struct Path {
    sent_packets: u64,
    open_packets: u64,
    refused_packets: u64,
    rejected_packets: u64,
    /// Without an answer in time, those that this host's egress dropped or refused included.
    lost_packets: u64,
    egress_dropped_packets: u64,
    /// The wait was not over at the end of the run.
    pending_packets: u64,
    late_packets: u64,
    duplicate_packets: u64,
    loss_percent: f64,
    round_trip: Option<RoundTrip>,
    histogram: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct RoundTrip {
    min_ms: f64,
    avg_ms: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    jitter_ms: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    from_ms: f64,
    to_ms: f64,
    count: u64,
}

impl Pinging {
    /// Returns pings in their printable forms.
    pub(crate) fn new(protocol: Protocol, targets: Vec<PingedTarget>) -> Pinging {
        let mut text = String::new();
        for target in &targets {
            lines(&mut text, protocol, target, targets.len() <= MAX_HISTOGRAMS);
        }
        let verdicts = targets.iter().map(|target| verdict(&target.tally));
        let verdict = verdicts.max_by_key(|verdict| verdict.reach()).unwrap_or(Verdict::TimedOut);
        let targets = targets.iter().map(|target| Target::new(protocol, target)).collect();
        Pinging { verdict, targets, text }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the exit status: 0 if a port has answered as open.
    pub(super) fn status(&self, detailed: bool) -> u8 {
        self.verdict.status(detailed)
    }
}

/// Returns the line that sums up all targets so far.
pub(crate) fn ping_status<'a>(tallies: impl Iterator<Item = &'a Tally>) -> String {
    let (mut sent, mut answered, mut lost, mut targets) = (0, 0, 0, 0);
    let mut only = None;
    for tally in tallies {
        (sent, answered, lost) = (sent + tally.sent, answered + tally.answered(), lost + tally.lost());
        targets += 1;
        only = Some(tally).filter(|_| targets == 1);
    }
    let known = (answered + lost).max(1);
    let loss = lost as f64 * 100.0 / known as f64;
    let times = only
        .and_then(|tally| tally.round_trips.last())
        .map_or(String::new(), |(last, avg)| format!(", last {}, avg {} ms", number(last), number(avg)));
    let targets = if targets == 1 { String::new() } else { format!("{targets} targets, ") };
    format!("{targets}{sent} sent, {answered} answered, {loss:.1} % lost{times}")
}

/// Returns the verdict of a target: of its answers the one that says most.
fn verdict(tally: &Tally) -> Verdict {
    match &tally.last {
        _ if tally.open > 0 => Verdict::Done,
        _ if tally.refused > 0 => Verdict::Refused,
        Some(pinged) => state(pinged).1,
        None => Verdict::TimedOut,
    }
}

/// Writes a target's lines.
fn lines(text: &mut String, protocol: Protocol, target: &PingedTarget, histogram: bool) {
    let PingedTarget { remote, tally, kernel } = target;
    let address = ScopedIp::from(*remote);
    let _ = writeln!(text, "{address} {}/{protocol}: {}", remote.port(), counts(tally));
    let found = tally.round_trips.distribution();
    distribution_line(text, found);
    if histogram {
        histogram_lines(text, &tally.round_trips.histogram());
    }
    let Some(kernel) = kernel else { return };
    let _ = writeln!(text, "  kernel: {}", counts(kernel));
    let by_kernel = kernel.round_trips.distribution();
    distribution_line(text, by_kernel);
    if histogram {
        histogram_lines(text, &kernel.round_trips.histogram());
    }
    match (found, by_kernel) {
        (Some(_), None) if tally.answered() > 0 && kernel.lost() > 0 => {
            let _ = writeln!(
                text,
                "  the kernel's path gets no answer: a rule of this host may be in the way; try --compare"
            );
        }
        (Some(ours), Some(theirs)) => {
            let difference = difference(theirs.p50, ours.p50);
            // Without a handshake, the kernel's time lasts until this process wakes up.
            let is_measured = protocol == Protocol::Tcp && kernel.open > 0;
            let parts = if is_measured { "rules and stack" } else { "rules, stack and scheduler" };
            let _ = writeln!(text, "  this host's {parts} take {difference:+.3} ms of the kernel's p50");
        }
        _ => {}
    }
}

/// Returns what became of a path's pings, in words.
fn counts(tally: &Tally) -> String {
    let named = [
        (tally.open, "open"),
        (tally.refused, "refused"),
        (tally.rejected, "rejected"),
        (tally.silent, "without an answer"),
        (tally.egress_dropped, "dropped by this host's own egress"),
        (tally.failed, "failed here"),
        (tally.pending(), "under way"),
        (tally.late, "late"),
        (tally.duplicates, "repeated"),
    ];
    let parts = named.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!(", {count} {name}"));
    let loss = tally.loss_percent();
    format!("{} sent{}, {loss:.1} % lost", tally.sent, parts.collect::<String>())
}

fn distribution_line(text: &mut String, found: Option<Distribution>) {
    let Some(Distribution { min, avg, p50, p95, p99, max, jitter }) = found else { return };
    let named = [("min", min), ("avg", avg), ("p50", p50), ("p95", p95), ("p99", p99), ("max", max)];
    let parts: Vec<_> = named.iter().map(|(name, time)| format!("{name} {}", number(*time))).collect();
    let _ = writeln!(text, "    {}, jitter {} ms", parts.join(", "), number(jitter));
}

fn histogram_lines(text: &mut String, rows: &[Bucket]) {
    if rows.iter().map(|row| row.count).sum::<u64>() < FEW {
        return;
    }
    let most = rows.iter().map(|row| row.count).max().unwrap_or(0).max(1);
    let width = rows.last().map_or(0, |row| number(row.to).len());
    for Bucket { from, to, count } in rows {
        let bar = "#".repeat((count * BAR).div_ceil(most) as usize);
        let (from, to) = (number(*from), number(*to));
        let line = format!("    {from:>width$} - {to:>width$} ms  {count:>6}  {bar}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn number(time: Duration) -> String {
    format!("{:.3}", in_milliseconds(time))
}

/// Returns how much longer `a` is than `b`, in milliseconds.
fn difference(a: Duration, b: Duration) -> f64 {
    (a.as_micros() as f64 - b.as_micros() as f64) / 1e3
}

impl Target {
    fn new(protocol: Protocol, target: &PingedTarget) -> Target {
        let PingedTarget { remote, tally, kernel } = target;
        let median = |tally: &Tally| Some(tally.round_trips.distribution()?.p50);
        Target {
            address: ScopedIp::from(*remote).to_string(),
            port: remote.port(),
            protocol,
            verdict: verdict(tally),
            path: tally.into(),
            kernel: kernel.as_ref().map(Path::from),
            kernel_difference_ms: kernel
                .as_ref()
                .and_then(|kernel| Some(difference(median(kernel)?, median(tally)?))),
        }
    }
}

impl From<&Tally> for Path {
    fn from(tally: &Tally) -> Path {
        Path {
            sent_packets: tally.sent,
            open_packets: tally.open,
            refused_packets: tally.refused,
            rejected_packets: tally.rejected,
            lost_packets: tally.lost(),
            egress_dropped_packets: tally.egress_dropped,
            pending_packets: tally.pending(),
            late_packets: tally.late,
            duplicate_packets: tally.duplicates,
            loss_percent: (tally.loss_percent() * 1e3).round() / 1e3,
            round_trip: tally.round_trips.distribution().map(RoundTrip::from),
            histogram: tally.round_trips.histogram().iter().map(Row::from).collect(),
        }
    }
}

impl From<Distribution> for RoundTrip {
    fn from(found: Distribution) -> RoundTrip {
        RoundTrip {
            min_ms: in_milliseconds(found.min),
            avg_ms: in_milliseconds(found.avg),
            p50_ms: in_milliseconds(found.p50),
            p95_ms: in_milliseconds(found.p95),
            p99_ms: in_milliseconds(found.p99),
            max_ms: in_milliseconds(found.max),
            jitter_ms: in_milliseconds(found.jitter),
        }
    }
}

impl From<&Bucket> for Row {
    fn from(bucket: &Bucket) -> Row {
        Row { from_ms: in_milliseconds(bucket.from), to_ms: in_milliseconds(bucket.to), count: bucket.count }
    }
}
