//! Lines of `-z`, apart from what differs from run to run.

/// Returns the lines without their round trips: "192.0.2.1 80/tcp open (0.412 ms)" becomes "192.0.2.1 80/tcp open".
pub fn states(text: &str) -> String {
    text.lines().map(|line| without_round_trip(line) + "\n").collect()
}

/// Returns the round trip of a line in milliseconds, if it has one.
pub fn round_trip(line: &str) -> Option<f64> {
    line.split_once(" ms)")?.0.rsplit_once('(')?.1.parse().ok()
}

fn without_round_trip(line: &str) -> String {
    match round_trip(line).and(line.split_once(" ms)")) {
        Some((before, after)) => {
            let state = before.rsplit_once(" (").map_or(before, |(state, _)| state);
            state.to_owned() + after
        }
        None => line.to_owned(),
    }
}
