//! The command line: flags, and nothing else.
use crate::{net::MacAddr, recovery::Algorithm};
use clap::{ArgAction, Parser, ValueEnum};
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// netcat over a TCP/IP stack of its own: the host's firewall does not see it.
#[derive(Clone, Debug, Parser)]
#[command(name = "netkat", version, max_term_width = 100)]
#[command(
    override_usage = "netkat [OPTIONS] HOST PORT\n       netkat [OPTIONS] -l [ADDRESS] PORT\n       netkat [OPTIONS] --sniff [HOST [PORT]]\n       netkat [OPTIONS] --read FILE [HOST [PORT]]"
)]
pub struct Cli {
    /// Where to connect to; with -l, the address and port to listen on
    #[arg(value_name = "HOST PORT", num_args = 0..=2)]
    pub target: Vec<String>,

    /// Listen for a connection instead of making one
    #[arg(short, long)]
    pub listen: bool,

    /// With -l: serve client after client instead of one; with -u: everybody, and input goes to whoever spoke last
    #[arg(short, long, requires = "listen")]
    pub keep_open: bool,

    /// With -k: how many clients at once [default: 1; with --exec and --sh-exec: 100]
    #[arg(long, value_name = "N", requires = "keep_open", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub max_conns: Option<u32>,

    /// Connect the peer with a process instead of standard input and output; each client gets its own
    #[arg(long, value_name = "COMMAND", conflicts_with = "sh_exec")]
    pub exec: Option<String>,

    /// The same with a command line for /bin/sh
    #[arg(long, value_name = "COMMAND")]
    pub sh_exec: Option<String>,

    /// With -l: only these hosts and networks may connect, as 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "HOST|NET,...", requires = "listen", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// With -l: these hosts and networks may not connect, even if allowed; may be repeated
    #[arg(long, value_name = "HOST|NET,...", requires = "listen", value_delimiter = ',')]
    pub deny: Vec<String>,

    /// With -l: answer those who may not connect with a reset instead of not at all
    #[arg(long, requires = "listen")]
    pub reject: bool,

    /// UDP instead of TCP: one read of the input is one datagram, up to 65507 bytes (65527 over IPv6); what is
    /// read in larger pieces, as a file is, goes in datagrams of 16 KiB
    #[arg(short, long)]
    pub udp: bool,
    /// IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// IPv6 only
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Numeric addresses and ports only; look up no names
    #[arg(short, long)]
    pub numeric: bool,

    /// Source address; must be one of this host's (with -l: the address to listen on)
    #[arg(short, long, value_name = "ADDRESS")]
    pub source: Option<String>,

    /// Source port (with -l: the port to listen on)
    #[arg(short = 'p', long, value_name = "PORT")]
    pub source_port: Option<String>,

    /// Network interface; by default the one that the routing table chooses (with -l: all)
    #[arg(short, long, value_name = "NAME")]
    pub interface: Option<String>,

    /// Next hop on the segment, an address or a MAC address, whatever the routing table says
    #[arg(long, value_name = "NEXTHOP", conflicts_with = "listen")]
    pub via: Option<String>,

    /// Be another host on the segment: answer for this address, connect and listen from it
    #[arg(long = "as", value_name = "ADDRESS")]
    pub impersonate: Option<IpAddr>,

    /// MAC address for --as [default: a locally administered one, derived from the address]
    #[arg(long, value_name = "MAC", requires = "impersonate")]
    pub as_mac: Option<MacAddr>,

    /// How long to try to connect, e.g. 500ms, 3s, 1m, or bare seconds [default: 5s; with -l: for ever]
    #[arg(short, long, value_name = "TIME", value_parser = parse_time)]
    pub wait: Option<Duration>,

    /// Leave this long after the end of input, even if the peer has not ended [default with -u: 1s, with -u -l:
    /// never]
    #[arg(short, long, value_name = "TIME", value_parser = parse_time)]
    pub quit_after: Option<Duration>,

    /// End our side of the connection when the input ends; the default
    #[arg(short = 'N', long, conflicts_with = "no_shutdown")]
    pub shutdown: bool,

    /// Keep our side of the connection open when the input ends, until the peer ends; with -u, until
    /// interrupted
    #[arg(long)]
    pub no_shutdown: bool,

    /// Only watch: show the packets of an interface (-i NAME, or any), of a protocol (-u, --tcp), of HOST, of PORT
    #[arg(long, conflicts_with_all = ["listen", "via", "impersonate", "source"])]
    pub sniff: bool,

    /// Show the packets of a capture file, pcap or pcapng
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sniff", "listen", "via", "impersonate", "source", "interface"])]
    pub read: Option<PathBuf>,

    /// Watch TCP only
    #[arg(long, conflicts_with = "udp")]
    pub tcp: bool,

    /// Watch what others on the segment say to each other, too
    #[arg(long, requires = "sniff", requires = "interface")]
    pub promiscuous: bool,

    /// Stop watching after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Record the packets in a file, as pcapng; what is watched is then shown only with -d, --json or --payload
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Show packets as JSON, an object a line
    #[arg(long)]
    pub json: bool,

    /// Show the payload of packets in hexadecimal
    #[arg(long)]
    pub payload: bool,

    /// Print a line on stderr for each frame sent and received
    #[arg(short, long)]
    pub debug: bool,

    /// Say more on stderr: -v the steps, -vv details, -vvv everything
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Buffer for each direction
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = parse_size)]
    pub buffer: usize,

    /// Congestion control: bbr, cubic or reno [default: the system's, if it is one of these, else cubic]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<Algorithm>,

    /// Give up when the peer acknowledges nothing for so long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    pub user_timeout: Duration,

    /// Do not let the kernel cut super-frames
    #[arg(long)]
    pub no_gso: bool,

    /// Do without the virtio-net header, and so without any offload
    #[arg(long)]
    pub no_vnet_header: bool,

    /// Where to attach the programs
    #[arg(long, value_name = "HOOK", default_value = "auto", hide = true)]
    pub guard: Hook,
}

/// Where programs are attached at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// tcx where the kernel has it, else clsact
    Auto,
    Tcx,
    Clsact,
}

/// Reads a time: a number with ms, s, m or h behind it, or bare seconds.
fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time as 500ms, 3s, 1m, 2h or bare seconds, as 1.5".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| wrong())
}

/// The smallest buffer that holds a few segments of any size, and the largest that TCP's window can use
/// (RFC 7323, section 2.3), in bytes.
const BUFFER_RANGE: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 30;

/// Reads a buffer size: bytes, or a number with K, M or G behind it.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err("write a size in bytes, or as 512K, 4M, 1G".to_owned()),
    };
    let size = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(scale));
    match size.filter(|size| BUFFER_RANGE.contains(size)) {
        Some(size) => Ok(size),
        None => Err("a buffer has 64K to 1G bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_and_without_unit() {
        for (text, millis) in
            [("500ms", 500), ("3s", 3000), ("1m", 60_000), ("2", 2000), ("0.25", 250), ("0", 0)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "1d", "1 s", "nan", "inf", "1e400"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(parse_size("64K"), Ok(65_536));
        assert_eq!(parse_size("8m"), Ok(8 << 20));
        for text in ["", "1", "2G", "-1M", "4MB", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
