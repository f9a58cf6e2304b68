//! The command line: flags as typed, and the help, manual page and completions made from them.
mod completions;
mod document;
mod foreign_flags;
mod man_page;
mod manual;
mod modes;
mod proxy_protocol;
mod tcpdump_flags;
mod value;
mod wrong_usage;

use crate::{
    net::{MacAddr, Protocol},
    recovery::Algorithm,
    report::ReportPlace,
};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueEnum, error::ErrorKind};
pub(crate) use document::Document;
pub use proxy_protocol::ProxyProtocol;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// The flags of `-h`; `--help` and the manual page list them first.
const COMMON: &str = "Most used";
const CLIENTS: &str = "Clients and processes";
const ADDRESSES: &str = "Addresses and route";
const TIME: &str = "Time limits";
const DATA: &str = "Data";
const PACKETS: &str = "Packets";
const SNIFFER: &str = "Sniffer";
const COMPARISON: &str = "Comparison";
const SCANNING: &str = "Scanning";
const PATH: &str = "Path";
const REPORTS: &str = "Reports";
const PRIVILEGES: &str = "Privileges and offloads";

/// The flags of a run, as typed.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "netkat",
    version,
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    max_term_width = 100
)]
#[command(
    about = "netcat over a TCP/IP stack of its own: the host's firewall does not see it",
    long_about = "netcat over a TCP/IP stack of its own: the host's firewall does not see it

iptables, nftables and conntrack of this host never see netkat's connections, and the peer sees ordinary ones. So \
netkat tells the firewall from the network: if it gets through where nc does not, a rule on this host is in the way."
)]
#[command(override_usage = "netkat [OPTIONS] [-z | --compare | --trace | --mtu | --ping] HOST PORT
       netkat [OPTIONS] [--compare] -l [ADDRESS] PORT
       netkat [OPTIONS] --run -- COMMAND
       netkat [OPTIONS] {--sniff | --read FILE} [FILTER | HOST [PORTS]]")]
#[command(after_help = manual::SHORT_EXAMPLES, after_long_help = manual::long_help_end())]
pub struct Cli {
    /// Host and port to connect to; with -l, address and port to listen on
    ///
    /// A host is a name or an address; a port is a number or a name of /etc/services. With -z, ports are a
    /// list with ranges: 22,80,8000-8100, and hosts a list with networks: example.org,10.0.0.0/28. With --sniff and --read, these are tcpdump's filter, or short
    /// for it: see --sniff.
    #[arg(value_name = "HOST PORT", num_args = 0.., hide_short_help = true)]
    pub target: Vec<String>,

    /// Wait for a client instead of connecting
    ///
    /// Without -k, netkat serves the first client and exits. -l PORT, -l ADDRESS PORT, -l -p PORT and -l -s
    /// ADDRESS -p PORT are understood; port 0 is any free one, which netkat names on stderr. A port that a process has bound, or whose packets a rule of this
    /// host sends elsewhere, is refused: see --force.
    ///
    /// Example: netkat -l 5000 > copy
    #[arg(help_heading = COMMON, short, long)]
    pub listen: bool,

    /// With -l: serve client after client
    ///
    /// One client at a time, or as many as --max-conns allows. All clients get what arrives on standard
    /// input while they are connected; what they send goes to standard output. With -u, netkat hears every
    /// peer and sends its input to the peer that spoke last.
    ///
    /// Example: netkat -l -k --exec date 5000
    #[arg(help_heading = COMMON, short, long)]
    pub keep_open: bool,

    /// Connect the peer with a process
    ///
    /// The process reads the peer's data from standard input, and its standard output is sent to the peer.
    /// Its standard error is netkat's. Each client gets a process of its own. The command is split into words
    /// as a shell does, but no shell runs. The environment names both ends: NETKAT_REMOTE_ADDR,
    /// NETKAT_REMOTE_PORT, NETKAT_LOCAL_ADDR, NETKAT_LOCAL_PORT, NETKAT_PROTO. The process runs as the user
    /// who called sudo, without capabilities.
    ///
    /// Example: netkat -l -k --exec 'cat /etc/motd' 5000
    #[arg(help_heading = COMMON, long, value_name = "COMMAND", conflicts_with = "sh_exec")]
    pub exec: Option<String>,

    /// UDP instead of TCP
    ///
    /// One read of the input is one datagram, up to 65507 bytes (65527 over IPv6). Input that comes in larger
    /// pieces, as from a file, is sent in datagrams of 16 KiB. UDP has no end of a conversation: see -q.
    ///
    /// Example: echo question | netkat -u -q 1 192.0.2.53 5353
    #[arg(help_heading = COMMON, short, long)]
    pub udp: bool,

    /// Probe ports without sending data
    ///
    /// Prints a line for each port: open, refused, timed out, rejected (by which ICMP error), and the round
    /// trip of its answer. Exits with 0 if a port is open. With -u, a probe is a request that the port's service answers (DNS
    /// 53, NTP 123, SNMP 161, QUIC 443, STUN 3478, memcached 11211), else an empty datagram, and silence is
    /// open|filtered: most services ignore empty datagrams, and firewalls drop them.
    ///
    /// Hosts are a list with commas, too, of names, addresses and networks. Each address of a network is a host, and
    /// each host has a line for each port, whatever becomes of the others; there are at most 65536 lines. A port of
    /// a name is tried at one address after another until it is open.
    ///
    /// Example: netkat -z -w 1 192.0.2.10 22,80,8000-8100
    ///
    /// Example: netkat -z -w 1 10.0.0.0/28,gateway 22,443
    #[arg(help_heading = COMMON, short = 'z', long)]
    pub scan: bool,

