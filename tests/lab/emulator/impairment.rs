//! Computes what a path does to its nth frame, as a pure function of a seed: no I/O, no clock, no state.
//!
//! Theory of operation: each decision draws from a hash of (seed, frame number, decision), so the fate of
//! frame n depends on nothing else: not on the other frames, not on their timing, not on the order in which
//! the decisions are asked for. Two runs with one seed lose the same frames.
use std::{ops::RangeInclusive, str::FromStr, time::Duration};

/// The properties of one direction of a path. The default is a perfect wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairment {
    /// Share of frames that vanish, 0 to 1.
    pub loss: f64,
    /// Share of frames that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of frames that later frames overtake, 0 to 1.
    pub reorder: f64,
    /// Number of later frames that arrive before such a frame: uniform in this range.
    pub displacement: RangeInclusive<u32>,
    /// Propagation delay of each frame.
    pub delay: Duration,
    /// Maximum jitter, added to the delay uniformly. Never reorders.
    pub jitter: Duration,
    /// Rate of the bottleneck in bits a second; `None` for the machine's speed.
    pub rate: Option<u64>,
    /// Limit of the bottleneck's queue, which drops at its tail.
    pub queue: Queue,
    /// Maximum length of a frame in bytes, link header included: longer frames vanish without an
    /// error.
    pub largest: Option<usize>,
}

/// The limit of a bottleneck's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Bytes(u64),
    Time(Duration),
}

/// The fate of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub lost: bool,
    pub duplicated: bool,
    /// Number of later frames that arrive before this one.
    pub overtaken_by: u32,
    /// Time added to the propagation delay.
    pub jitter: Duration,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            displacement: 3..=30,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: Queue::Time(Duration::from_millis(50)),
            largest: None,
        }
    }
}

impl Impairment {
    /// Returns the fate of the frame with number `n` of the path with this seed.
    pub fn verdict(&self, seed: u64, n: u64) -> Verdict {
        let overtaken = draw(seed, n, 3) < self.reorder;
        let (least, most) = (*self.displacement.start(), *self.displacement.end());
        let span = f64::from(most.saturating_sub(least)) + 1.0;
        Verdict {
            lost: draw(seed, n, 1) < self.loss,
            duplicated: draw(seed, n, 2) < self.duplicate,
            overtaken_by: if overtaken { least + (draw(seed, n, 4) * span) as u32 } else { 0 },
            jitter: self.jitter.mul_f64(draw(seed, n, 5)),
        }
    }
}

/// Returns a number uniform in [0, 1): SplitMix64's finalizer over the three words.
fn draw(seed: u64, n: u64, decision: u64) -> f64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(decision << 56);
    for _ in 0..2 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    (z >> 11) as f64 / (1u64 << 53) as f64
}

/// Reads "loss=1%,delay=10ms,jitter=1ms,reorder=5%,displacement=3-30,duplicate=0.1%,rate=100mbit,queue=50ms,
/// largest=1300b"; the queue's limit may also be bytes ("queue=64kb"). The empty text is a perfect wire.
impl FromStr for Impairment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut path = Self::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("\"{part}\" is not KEY=VALUE"))?;
            match key {
                "loss" => path.loss = share(value)?,
                "duplicate" => path.duplicate = share(value)?,
                "reorder" => path.reorder = share(value)?,
                "displacement" => path.displacement = displacement(value)?,
                "delay" => path.delay = duration(value)?,
                "jitter" => path.jitter = duration(value)?,
                "rate" => path.rate = Some(rate(value)?),
                "queue" => path.queue = queue(value)?,
                "largest" => path.largest = Some(bytes(value)? as usize),
                _ => return Err(format!("a path has no property \"{key}\"")),
            }
        }
        Ok(path)
    }
}

fn number(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    let unit = &text[digits.len()..];
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    match (digits.parse::<f64>(), factor) {
        (Ok(n), Some(factor)) if n.is_finite() && n >= 0.0 => Ok(n * factor),
        _ => {
            let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
            Err(format!("\"{text}\" is not a number with one of the units {names:?}"))
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match number(text, &[("%", 0.01), ("", 1.0)])? {
        p if p <= 1.0 => Ok(p),
        _ => Err(format!("\"{text}\" is more than everything")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    number(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]).map(Duration::from_secs_f64)
}

fn rate(text: &str) -> Result<u64, String> {
    match number(text, &[("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)])? as u64 {
        0 => Err("a rate of zero lets nothing through".to_owned()),
        bits => Ok(bits),
    }
}

fn queue(text: &str) -> Result<Queue, String> {
    if text.ends_with('b') {
        return bytes(text).map(Queue::Bytes);
    }
    duration(text).map(Queue::Time)
}

fn bytes(text: &str) -> Result<u64, String> {
    number(text, &[("b", 1.0), ("kb", 1e3), ("mb", 1e6)]).map(|n| n as u64)
}

fn displacement(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if 0 < least && least <= most => Ok(least..=most),
        _ => Err(format!("\"{text}\" is not a range of frames, as 3-30")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of(frames: u64, is: impl Fn(u64) -> bool) -> f64 {
        (0..frames).filter(|&n| is(n)).count() as f64 / frames as f64
    }

    #[test]
    fn shares_are_met_and_independent() {
        let path: Impairment = "loss=5%,duplicate=1%,reorder=10%,displacement=3-5".parse().unwrap();
        let near =
            |share: f64, wanted: f64| assert!((share - wanted).abs() < wanted / 10.0, "{share} {wanted}");
        near(share_of(200_000, |n| path.verdict(7, n).lost), 0.05);
        near(share_of(200_000, |n| path.verdict(7, n).duplicated), 0.01);
        near(share_of(200_000, |n| path.verdict(7, n).overtaken_by > 0), 0.1);
        near(share_of(200_000, |n| path.verdict(7, n).lost && path.verdict(7, n + 1).lost), 0.0025);
        for k in 3..=5 {
            near(share_of(200_000, |n| path.verdict(7, n).overtaken_by == k), 0.1 / 3.0);
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        let path: Impairment = "loss=30%,jitter=1ms".parse().unwrap();
        let fates = |seed| (0..1000).map(|n| path.verdict(seed, n)).collect::<Vec<_>>();
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
        assert!(fates(1).iter().all(|v| v.jitter < Duration::from_millis(1)));
    }

    #[test]
    fn a_perfect_wire_does_nothing() {
        let clean = Verdict { lost: false, duplicated: false, overtaken_by: 0, jitter: Duration::ZERO };
        let path: Impairment = "".parse().unwrap();
        assert!((0..1000).all(|n| path.verdict(3, n) == clean));
        let broken: Impairment = "loss=100%".parse().unwrap();
        assert!((0..1000).all(|n| broken.verdict(3, n).lost));
    }

    #[test]
    fn descriptions_are_read() {
        let path: Impairment =
            "delay=10ms,rate=100mbit,queue=64kb,displacement=4,largest=1300b".parse().unwrap();
        assert_eq!(path.delay, Duration::from_millis(10));
        assert_eq!(path.rate, Some(100_000_000));
        assert_eq!(path.queue, Queue::Bytes(64_000));
        assert_eq!(path.displacement, 4..=4);
        assert_eq!(path.largest, Some(1300));
        for wrong in [
            "loss",
            "loss=101%",
            "loss=-1%",
            "delay=10",
            "rate=0mbit",
            "displacement=5-3",
            "largest=9",
            "hue=1",
        ] {
            assert!(wrong.parse::<Impairment>().is_err(), "{wrong}");
        }
    }
}
