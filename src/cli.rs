//! The command line: flags, what is generated from them, and nothing else.
mod habits;
mod manual;
mod value;

use crate::{net::MacAddr, recovery::Algorithm};
use clap::{ArgAction, CommandFactory, Parser, ValueEnum};
use clap_complete::Shell;
use std::{
    ffi::OsString,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

const MODES: &str = "Modes";
const ADDRESSES: &str = "Addresses";
const ROUTE: &str = "Route";
const TIME: &str = "Time: 500ms, 3s, 1m, 2h, or bare seconds";
const DATA: &str = "Data";
const SNIFFER: &str = "Sniffer";
const PACKETS: &str = "Packets";
const REPORTS: &str = "Reports";

/// netcat over a TCP/IP stack of its own: the host's firewall does not see it.
#[derive(Clone, Debug, Parser)]
#[command(name = "netkat", version, disable_version_flag = true, max_term_width = 100)]
#[command(override_usage = "netkat [OPTIONS] HOST PORT
       netkat [OPTIONS] -l [ADDRESS] PORT
       netkat [OPTIONS] -z HOST PORTS
       netkat [OPTIONS] --sniff [HOST [PORT]]
       netkat [OPTIONS] --read FILE [HOST [PORT]]")]
#[command(after_help = "netkat --help says more; netkat --generate man | man -l - shows the manual.")]
#[command(after_long_help = manual::short())]
pub struct Cli {
    /// Where to connect to; with -l, the address and port to listen on
    #[arg(value_name = "HOST PORT", num_args = 0..)]
    pub target: Vec<String>,

    /// Listen for a connection instead of making one
    #[arg(help_heading = MODES, short, long)]
    pub listen: bool,

    /// With -l: serve client after client instead of one; with -u: everybody, and input goes to whoever spoke last
    #[arg(help_heading = MODES, short, long, requires = "listen")]
    pub keep_open: bool,

    /// With -k: how many clients, and processes, at once [default: 1; with --exec and --sh-exec: 100]
    #[arg(help_heading = MODES, long, value_name = "N", requires = "keep_open", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub max_conns: Option<u32>,

    /// Connect the peer with a process instead of standard input and output; each client gets its own
    #[arg(help_heading = MODES, long, value_name = "COMMAND", conflicts_with = "sh_exec")]
    pub exec: Option<String>,

    /// The same with a command line for /bin/sh
    #[arg(help_heading = MODES, long, value_name = "COMMAND")]
    pub sh_exec: Option<String>,

    /// With -l: only these hosts and networks may connect, as 10.0.0.0/8; may be repeated
    #[arg(help_heading = MODES, long, value_name = "HOST|NET,...", requires = "listen", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// With -l: these hosts and networks may not connect, even if allowed; may be repeated
    #[arg(help_heading = MODES, long, value_name = "HOST|NET,...", requires = "listen", value_delimiter = ',')]
    pub deny: Vec<String>,

    /// With -l: answer those who may not connect with a reset instead of not at all
    #[arg(help_heading = MODES, long, requires = "listen")]
    pub reject: bool,

    /// With -l: take a port even if rules of this host (DNAT, REDIRECT) give its packets another destination, as a
    /// NodePort's or a published container port's; its clients get netkat then
    #[arg(help_heading = MODES, long, requires = "listen")]
    pub force: bool,

    /// UDP instead of TCP: one read of the input is one datagram, up to 65507 bytes (65527 over IPv6); what is
    /// read in larger pieces, as a file is, goes in datagrams of 16 KiB. With -z, see there
    #[arg(help_heading = MODES, short, long)]
    pub udp: bool,

    /// Probe ports without sending data: one, or ranges and lists, as 22,80,8000-8100; with -u, by empty
    /// datagrams, to which silence may mean anything (open|filtered)
    #[arg(help_heading = MODES, short = 'z', long, conflicts_with_all = ["listen", "exec", "sh_exec", "send_only", "recv_only"])]
    pub scan: bool,

    /// IPv4 only
    #[arg(help_heading = ADDRESSES, short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// IPv6 only
    #[arg(help_heading = ADDRESSES, short = '6', long)]
    pub ipv6: bool,

    /// Numeric addresses and ports only; look up no names
    #[arg(help_heading = ADDRESSES, short, long)]
    pub numeric: bool,

    /// Source address; must be one of this host's (with -l: the address to listen on)
    #[arg(help_heading = ADDRESSES, short, long, value_name = "ADDRESS")]
    pub source: Option<String>,

    /// Source port (with -l: the port to listen on)
    #[arg(help_heading = ADDRESSES, short = 'p', long, value_name = "PORT")]
    pub source_port: Option<String>,

    /// Network interface; by default the one that the routing table chooses (with -l: all)
    #[arg(help_heading = ROUTE, short, long, value_name = "NAME")]
    pub interface: Option<String>,

    /// Next hop on the segment, an address or a MAC address, whatever the routing table says
    #[arg(help_heading = ROUTE, long, value_name = "NEXTHOP", conflicts_with = "listen")]
    pub via: Option<String>,

    /// Be another host on the segment: answer for this address, connect and listen from it
    #[arg(help_heading = ROUTE, long = "as", value_name = "ADDRESS")]
    pub impersonate: Option<IpAddr>,

    /// MAC address for --as [default: a locally administered one, derived from the address]
    #[arg(help_heading = ROUTE, long, value_name = "MAC", requires = "impersonate")]
    pub as_mac: Option<MacAddr>,

    /// How long to try to connect, e.g. 500ms, 3s, 1m, or bare seconds [default: 5s; with -l: for ever]
    #[arg(help_heading = TIME, short, long, value_name = "TIME", value_parser = value::time)]
    pub wait: Option<Duration>,

    /// Leave this long after the end of input, even if the peer has not ended [default with -u: 1s, with -u -l:
    /// never]
    #[arg(help_heading = TIME, short, long, value_name = "TIME", value_parser = value::time)]
    pub quit_after: Option<Duration>,

    /// Give up when the peer acknowledges nothing for so long
    #[arg(help_heading = TIME, long, value_name = "TIME", default_value = "5m", conflicts_with = "udp", value_parser = value::time)]
    pub user_timeout: Duration,

    /// Leave when no byte has come or gone for so long
    #[arg(help_heading = TIME, long, value_name = "TIME", value_parser = value::positive_time)]
    pub idle_timeout: Option<Duration>,

    /// End our side of the connection when the input ends; the default
    #[arg(help_heading = DATA, short = 'N', long, conflicts_with = "no_shutdown")]
    pub shutdown: bool,

    /// Keep our side of the connection open when the input ends, until the peer ends; with -u, until
    /// interrupted
    #[arg(help_heading = DATA, long)]
    pub no_shutdown: bool,

    /// Only send: what the peer sends is dropped, and the end of input is the end
    #[arg(help_heading = DATA, long, conflicts_with = "recv_only")]
    pub send_only: bool,

    /// Only receive: send nothing, end our side at once
    #[arg(help_heading = DATA, long)]
    pub recv_only: bool,

    /// Send line feeds as carriage return and line feed
    #[arg(help_heading = DATA, short = 'C', long, conflicts_with_all = ["udp", "scan", "exec", "sh_exec"])]
    pub crlf: bool,

    /// Wait this long after each line that is sent; with -u, each line is a datagram of its own
    #[arg(help_heading = TIME, long, value_name = "TIME", conflicts_with_all = ["scan", "exec", "sh_exec"], value_parser = value::positive_time)]
    pub delay: Option<Duration>,

    /// Copy what is sent and received to a file, in its order
    #[arg(help_heading = DATA, short, long, value_name = "FILE", conflicts_with_all = ["udp", "scan", "exec", "sh_exec"])]
    pub output: Option<PathBuf>,

    /// The same as a hex dump, > before what is sent, < before what is received
    #[arg(help_heading = DATA, short = 'x', long, value_name = "FILE", conflicts_with_all = ["udp", "scan", "exec", "sh_exec"])]
    pub hex_dump: Option<PathBuf>,

    /// Continue the files of -o and -x instead of beginning them anew
    #[arg(help_heading = DATA, long)]
    pub append_output: bool,

    /// Show bytes, rate and time on stderr, if it is a terminal
    #[arg(help_heading = REPORTS, long, conflicts_with_all = ["udp", "scan", "exec", "sh_exec"])]
    pub progress: bool,

    /// Buffer for each direction
    ///
    /// The most that one connection keeps of what is sent or received, and so its largest window. All connections
    /// together take at most a quarter of the memory that netkat may use (the host's, or a control group's limit), and no
    /// more than 512 MiB or eight times this size. As that fills, windows shrink.
    #[arg(help_heading = PACKETS, long, value_name = "BYTES", default_value = "4M", conflicts_with = "udp", value_parser = value::buffer_size)]
    pub buffer: usize,

    /// Congestion control: bbr, cubic or reno [default: the system's, if it is one of these, else cubic]
    #[arg(help_heading = PACKETS, long, value_name = "NAME", conflicts_with = "udp")]
    pub congestion: Option<Algorithm>,

    /// Do not let the kernel cut super-frames
    #[arg(help_heading = PACKETS, long)]
    pub no_gso: bool,

    /// Do without the virtio-net header, and so without any offload
    #[arg(help_heading = PACKETS, long)]
    pub no_vnet_header: bool,

    /// TTL or hop limit of what is sent, 1 to 255 [default: the route's, else 64]
    #[arg(help_heading = PACKETS, long, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    pub ttl: Option<u8>,

    /// Type of service (traffic class) of what is sent: 0 to 255, 0x00 to 0xff, or a name, as ef, af21, lowdelay
    #[arg(help_heading = PACKETS, long, value_name = "TOS", default_value = "0", value_parser = value::type_of_service)]
    pub tos: u8,

    /// Announce at most this MSS, and send no larger segments [default: what the MTU allows]
    #[arg(help_heading = PACKETS, long, value_name = "BYTES", conflicts_with = "udp", value_parser = clap::value_parser!(u16).range(MSS_RANGE))]
    pub mss: Option<u16>,

    /// Probe the peer when the connection has been idle for so long [default: never]
    #[arg(help_heading = PACKETS, long, value_name = "TIME", conflicts_with = "udp", value_parser = value::positive_time)]
    pub keepalive: Option<Duration>,

    /// Only watch: show the packets of an interface (-i NAME, or any), of a protocol (-u, --tcp), of HOST, of PORT
    #[arg(help_heading = SNIFFER, long, conflicts_with_all = ["listen", "via", "impersonate", "source"])]
    pub sniff: bool,

    /// Show the packets of a capture file, pcap or pcapng
    #[arg(help_heading = SNIFFER, long, value_name = "FILE", conflicts_with_all = ["sniff", "listen", "via", "impersonate", "source", "interface"])]
    pub read: Option<PathBuf>,

    /// Watch TCP only
    #[arg(help_heading = SNIFFER, long, conflicts_with = "udp")]
    pub tcp: bool,

    /// Watch what others on the segment say to each other, too
    #[arg(help_heading = SNIFFER, long, requires = "sniff", requires = "interface")]
    pub promiscuous: bool,

    /// Stop watching after so many packets
    #[arg(help_heading = SNIFFER, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Record the packets in a file, as pcapng; what is watched is then shown only with -d, --json or --payload
    #[arg(help_heading = SNIFFER, long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Report the outcome as a JSON object on a line of stderr, or in FILE; with -k, one for each client before.
    /// With -d, --sniff and --read, show packets as JSON, an object a line
    #[arg(help_heading = REPORTS, long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub json: Option<Option<PathBuf>>,

    /// Show the payload of packets in hexadecimal
    #[arg(help_heading = SNIFFER, long)]
    pub payload: bool,

    /// Print a line on stderr for each frame sent and received
    #[arg(help_heading = REPORTS, short, long)]
    pub debug: bool,

    /// Say more on stderr: -v the steps, -vv details, -vvv everything
    #[arg(help_heading = REPORTS, short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Exit statuses that tell failures apart: 3 timed out, 4 refused, 5 rejected by ICMP, 6 no route or neighbour,
    /// 7 missing privilege, 8 dropped by this host's own egress
    #[arg(help_heading = REPORTS, long)]
    pub exit_verdict: bool,

    /// Once everything is open, give up capabilities only: keep the user, the file system and all system calls
    #[arg(help_heading = MODES, long)]
    pub no_sandbox: bool,

    /// Where to attach the programs
    #[arg(long, value_name = "HOOK", default_value = "auto", hide = true)]
    pub guard: Hook,

    /// Take these for missing from the kernel, and do what is done where they are
    #[arg(long, value_name = "FEATURE", value_delimiter = ',', hide = true, conflicts_with = "read")]
    pub without: Vec<Feature>,

    /// Print the manual page or a shell's completions, and leave
    #[arg(help_heading = REPORTS, long, value_name = "WHAT", exclusive = true)]
    pub generate: Option<Document>,

    /// Print the version, and leave
    #[arg(help_heading = REPORTS, long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// Whether a text can be read as a time.
pub fn is_time(text: &str) -> bool {
    value::time(text).is_ok()
}

/// The MSS that Linux takes for sane (include/net/tcp.h, TCP_MIN_MSS), and the largest that fits into an IPv4
/// packet, in bytes.
const MSS_RANGE: std::ops::RangeInclusive<i64> = 88..=65_495;

/// What --generate prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    Man,
    Bash,
    Zsh,
    Fish,
}

impl Document {
    /// The document, made from the same definitions as the parser.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let mut command = Cli::command();
        let shell = match self {
            Document::Man => return manual::page(command, out),
            Document::Bash => Shell::Bash,
            Document::Zsh => Shell::Zsh,
            Document::Fish => Shell::Fish,
        };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "netkat", &mut text);
        out.write_all(&text)
    }
}

impl Cli {
    /// Reads the arguments; what they begin with is the program's name.
    ///
    /// # Errors
    /// Help and version, too, come as errors. Flags that nc or ncat has and netkat does otherwise are told apart
    /// from unknown ones.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(arguments).map_err(habits::explain)
    }

    /// Whether only packets of others are to be shown.
    pub fn watches_only(&self) -> bool {
        self.sniff || self.read.is_some()
    }
}

/// Where programs are attached at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// tcx where the kernel has it and has room, else clsact
    Auto,
    Tcx,
    Clsact,
}

/// What an older kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Feature {
    Tcx,
    Before,
    VnetHeader,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_belongs_to_a_group() {
        for flag in Cli::command().get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()) {
            assert!(flag.get_help_heading().is_some(), "{}", flag.get_id());
        }
    }
}