    /// With -z: probe ports again until all are open, at most for TIME
    ///
    /// A port that is not open is probed again half a second after its answer. Its line tells how long that took and
    /// which answers came before. netkat exits with 0 once all ports are open. Without TIME it waits for ever. A name with
    /// several addresses has a port open if it is open at one of them.
    ///
    /// Example: netkat -z --until-open=2m 192.0.2.10 22,443 && deploy
    #[arg(help_heading = SCANNING, long, value_name = "TIME", num_args = 0..=1, require_equals = true, hide_short_help = true, value_parser = value::time, conflicts_with = "until_closed")]
    pub until_open: Option<Option<Duration>>,

    /// With -z: probe ports again until all are closed, at most for TIME
    ///
    /// Closed is a port that refuses, rejects or, of TCP, does not answer. A probe under way at the end of TIME is waited
    /// for. netkat exits with 0 once all ports are closed, those of a name at all of its addresses.
    #[arg(help_heading = SCANNING, long, value_name = "TIME", num_args = 0..=1, require_equals = true, hide_short_help = true, value_parser = value::time)]
    pub until_closed: Option<Option<Duration>>,

    /// With -z: probe a port that is not open up to N times more
    ///
    /// Half a second after each answer. Each time, all addresses of a name are probed, one after another.
    #[arg(help_heading = SCANNING, long, value_name = "N", hide_short_help = true, conflicts_with_all = ["until_open", "until_closed"], value_parser = clap::value_parser!(u64).range(1..))]
    pub retry: Option<u64>,

    /// With -z: send at most N probes a second
    ///
    /// A probe is a SYN, or a datagram with -u, or the request for a neighbour's link address that it waits for. SYNs and
    /// requests that are repeated for want of an answer come on top.
    ///
    /// Example: netkat -z --rate 100 10.0.0.0/24 22
    #[arg(help_heading = SCANNING, long, value_name = "N", hide_short_help = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,

    /// Run a command past this host's firewall
    ///
    /// Any program, unmodified: all its traffic, TCP, UDP and ping, over IPv4 and IPv6, with this host's
    /// addresses. The command runs in a network namespace of its own, as the invoking user without
    /// capabilities. netkat exits with its status, 125 if netkat could not start it.
    ///
    /// Example: netkat --run -- curl -v https://192.0.2.10/
    #[arg(help_heading = COMMON, long, group = "runs")]
    pub run: bool,

    /// Run $SHELL as --run does
    #[arg(help_heading = COMMON, long, group = "runs", hide_short_help = true)]
    pub shell: bool,

    /// Let others reach the command at this port, a TCP port or PORT/udp; repeatable
    ///
    /// Example: netkat --run --publish 8000 -- python3 -m http.server
    #[arg(help_heading = CLIENTS, long, value_name = "PORT", hide_short_help = true, value_parser = value::published)]
    pub publish: Vec<(Protocol, u16)>,

    /// Name servers of --run: host, relay, or the address of another one
    ///
    /// The command reads this host's /etc/resolv.conf. With host, it asks those name servers past the
    /// firewall; servers on loopback, at an address of this host, or whose packets a rule of this host
    /// translates (a ClusterIP) are asked through this host's own sockets. With relay, all of them are. With
    /// an address, that server is asked instead, past the firewall.
    #[arg(help_heading = ADDRESSES, long, value_name = "HOW", default_value = "host", hide_short_help = true, value_parser = value::dns)]
    pub dns: Dns,

    /// Let the command reach this port of this host's 127.0.0.1, a TCP port or PORT/udp; repeatable
    ///
    /// Through this host's own sockets. By default the command's 127.0.0.1 is its own.
    #[arg(help_heading = ADDRESSES, long, value_name = "PORT", hide_short_help = true, value_parser = value::published)]
    pub host_loopback: Vec<(Protocol, u16)>,

    /// Source port; with -l, the port to listen on
    ///
    /// By default netkat takes a free port. A source port below 1024 needs CAP_NET_BIND_SERVICE.
    #[arg(help_heading = COMMON, short = 'p', long, value_name = "PORT")]
    pub source_port: Option<String>,

    /// Interface, instead of the routing table's choice
    ///
    /// With -l, all interfaces by default. With --sniff, one interface, or any.
    #[arg(help_heading = COMMON, short, long, value_name = "NAME")]
    pub interface: Option<String>,

    /// Time to connect, as 500ms, 3s, 1m [default: 5s]
    ///
    /// A time is a number with ms, s, m or h behind it, or bare seconds; -1 waits for ever. The look-up of a
    /// name has this long, then each address of the host, and with -z each port. Further addresses are tried
    /// 250 ms after one another (RFC 8305). With -l, the time to wait for a client; by default netkat waits
    /// for ever.
    #[arg(help_heading = COMMON, short, long, value_name = "TIME", allow_negative_numbers = true, value_parser = value::wait)]
    pub wait: Option<Duration>,

