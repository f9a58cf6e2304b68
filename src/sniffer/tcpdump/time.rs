//! The time of a packet in each of the forms of tcpdump's -t.
use crate::sniffer::text::AppendText;
use jiff::{Timestamp, tz::TimeZone};
use std::time::Duration;

/// The form of a packet's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeForm {
    /// The time of day.
    #[default]
    Clock,
    /// No time (-t).
    None,
    /// Seconds since the Unix epoch (-tt).
    Epoch,
    /// Time since the packet before (-ttt).
    Delta,
    /// Date and time of day (-tttt).
    Date,
    /// Time since the first packet (-ttttt).
    Elapsed,
}

/// Writes times, and remembers what their form needs.
pub(super) struct Times {
    form: TimeForm,
    zone: TimeZone,
    reference: Option<Duration>,
}

impl Times {
    pub(super) fn new(form: TimeForm, zone: TimeZone) -> Self {
        Times { form, zone, reference: None }
    }

    /// Appends a time and a space.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, time: Duration) {
        match self.form {
            TimeForm::None => return,
            TimeForm::Epoch => out.decimal(time.as_secs()),
            TimeForm::Clock => self.append_clock(out, time, false),
            TimeForm::Date => self.append_clock(out, time, true),
            TimeForm::Delta | TimeForm::Elapsed => return self.append_difference(out, time),
        }
        append_micros(out, time);
    }

    fn append_clock(&self, out: &mut Vec<u8>, time: Duration, date: bool) {
        // A time beyond the year 9999, from a forged file, is shown as the epoch.
        let time = i64::try_from(time.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
        let time = self.zone.to_datetime(time.unwrap_or(Timestamp::UNIX_EPOCH));
        if date {
            out.display(time.date());
            out.push(b' ');
        }
        append_clock(
            out,
            [time.hour(), time.minute(), time.second()].map(|part| u64::from(part.unsigned_abs())),
        );
    }

    fn append_difference(&mut self, out: &mut Vec<u8>, time: Duration) {
        let reference = *self.reference.get_or_insert(time);
        if self.form == TimeForm::Delta {
            self.reference = Some(time);
        }
        let difference = match time.checked_sub(reference) {
            Some(difference) => {
                out.push(b' ');
                difference
            }
            None => {
                out.push(b'-');
                reference.saturating_sub(time)
            }
        };
        let seconds = difference.as_secs();
        append_clock(out, [seconds / 3600, seconds / 60 % 60, seconds % 60]);
        append_micros(out, difference);
    }
}

fn append_clock(out: &mut Vec<u8>, parts: [u64; 3]) {
    out.text(&parts.map(|part| format!("{part:02}")).join(":"));
}

fn append_micros(out: &mut Vec<u8>, time: Duration) {
    out.text(&format!(".{:06} ", time.subsec_micros()));
}
