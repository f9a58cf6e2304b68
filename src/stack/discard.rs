//! Segments that came for a connection and did not open it: a hint at why an attempt timed out.
use crate::segment::{ACK, FIN, RST, SYN, Segment};
use std::fmt;

/// The reason why a segment was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// The checksum is wrong.
    Checksum,
    /// The data offset is impossible.
    Header,
    /// An ICMP error quotes nothing that is in flight (RFC 5927, section 4.1).
    Icmp,
    /// The segment, with these flags, acknowledges something other than our SYN.
    Acknowledgment(u8),
    /// The segment, with these flags, is no answer to a SYN.
    Flags(u8),
}

impl Discard {
    /// Returns the reason to discard `segment`, which did not open the connection. `acknowledges`
    /// says whether its ACK is acceptable.
    pub(crate) fn of(segment: &Segment, acknowledges: bool) -> Discard {
        match segment.is(ACK) && !acknowledges {
            true => Discard::Acknowledgment(segment.flags),
            false => Discard::Flags(segment.flags),
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Discard::Checksum => f.write_str("a wrong checksum"),
            Discard::Header => f.write_str("an impossible header length"),
            Discard::Icmp => f.write_str("an ICMP error that quotes nothing of ours"),
            Discard::Acknowledgment(flags) => write!(f, "{} of something else than our SYN", Flags(*flags)),
            Discard::Flags(flags) => write!(f, "{}, which is no answer to a SYN", Flags(*flags)),
        }
    }
}

/// TCP flags, displayed by their names.
struct Flags(u8);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = [(SYN, "SYN"), (RST, "RST"), (FIN, "FIN"), (ACK, "ACK")]
            .into_iter()
            .filter(|(flag, _)| self.0 & flag != 0)
            .map(|(_, name)| name);
        f.write_str(names.next().unwrap_or("no flag"))?;
        names.try_for_each(|name| write!(f, "+{name}"))
    }
}

/// A summary of the discarded segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discards {
    /// Number of segments discarded.
    pub count: u64,
    /// The reason for the last one.
    pub last: Discard,
}

impl fmt::Display for Discards {
    /// Writes "3 segments came that make no sense, the last one: a wrong checksum".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Discards { count, last } = self;
        match count {
            1 => write!(f, "1 segment came that makes no sense: {last}"),
            _ => write!(f, "{count} segments came that make no sense, the last one: {last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_came() {
        let told = |count, last| Discards { count, last }.to_string();
        assert_eq!(told(1, Discard::Checksum), "1 segment came that makes no sense: a wrong checksum");
        let last = Discard::Acknowledgment(SYN | ACK);
        let words =
            "3 segments came that make no sense, the last one: SYN+ACK of something else than our SYN";
        assert_eq!(told(3, last), words);
        assert_eq!(Discard::Flags(0).to_string(), "no flag, which is no answer to a SYN");
        assert_eq!(Discard::Flags(RST).to_string(), "RST, which is no answer to a SYN");
    }
}