    /// Exit this long after the end of input
    ///
    /// By default TCP waits for the peer to end, too; a UDP client waits for 1 s to hear the answer, a UDP
    /// server until it is interrupted; -1 waits for ever. While sent data is still being acknowledged, the
    /// time starts again.
    #[arg(help_heading = COMMON, short, long, value_name = "TIME", allow_negative_numbers = true, value_parser = value::time_or_forever)]
    pub quit_after: Option<Duration>,

    /// Say more on stderr; -vv and -vvv say more still
    ///
    /// -v: the steps, and at the end retransmissions, round trips and bandwidth. -vv: details. -vvv:
    /// everything. RUST_LOG, if it is set, decides instead.
    #[arg(help_heading = COMMON, short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print this page; --help explains every flag
    ///
    /// -h prints the flags most used, --help all of them, and netkat --generate man the manual page.
    #[arg(help_heading = COMMON, short, long, action = ArgAction::Help)]
    help: Option<bool>,

    /// With -k: clients, and processes, at once [default: 1; with --exec and --sh-exec: 100]
    ///
    /// Further clients wait in the backlog, of 256 connections.
    #[arg(help_heading = CLIENTS, long, value_name = "N", hide_short_help = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub max_conns: Option<u32>,

    /// Connect the peer with a command line that /bin/sh runs
    ///
    /// Example: netkat -l -k --sh-exec 'read name; echo "Hello, $name"' 5000
    #[arg(help_heading = CLIENTS, long, value_name = "COMMAND", hide_short_help = true)]
    pub sh_exec: Option<String>,

    /// With -l: only these hosts and networks may connect
    ///
    /// Separated by commas; may be repeated. A network is written as 10.0.0.0/8, fd00::/8 or fe80::%eth0/64, a
    /// host as an address or a name, which is looked up once. All others get no answer, or a reset with --reject;
    /// -v names them.
    #[arg(help_heading = CLIENTS, long, value_name = "HOST|NET,...", value_delimiter = ',', hide_short_help = true)]
    pub allow: Vec<String>,

    /// With -l: these hosts and networks may not connect, even if --allow has them
    #[arg(help_heading = CLIENTS, long, value_name = "HOST|NET,...", value_delimiter = ',', hide_short_help = true)]
    pub deny: Vec<String>,

    /// With -l: answer hosts that may not connect with a reset instead of silence
    #[arg(help_heading = CLIENTS, long, hide_short_help = true)]
    pub reject: bool,

    /// With -l: take a port even if rules of this host give its packets another destination
    ///
    /// DNAT and REDIRECT rules make a NodePort, a hostPort or a published container port. Since netkat's
    /// clients pass those rules by, clients of that service get netkat instead while it runs.
    #[arg(help_heading = CLIENTS, long, hide_short_help = true)]
    pub force: bool,

    /// With -u: send to a broadcast address, too
    ///
    /// Without this flag a broadcast address is refused, as a socket without SO_BROADCAST refuses it. A
    /// listener hears broadcasts in any case.
    ///
    /// Example: echo who | netkat -u -b 192.0.2.255 5000
    #[arg(help_heading = ADDRESSES, short, long, hide_short_help = true)]
    pub broadcast: bool,

    /// IPv4 only
    #[arg(help_heading = ADDRESSES, short = '4', long, conflicts_with = "ipv6", hide_short_help = true)]
    pub ipv4: bool,

    /// IPv6 only
    #[arg(help_heading = ADDRESSES, short = '6', long, hide_short_help = true)]
    pub ipv6: bool,

    /// Numeric addresses and ports only: look up no names
    ///
    /// Names are looked up by the system's resolver, through the kernel and so through the host's firewall.
    #[arg(help_heading = ADDRESSES, short, long, hide_short_help = true)]
    pub numeric: bool,

    /// Source address, one of this host's; with -l, the address to listen on
    ///
    /// A link-local address has its interface as zone, as fe80::1%eth0, here and wherever an address is given.
    /// Zones and -i must agree. With -u -l, the address may be a group, as 239.1.2.3 or ff02::5%eth0, which netkat
    /// joins, or a broadcast address.
    #[arg(help_heading = ADDRESSES, short, long, value_name = "ADDRESS", hide_short_help = true)]
    pub source: Option<String>,

    /// Next hop, an address or a MAC address, instead of the routing table's
    ///
    /// The next hop is a neighbour on the interface's segment. This shows what a client beyond that
    /// neighbour sees: a Kubernetes node sends a load balancer's address to another node, say.
    ///
    /// Example: netkat --via 192.0.2.1 198.51.100.7 443
    #[arg(help_heading = ADDRESSES, long, value_name = "NEXTHOP", hide_short_help = true)]
    pub via: Option<String>,

    /// Be another host on the segment: connect or listen from this address
    ///
    /// netkat first asks the segment whether a host has the address, and then answers ARP and neighbour
    /// discovery for it, with a MAC address of its own (see --as-mac). This host's kernel does not hear the
    /// address.
    ///
    /// Example: netkat --as 192.0.2.200 -i eth0 192.0.2.10 80
    #[arg(help_heading = ADDRESSES, long = "as", value_name = "ADDRESS", hide_short_help = true)]
    pub impersonate: Option<String>,

    /// MAC address for --as [default: a locally administered one, derived from the address]
    #[arg(help_heading = ADDRESSES, long, value_name = "MAC", hide_short_help = true)]
    pub as_mac: Option<MacAddr>,

    /// Abort when sent data stays unacknowledged for this long
    ///
    /// The connection then fails as timed out (RFC 5482).
    #[arg(help_heading = TIME, long, value_name = "TIME", default_value = "5m", hide_short_help = true, allow_negative_numbers = true, value_parser = value::time)]
    pub user_timeout: Duration,

    /// Exit after this long without traffic
    ///
    /// Silence in both directions for this long is a failure: timed out.
    #[arg(help_heading = TIME, long, value_name = "TIME", hide_short_help = true, allow_negative_numbers = true, value_parser = value::positive_time)]
    pub idle_timeout: Option<Duration>,

    /// Wait this long after each line sent
    ///
    /// For peers that are slow, or that take what arrives in one piece for one line. With -u, each line is
    /// a datagram.
    #[arg(help_heading = TIME, long, value_name = "TIME", hide_short_help = true, allow_negative_numbers = true, value_parser = value::positive_time)]
    pub delay: Option<Duration>,

    /// Probe the peer when the connection has been idle for this long [default: never]
    ///
    /// The connection fails when no answer comes within --user-timeout.
    #[arg(help_heading = TIME, long, value_name = "TIME", hide_short_help = true, allow_negative_numbers = true, value_parser = value::positive_time)]
    pub keepalive: Option<Duration>,

    /// Send a FIN when the input ends; the default
    ///
    /// Accepted because nc has it.
    #[arg(help_heading = DATA, short = 'N', long, conflicts_with = "no_shutdown", hide_short_help = true)]
    pub shutdown: bool,

    /// Send no FIN when the input ends, but wait for the peer to end
    ///
    /// For services that take the client's FIN for a reason to hang up before they have answered. With -u,
    /// netkat receives until it is interrupted.
    #[arg(help_heading = DATA, long, hide_short_help = true)]
    pub no_shutdown: bool,

    /// Exit when the peer ends, even if the input goes on
    ///
    /// The input read by then is still delivered. Without this flag netkat, like nc, waits for the end of its
    /// input, too: at a terminal, for Ctrl-D.
    #[arg(help_heading = DATA, long, hide_short_help = true)]
    pub quit_on_peer_close: bool,

    /// Only send: drop what the peer sends, and exit once the input has ended and is acknowledged
    #[arg(help_heading = DATA, long, conflicts_with = "recv_only", hide_short_help = true)]
    pub send_only: bool,

    /// Only receive: send a FIN at once, and exit when the peer ends
    #[arg(help_heading = DATA, long, hide_short_help = true)]
    pub recv_only: bool,

    /// Send line feeds as carriage return and line feed
    ///
    /// For line-based protocols such as SMTP and HTTP. A line feed that has its carriage return stays as it
    /// is.
    #[arg(help_heading = DATA, short = 'C', long, hide_short_help = true)]
    pub crlf: bool,

    /// Send or read a PROXY protocol header in front of the data
    ///
    /// HAProxy's protocol, by which a proxy tells a server whose connection it forwards. A client says the version, and
    /// sends the connection's own addresses or, in place of its own, the source given. A listener takes both versions,
    /// or those given (1, 2 or 1,2). It resets a connection that begins with anything else, or brings no whole header
    /// within 5 s; with -k the others go on. -v and --json report the header, and a process of --exec gets
    /// NETKAT_PROXY_VERSION and, as far as the header names them, NETKAT_PROXY_SOURCE_ADDR, NETKAT_PROXY_SOURCE_PORT,
    /// NETKAT_PROXY_DESTINATION_ADDR and NETKAT_PROXY_DESTINATION_PORT. -C, -o and -x leave the header out. --allow and
    /// --deny look at the connection's own addresses.
    ///
    /// Example: netkat --proxy-protocol 2:203.0.113.7:4000 192.0.2.10 80
    #[arg(help_heading = DATA, long, value_name = "VERSION[:ADDRESS:PORT]", num_args = 0..=1, require_equals = true, hide_short_help = true, value_parser = proxy_protocol::value)]
    pub proxy_protocol: Option<Option<ProxyProtocol>>,

    /// Copy what is sent and received to a file
    ///
    /// Both directions in their order. A new file has mode 0600; an existing one is emptied, see
    /// --append-output. With --send-only, - is standard output.
    #[arg(help_heading = DATA, short, long, value_name = "FILE", hide_short_help = true)]
    pub output: Option<PathBuf>,

    /// Copy what is sent (>) and received (<) to a file as a hex dump
    #[arg(help_heading = DATA, short = 'x', long, value_name = "FILE", hide_short_help = true)]
    pub hex_dump: Option<PathBuf>,

    /// Append to the files of -o and -x instead of emptying them
    #[arg(help_heading = DATA, long, hide_short_help = true)]
    pub append_output: bool,

    /// Buffer for each direction
    ///
    /// The most that one connection keeps of what is sent or received, and so its largest window. All
    /// connections together take at most a quarter of the memory that netkat may use (the host's, or a
    /// control group's limit), and no more than 512 MiB or eight times this size. As that fills, windows
    /// shrink.
    #[arg(help_heading = PACKETS, long, value_name = "BYTES", default_value = "4M", hide_short_help = true, allow_negative_numbers = true, value_parser = value::buffer_size)]
    pub buffer: usize,

    /// Congestion control: bbr, cubic or reno [default: the route's or the kernel's, if it is one of these, else
    /// cubic]
    ///
    /// A route's is its congctl, the kernel's net.ipv4.tcp_congestion_control. BBR keeps its rate on paths that lose packets for
    /// reasons other than congestion.
    #[arg(help_heading = PACKETS, long, value_name = "NAME", hide_short_help = true)]
    pub congestion: Option<Algorithm>,

    /// TTL or hop limit of packets sent, 1 to 255 [default: the route's, else the host's; to a group, 1]
    #[arg(help_heading = PACKETS, long, value_name = "HOPS", hide_short_help = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..))]
    pub ttl: Option<u8>,

    /// Type of service (traffic class) of packets sent: 0 to 255, 0x00 to 0xff, or a name, as ef, af21,
    /// lowdelay
    ///
    /// Policy rules of this host may choose the route by it.
    #[arg(help_heading = PACKETS, long, value_name = "TOS", default_value = "0", hide_short_help = true, allow_negative_numbers = true, value_parser = value::type_of_service)]
    pub tos: u8,

    /// Largest MSS to announce, and largest segment to send [default: the route's advmss, or what the MTU allows]
    ///
    /// A way around a path that drops large packets without an ICMP error.
    #[arg(help_heading = PACKETS, long, value_name = "BYTES", hide_short_help = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(MSS_RANGE))]
    pub mss: Option<u16>,

    /// Show the packets of an interface, as tcpdump does
    ///
    /// No connection is made and nothing is sent. The arguments are a filter of pcap-filter(7), in one
    /// argument or in several, with tcpdump's verdicts; docs/filter.md tells what differs. HOST and HOST
    /// PORTS are short for host HOST and (port PORT or portrange PORT-PORT ...), a HOST may be a network,
    /// as 192.0.2.0/24, and fragments without ports are shown, too. -u, --tcp, -4, -6 and -p PORT narrow
    /// the filter; -i names one interface, or any. A filter that is not understood is refused before
    /// anything is opened.
    ///
    /// Example: netkat --sniff -i eth0 'tcp port 443 and not host 192.0.2.10'
    #[arg(help_heading = SNIFFER, long, hide_short_help = true)]
    pub sniff: bool,

    /// Show the packets of a capture file, pcap or pcapng
    ///
    /// - is standard input; packets of a pipe are shown as they come. Needs no privileges.
    #[arg(help_heading = SNIFFER, long, value_name = "FILE", hide_short_help = true)]
    pub read: Option<PathBuf>,

    /// Show TCP only
    #[arg(help_heading = SNIFFER, long, conflicts_with = "udp", hide_short_help = true)]
    pub tcp: bool,

    /// Show packets that are not for this host, too
    ///
    /// The interface passes on every frame of its segment (promiscuous mode) while netkat runs.
    #[arg(help_heading = SNIFFER, long, hide_short_help = true)]
    pub promiscuous: bool,

    /// Exit after this many packets; with --sniff and --read: -c
    #[arg(help_heading = SNIFFER, long, value_name = "N", hide_short_help = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Record the packets in a pcapng file; with --sniff and --read: -w
    ///
    /// Works for a connection's own packets, too. --sniff then shows packets only with -d, --json or
    /// --payload. - is standard output, which takes no other output then.
    ///
    /// Example: netkat --pcap session.pcapng 192.0.2.10 80
    #[arg(help_heading = SNIFFER, long, value_name = "FILE", hide_short_help = true)]
    pub pcap: Option<PathBuf>,

    /// Show the bytes of packets below their lines, as tcpdump's flag of this name does: x, xx, X, XX, A, AA
    ///
    /// x in hexadecimal, X in hexadecimal and ASCII, A in ASCII; doubled, with the link header. -x, -X, -A
    /// and their doubles do the same.
    #[arg(help_heading = SNIFFER, long, value_name = "FORM", hide_short_help = true, conflicts_with_all = ["payload", "json"])]
    pub dump: Option<Dump>,

    /// Form of the lines: gvisor or tcpdump [default: gvisor; tcpdump with --time, --link-header and
    /// --absolute-tcp-sequence-numbers]
    ///
    /// tcpdump's is that of tcpdump -nn; sequence numbers count from the first of their connection. Payloads
    /// are not decoded. Works with -d, too.
    #[arg(help_heading = SNIFFER, long, value_name = "FORM", hide_short_help = true, conflicts_with = "json")]
    pub line: Option<LineForm>,

    /// Form of the time in tcpdump's lines; with --sniff and --read: -t, -tt, -ttt, -tttt, -ttttt
    ///
    /// None at all; seconds since 1970; the time since the packet before; date and time of day; the time
    /// since the first packet. By default the time of day.
    #[arg(help_heading = SNIFFER, long, value_name = "FORM", hide_short_help = true, conflicts_with = "json")]
    pub time: Option<TimeForm>,

    /// Show sequence numbers as they are in tcpdump's lines; with --sniff and --read: -S
    ///
    /// By default they count from the first of their connection.
    #[arg(help_heading = SNIFFER, long, hide_short_help = true, conflicts_with = "json")]
    pub absolute_tcp_sequence_numbers: bool,

    /// Show the link header in tcpdump's lines; with --sniff and --read: -e
    ///
    /// Addresses, EtherType, length and VLAN tags of Ethernet frames.
    #[arg(help_heading = SNIFFER, long, hide_short_help = true, conflicts_with = "json")]
    pub link_header: bool,

    /// Keep this many bytes of each packet, 0 for all; with --sniff and --read: -s
    ///
    /// Both what is shown and what is recorded. By default all bytes are kept.
    #[arg(help_heading = SNIFFER, long, value_name = "BYTES", hide_short_help = true, allow_negative_numbers = true)]
    pub snapshot_length: Option<u32>,

    /// List the interfaces, and exit; with --sniff: -D
    ///
    /// Each with its index, which the filter ifindex takes.
    #[arg(help_heading = SNIFFER, long, hide_short_help = true)]
    pub list_interfaces: bool,

    /// With -d, --sniff and --read: show the payload of packets, in a tunnel the innermost, in hexadecimal
    #[arg(help_heading = SNIFFER, long, hide_short_help = true)]
    pub payload: bool,

    /// Say why this host does not reach a port, or which rule of it is in the way
    ///
    /// The kernel connects once, with its packets traced through every rule of this host; then netkat
    /// connects past the rules, from the same source port. The answer, on standard output, names what made the
    /// difference: the rule, policy, route or missing neighbour, with the evidence for it; or says that it is
    /// not this host. The server sees two connections that are reset. With -u both paths send an empty datagram,
    /// again every second, and wait for an answer. -w is the time of each path, 3s by default. docs/compare.md has
    /// the limits.
    ///
    /// With -l it is the other question: why do clients not reach a server on this host? netkat watches SYNs to the
    /// port, and what this host does with them and with the answers, for -w, 30s by default, or until Ctrl-C. It
    /// takes and sends nothing. The answer has a block for each cause, with its clients.
    ///
    /// Example: netkat --compare 192.0.2.10 443
    ///
    /// Example: netkat --compare -l 8080
    #[arg(help_heading = COMPARISON, long, hide_short_help = true)]
    pub compare: bool,

    /// With --compare and --sniff: work in this network namespace: of a process, of `ip netns`, or of a file
    ///
    /// --compare watches the rules of both namespaces, that one's and netkat's own: a pod's packets pass the node's
    /// rules, too. Needs CAP_SYS_ADMIN.
    ///
    /// Example: netkat --compare --netns 4711 192.0.2.10 443
    #[arg(help_heading = COMPARISON, long, value_name = "PID|NAME|FILE", hide_short_help = true)]
    pub netns: Option<String>,

    /// With --compare: the folder of the control group that the kernel connects from
    ///
    /// Programs of control groups, and rules that match them, may look at it. Needs write access.
    #[arg(help_heading = COMPARISON, long, value_name = "DIR", hide_short_help = true)]
    pub cgroup: Option<PathBuf>,

    /// With --compare: connect as this process would: its network namespace, control group and user
    ///
    /// Example: netkat --compare --like $(pgrep -o myservice) 192.0.2.10 443
    #[arg(help_heading = COMPARISON, long, value_name = "PID", hide_short_help = true, conflicts_with_all = ["netns", "cgroup", "user"], value_parser = clap::value_parser!(u32).range(1..))]
    pub like: Option<u32>,

    /// With --compare -l: end a second after the first proof of what stops a client
    #[arg(help_heading = COMPARISON, long, hide_short_help = true)]
    pub once: bool,

    /// With --compare: number of attempts, each by both paths
    ///
    /// By default one, and two more where a difference has no explanation. Rules with a limit or a random number
    /// stop some trials and not others; the answer then says how many were stopped.
    #[arg(help_heading = COMPARISON, long, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub trials: Option<u8>,

    /// With --compare: the user, by name or number, as whom the kernel connects
    ///
    /// Rules may look at the user of a packet's socket. By default it is the user who runs netkat.
    #[arg(help_heading = COMPARISON, long, value_name = "USER", hide_short_help = true)]
    pub user: Option<String>,

    /// Show the hops of this very flow, and where it dies
    ///
    /// SYNs with rising hop limits leave at once, all from the port that the connection then uses; once it is
    /// established, repeats of its last acknowledged byte, which no receiver takes twice. With -u, datagrams. Each hop is
    /// shown with three round trips, and with what its ICMP error shows to have happened to the packet before it: other
    /// addresses or ports (NAT), DSCP, ECN, MSS, MPLS labels. --ttl is the number of hops, 30 by default; -v looks up
    /// their names. The status is that of a connection.
    ///
    /// Example: netkat --trace 192.0.2.10 443
    #[arg(help_heading = PATH, long, hide_short_help = true)]
    pub trace: bool,

    /// Measure the path's MTU with packets of this very flow
    ///
    /// Repeats of acknowledged bytes, as long as it takes, which the peer acknowledges again and drops; with -u, datagrams.
    /// The answer says how much arrives, which router says "too big", what the MSS of both sides allow, and whether there
    /// is a black hole: large packets are lost without a word. Status 1 then, 3 with --exit-verdict.
    ///
    /// Example: netkat --mtu 192.0.2.10 443
    #[arg(help_heading = PATH, long, hide_short_help = true)]
    pub mtu: bool,

    /// Ping ports: the time from SYN to SYN-ACK, until COUNT or Ctrl-C
    ///
    /// Hosts are separated by commas; ports are a list as of -z, or several words. A line for each ping says open, refused,
    /// rejected, or no answer within -w, 1s by default, with the round trip by the kernel's times of sending and
    /// arrival. At the end: loss, the distribution, jitter, and a histogram. A half-open connection is reset at once, so no
    /// application sees it. With -u, datagrams: an answer, or the host's own port unreachable. netkat exits with 0 if a port
    /// has answered as open, after Ctrl-C, too.
    ///
    /// Example: netkat --ping=10 192.0.2.10 443
    #[arg(help_heading = PATH, long, value_name = "COUNT", num_args = 0..=1, require_equals = true, hide_short_help = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub ping: Option<Option<u64>>,

    /// With --ping: time between two pings of a port, at least 1ms [default: 1s]
    ///
    /// The pings of several targets are spread over it, from a hundred a second on in groups 5 ms apart, at most.
    #[arg(help_heading = PATH, long, value_name = "TIME", hide_short_help = true, allow_negative_numbers = true, value_parser = value::interval)]
    pub interval: Option<Duration>,

    /// With --ping: connect by this host's own path, too
    ///
    /// connect(2) to each target, half an interval after netkat's ping, timed by the kernel from before its rules at output to
    /// behind those at input. The difference is what this host's rules and stack make. The server sees connections that
    /// are reset. At most 500 targets.
    #[arg(help_heading = PATH, long, hide_short_help = true, conflicts_with_all = ["via", "impersonate", "past_egress"])]
    pub both: bool,

    /// Send past tc and tcx programs at egress, and past the root queueing disciplines
    ///
    /// PACKET_QDISC_BYPASS of packet(7): tells whether a CNI's program or a shaper is the cause. nft's netdev egress still
    /// holds. Packets leave without a queue and without super-frames; tcpdump on this host does not see them. Not on lo.
    /// --compare tries this by itself where this host's own egress drops.
    ///
    /// Example: netkat --past-egress 192.0.2.10 443
    #[arg(help_heading = PATH, long, hide_short_help = true)]
    pub past_egress: bool,

    /// With --trace: trace from so many source ports, and show where their paths part
    ///
    /// Routers that share traffic among several links choose by the ports. With -p, the ports follow that one.
    #[arg(help_heading = PATH, long, value_name = "N", hide_short_help = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub paths: Option<u16>,

    /// Print a line on stderr for each frame sent and received
    #[arg(help_heading = REPORTS, short, long, hide_short_help = true)]
    pub debug: bool,

    /// Show bytes, rate and time on stderr, if it is a terminal
    ///
    /// Both directions are counted apart. For a file as standard input, its share and the time left are shown, too.
    #[arg(help_heading = REPORTS, long, hide_short_help = true)]
    pub progress: bool,

    /// Report the outcome as a JSON object, on a line of stderr or in FILE
    ///
    /// With -k an object for each client comes before that of the run, with -z one for each port. With -d, --sniff
    /// and --read, packets are shown as JSON, an object a line. The manual page lists the fields. The file - is
    /// standard output, where nothing else goes there; of -z, --compare, --trace, --mtu and --ping, the objects take the text's place. A
    /// number is a descriptor: --json=3 3>FILE.
    ///
    /// Example: netkat -z --json=result.json 192.0.2.10 22,80
    #[arg(help_heading = REPORTS, long, value_name = "FILE", num_args = 0..=1, require_equals = true, hide_short_help = true)]
    pub json: Option<Option<PathBuf>>,

    /// Use exit statuses that tell failures apart
    ///
    /// 3 timed out, 4 refused, 5 rejected by ICMP, 6 no route or neighbour, 7 missing privilege, 8 dropped
    /// by this host's own egress, 9 name look-up failed; 1 remains for other failures. With --compare, 10 captured, 11 this host, 12
    /// only the kernel, 14 unknown. Without this flag every failure is 1, as nc's.
    #[arg(help_heading = REPORTS, long, hide_short_help = true)]
    pub exit_verdict: bool,

    /// Print the manual page or a shell's completions, and exit
    ///
    /// Example: netkat --generate man | man -l -
    #[arg(help_heading = REPORTS, long, value_name = "WHAT", exclusive = true, hide_short_help = true)]
    pub generate: Option<Document>,

    /// Print the version, and exit
    #[arg(help_heading = REPORTS, long, action = ArgAction::Version, hide_short_help = true)]
    version: Option<bool>,

    /// Let the command of --run use raw sockets
    ///
    /// It then has CAP_NET_RAW in its own network namespace, for traceroute -T, hping3, nmap -sS and
    /// tcpdump. netkat still drops what is not of the command's own addresses, ports and flows.
    #[arg(help_heading = PRIVILEGES, long, hide_short_help = true)]
    pub raw: bool,

    /// Give up capabilities only: keep the user, the file system and all system calls
    ///
    /// By default netkat, once everything is open, goes on as the user who called sudo or as nobody, opens
    /// no more files and makes only the system calls that it needs.
    #[arg(help_heading = PRIVILEGES, long, hide_short_help = true)]
    pub no_sandbox: bool,

    /// Send no super-frames
    ///
    /// netkat hands the kernel up to 64 KB at once, which the kernel or the device cuts into frames (GSO).
    /// Without that every frame is a system call: slower, but what the device gets is what netkat wrote.
    #[arg(help_heading = PRIVILEGES, long, hide_short_help = true)]
    pub no_gso: bool,

    /// Use no virtio-net header, and so no offload at all
    ///
    /// Neither super-frames nor checksums are left to the device, in either direction.
    #[arg(help_heading = PRIVILEGES, long, hide_short_help = true)]
    pub no_vnet_header: bool,

    /// How to keep the kernel from our packets
    #[arg(long, value_name = "HOOK", default_value = "auto", hide = true)]
    pub guard: Hook,

    /// Pretend that the kernel lacks these features
    #[arg(long, value_name = "FEATURE", value_delimiter = ',', hide = true)]
    pub without: Vec<Feature>,
}

/// Returns where arguments that may be wrong ask for a report. Runs that only show packets have no report.
pub fn report_wanted(arguments: &[OsString]) -> Option<ReportPlace> {
    let words =
        || arguments.iter().skip(1).take_while(|word| *word != "--").map(|word| word.to_string_lossy());
    if words().any(|word| word == "--sniff" || word == "--read" || word.starts_with("--read=")) {
        return None;
    }
    words()
        .filter_map(|word| match word.split_once('=') {
            Some(("--json", file)) => Some(ReportPlace::new(Some(Path::new(file)))),
            None if word == "--json" => Some(ReportPlace::Stderr),
            _ => None,
        })
        .last()
}

/// Returns whether a text can be read as a time.
pub(crate) fn is_time(text: &str) -> bool {
    value::time(text).is_ok()
}

/// Range of --mss, in bytes: from the least that Linux accepts (include/net/tcp.h, TCP_MIN_MSS) to the most
/// that fits into an IPv4 packet.
const MSS_RANGE: std::ops::RangeInclusive<i64> = 88..=65_495;

/// The reason why arguments make no run.
#[derive(Debug)]
pub enum NotRun {
    /// Help or the version, to print.
    Print(clap::Error),
    /// Wrong usage, in words.
    Wrong(String),
}

impl From<clap::Error> for NotRun {
    fn from(error: clap::Error) -> NotRun {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => NotRun::Print(error),
            _ => NotRun::Wrong(wrong_usage::words(&error)),
        }
    }
}

impl Cli {
    /// Parses the arguments; the first is the program's name. Beside --sniff and --read they have tcpdump's meaning.
    ///
    /// # Errors
    /// [`NotRun`]: help and version, and wrong usage; a flag of nc, ncat or tcpdump that netkat lacks gets advice.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, NotRun> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let arguments = match tcpdump_flags::is_for_a_sniffer(&arguments) {
            true => tcpdump_flags::translate(arguments).map_err(NotRun::Wrong)?,
            false => arguments,
        };
        let arguments = proxy_protocol::joined(arguments);
        let matches = Cli::command().try_get_matches_from(arguments).map_err(NotRun::from)?;
        let cli = Cli::from_arg_matches(&matches).map_err(NotRun::from)?;
        modes::check(&cli, &matches).map_err(NotRun::Wrong)?;
        Ok(cli)
    }

    /// Returns whether a run that watches only shows packets: without --pcap, or if that is asked for.
    pub(crate) fn shows_packets(&self) -> bool {
        self.pcap.is_none() || self.debug || self.json.is_some() || self.payload || self.dump.is_some()
    }

    /// Returns where the objects of --json go; `None` without it, and for a run that only shows packets.
    pub fn report_place(&self) -> Option<ReportPlace> {
        let file = self.json.as_ref().filter(|_| !self.watches_only())?;
        Some(ReportPlace::new(file.as_deref()))
    }

    /// Returns whether the run is that of a command.
    pub(crate) fn runs_command(&self) -> bool {
        self.run || self.shell
    }

    /// Returns whether the run only shows packets, of an interface or a file.
    pub fn watches_only(&self) -> bool {
        self.sniff || self.read.is_some()
    }
}

/// The name servers of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// This host's, past the firewall where they can be reached so.
    Host,
    /// This host's, through its own sockets.
    Relay,
    /// Another one, past the firewall.
    Server(String),
}

/// The way in which the kernel is kept from our packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// netfilter for one connection, else tcx where the kernel has it and has room, else clsact; nft where no program
    /// may be loaded
    Auto,
    /// A program at netfilter's PREROUTING hook (Linux 6.4)
    Netfilter,
    /// tcx (Linux 6.6)
    Tcx,
    /// A filter of the clsact qdisc
    Clsact,
    /// Rules of nftables and a classic socket filter instead of programs
    Nft,
}

/// The form of a packet's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values name programs, and --help would print the comments")]
pub enum LineForm {
    Gvisor,
    Tcpdump,
}

/// The form of the time in tcpdump's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "--time explains them, and --help would print the comments")]
pub enum TimeForm {
    None,
    Epoch,
    Delta,
    Date,
    Elapsed,
}

/// The form in which --dump shows the bytes of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the values are tcpdump's flags, and --help would print the comments")]
pub enum Dump {
    #[value(name = "x")]
    Hex,
    #[value(name = "xx")]
    HexWithLink,
    #[value(name = "X")]
    HexAndAscii,
    #[value(name = "XX")]
    HexAndAsciiWithLink,
    #[value(name = "A")]
    Ascii,
    #[value(name = "AA")]
    AsciiWithLink,
}

/// A feature that an older kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Feature {
    /// tcx (Linux 6.6)
    Tcx,
    /// Programs at netfilter's hooks (Linux 6.4)
    Netfilter,
    /// Attaching in front of other tcx programs
    Before,
    /// The virtio-net header of packet sockets
    VnetHeader,
    /// The receive ring of packet sockets
    Ring,
    /// Tables of nf_tables that go with their socket (Linux 5.12)
    Owner,
    /// Drop events (CAP_PERFMON, and Linux 5.8)
    DropEvents,
    /// The fast path of --run (Linux 5.10)
    FastPath,
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
