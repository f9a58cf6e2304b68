//! The sections of the manual page that no flag's description has, and the parts of them that `-h` and
//! `--help` show.

/// A section's title and its paragraphs. A line that begins with two spaces is an item, if two spaces part its label from
/// its text, or else a command to type.
pub(super) type Section = (&'static str, &'static str);

/// Date of the last change of the manual, as the page's title line has it.
pub(super) const DATE: &str = "2026-11-27";

/// Related pages, each with its section.
pub(super) const SEE_ALSO: [(&str, u8); 10] = [
    ("capabilities", 7),
    ("iptables", 8),
    ("nc", 1),
    ("ncat", 1),
    ("nft", 8),
    ("packet", 7),
    ("pcap-filter", 7),
    ("socat", 1),
    ("tcpdump", 8),
    ("traceroute", 8),
];

/// The examples of `-h`, each within 80 columns.
pub(crate) const SHORT_EXAMPLES: &str = "\
Examples:
  netkat --run -- curl -v http://192.0.2.10/                run any program
  netkat -z -w 1 192.0.2.10 22,80,8000-8100                 which ports answer?";

const STATUS: Section = (
    "Exit status",
    "  0  done: both directions ended and everything was delivered; with -z and --ping, a port is open
  1  failed; the line on stderr says how
  2  wrong usage
With --exit-verdict, failures have statuses of their own; other failures stay 1:
  3  timed out: no answer, no client, or silence for --idle-timeout or --user-timeout
  4  refused: a reset answered, or with -u an ICMP port unreachable
  5  rejected: an ICMP error answered
  6  no route, or no neighbour
  7  a privilege is missing, or does not count in a user namespace (a rootless container)
  8  dropped by this host's own egress
  9  name: the look-up of a host's name failed, or the name server did not answer
With --compare, the status is 0 only where nothing differs; with --exit-verdict, the statuses above say how it fails beyond this host, and:
  10  captured: this host answers for the address
  11  this host: something here stops the kernel's connection
  12  only the kernel connects
  13  trials differ
  14  unknown
With --compare -l, the status is 0 only where all clients were answered; with --exit-verdict, 3 where nothing came in or the answers do not arrive, 11 where something here stops clients, 14 where nothing was seen to answer them.
The command of --run decides the status, which is its own, or 128 + the number of the signal that ended it; 125 if netkat could not start it, 127 if there is no such command, 126 if it cannot be run.
The process of a single connection (--exec, --sh-exec) decides the status, with --exit-verdict as well, as in a shell: its own status, or 128 + the number of the signal that ended it; 127 if there is no such command, 126 if it cannot be run. A process that netkat had to end, because its connection broke or was over, decides nothing.
SIGINT, SIGTERM and SIGHUP reset the connections, and netkat ends by that signal (Ctrl-C only ends the pings of --ping, whose status is their own); as the first process of a container, with status 128 + its number.",
);

const EXAMPLES: Section = (
    "Examples",
    "Run a program past the host's own rules:
  netkat --run -- curl -v https://192.0.2.10/
  netkat --run --publish 8000 -- python3 -m http.server
Fetch a page without one:
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | netkat 192.0.2.10 80
Receive a file, and send it:
  netkat -l 5000 > copy
  netkat 192.0.2.10 5000 < file
Ask which of these ports answer within a second:
  netkat -z -w 1 192.0.2.10 22,80,8000-8100
Ask the hosts of a network, a hundred of them a second:
  netkat -z -w 1 --rate 100 10.0.0.0/24 22,443
Tell a firewall's silence from a refusal in a script:
  netkat -z --exit-verdict -w 2 192.0.2.10 443
  [ $? -eq 3 ] && echo filtered
Serve a program to every client of one network:
  netkat -l -k --allow 192.0.2.0/24 --sh-exec 'date; hostname' 5000
Watch a connection's own packets, and keep them:
  netkat -d --pcap session.pcapng 192.0.2.10 80",
);

/// The sections behind the flags.
pub(super) const SECTIONS: [Section; 14] = [
    (
        "Running a command",
        "netkat --run -- COMMAND runs a program in a network namespace of its own, whose device has this host's addresses and routes. netkat moves the packets between that device and the host's interfaces, beside iptables, nftables and conntrack. The program's standard streams, its terminal and its exit status are its own; it runs as the invoking user without capabilities, so programs that need raw sockets fail unless --raw is given.
Ports are held on this host as the program uses them. A source port that the host uses is refused; the program hears No route to host, or over IPv6 Permission denied. Others reach the program's servers at the ports of --publish only.
The program asks the name servers of this host's resolv.conf past the firewall; those on loopback, at an address of this host or translated by a rule of this host are asked through the host's own sockets. 127.0.0.1 and this host's addresses are the program's own, not the host's: see --host-loopback.
What the program has sent is delivered after its end. Processes that it leaves keep the namespace, and netkat with it.
It carries TCP, UDP and ping; multicast, broadcast and other protocols are dropped. It needs a user namespace, or CAP_SYS_ADMIN.",
    ),
    (
        "End of input",
        "When standard input ends, netkat sends what is left, then a FIN, and reads on until the peer ends, too. It exits once both directions have ended and every byte is acknowledged:
  input open, peer open    both directions flow
  input ended, peer open   a FIN follows the last byte; netkat reads on until the peer ends
  input open, peer ended   netkat sends on until the input ends
  input ended, peer ended  done, once every byte sent is acknowledged
With --no-shutdown, netkat sends no FIN until the peer has ended. With -q TIME, it exits TIME after the input's end or, while data is in flight, after the peer last acknowledged any. With --send-only, it exits once everything is acknowledged, and drops what the peer sends. With --recv-only, it sends nothing, and exits when the peer ends. With --quit-on-peer-close, the peer's end is the end of the input, too. With --idle-timeout TIME, silence in both directions for TIME is a failure. A reset ends both directions at once.",
    ),
    STATUS,
    (
        "Names with several addresses",
        "The addresses of a name are tried side by side (RFC 8305): in the resolver's order (RFC 6724), but IPv6 and IPv4 in turn, each 250 ms after the one before or as soon as that has failed. The first completed handshake wins; the others are reset. -4 and -6 restrict the families. If no address can be connected to, a line for each says why, and the verdict is that of the address which came furthest: refused, rejected, timed out, dropped by own egress, no neighbour, no route. A UDP client takes the first address whose next hop answers; -z tries a port that is not open at the next address.",
    ),
    (
        "Privileges",
        "netkat needs CAP_NET_RAW and CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE for a local port below 1024. With CAP_BPF (CAP_SYS_ADMIN in its place before Linux 5.8) eBPF programs keep the kernel from netkat's packets; without it rules of nftables do, but for IPv4 over lo and for --run, which take programs. Run it with sudo, or let the members of a group run it:
  chown root:netkat netkat; chmod 750 netkat
  setcap cap_net_raw,cap_net_admin,cap_bpf+p netkat
For the package's netkat, CAPABILITIES=group in /etc/default/netkat does this. The members of that group can read everybody's traffic on this host, answer for its ports and impersonate other hosts.
netkat gives up all capabilities as soon as everything is set up; where the guard is a clsact filter or rules of nftables, CAP_NET_ADMIN stays, to remove and change them. It goes on as the user who called sudo, else as nobody, opens no more files and makes only the system calls that it needs. It opens files and standard streams before that; new files have mode 0600. Processes of --exec and --sh-exec run as the user who called sudo, without any capability and without means to gain one; for their sake netkat's own file system and system calls stay open. With --no-sandbox, netkat gives up capabilities only.",
    ),
    (
        "Limits",
        "netkat is stopped by tc and tcx programs at egress and a root qdisc that drops, unless --past-egress is given, by nft netdev egress, XDP on the receiving interface, and everything beyond this host.
Names are looked up by the system's resolver, through the kernel and so through the firewall; -w bounds that.
-z keeps 500 probes in flight, and takes at most 65536 targets, a target being a port of a host. Each address of a network is a host, its first and last, too. Where more than 16 next hops have to be resolved, netkat asks for them itself, so that the kernel's neighbour table does not overflow. A host that limits its ICMP errors, as Linux does, lets TCP ports that it rejects look as if they had timed out.",
    ),
    (
        "UDP",
        "One read of standard input is one datagram, up to 65507 bytes, over IPv6 65527; a datagram larger than the path's MTU travels in fragments. A write of the program that feeds netkat is one read if netkat has time to read before the next write; with --delay, each line is a datagram. Datagrams are written out as they arrive; a standard output that keeps messages apart (a socket of type SOCK_DGRAM or SOCK_SEQPACKET) gets each datagram by itself.
An ICMP port unreachable ends a client as refused, another ICMP error as rejected; a server goes on.
-z -u sends each port a datagram, up to four times within -w: a DNS request for localhost (port 53), an NTP request (123), the discovery of an SNMPv3 engine and in turn with it sysDescr.0 as SNMPv1's community public (161), a QUIC packet that asks for the versions (443), a STUN Binding request (3478), memcached's version (11211); to all other ports an empty one:
  open           a datagram came back
  closed         the host itself reports the port as unreachable
  rejected       another ICMP error, or another host's
  open|filtered  silence: most services ignore an empty datagram, and some a request that they do not understand; firewalls drop it
Hosts limit how many ICMP errors they send: Linux sends six at once, then one a second (net.ipv4.icmp_ratelimit, net.ipv6.icmp.ratelimit), so that closed ports, too, are silent. When a host seems to do so, netkat says so and probes the silent ports again for as long as any of them answers: about a second for each closed port. When only silent ports are left, they are open|filtered, and count as timed out.",
    ),
    (
        "Sniffer",
        "--sniff and --read take tcpdump's filters (pcap-filter(7)) and its flags. Beside them these letters have tcpdump's meaning, not nc's:
  -c N       --count N
  -w FILE    --pcap FILE, in pcapng
  -r FILE    --read FILE
  -s LEN     --snapshot-length LEN
  -e         --link-header
  -S         --absolute-tcp-sequence-numbers
  -t -tt ..  --time none, epoch, delta, date, elapsed
  -x -X -A   --dump x, X, A; doubled with the link header
  -n -nn     --numeric; addresses and ports are always shown as numbers
  -D         --list-interfaces
  -l -U      no effect: lines and files are flushed before netkat waits
-d, -u and -p PORT keep netkat's meaning; tcpdump's -p is the default, see --promiscuous. -v logs the steps. Other flags of tcpdump are refused with netkat's own way. Lines have gVisor's form unless --line tcpdump or a flag that only tcpdump's form has is given.
A filter that is not understood ends netkat with status 2 before anything is opened; the error names the word. Live, the kernel runs the filter; it sees frames without their outermost VLAN tag.",
    ),
    (
        "JSON",
        "--json prints an object on a line of its own. Every object has its schema, netkat's version and the time (RFC 3339, UTC, nanoseconds); the run's own comes last. Names end in their unit; a step that was not reached is null.
  schema                 netkat.outcome/1; -z: netkat.scan/1, and netkat.port/1 for each port as soon as it is known; --run: netkat.run/1; -k: netkat.client/1 for each client that is over; --compare: netkat.comparison/1; --compare -l: netkat.reachability/1; --trace: netkat.trace/1; --mtu: netkat.mtu/1; --ping: netkat.ping/1, and netkat.probe/1 for each ping; packets: netkat.packet/1
  asked                  what was asked: mode (connect, listen, scan, run, compare, trace, mtu, ping), host as typed, address, port or ports, protocol, command
  verdict                done, timed_out, refused, rejected, no_route, no_neighbour, name (the look-up of a name failed), privilege, egress_dropped, interrupted, usage, failed
  error                  the failure in words
  flow                   local and remote address with port
  route                  interface, source, next_hop, mtu_bytes; pod_veth where the interface is a pod's veth, so that the node's rules see the packets
  timings                name_ms (look-up of the host's name), neighbour_ms (ARP or neighbour discovery), connect_ms, first_byte_ms, close_ms
  discarded              segments dropped during the handshake because they answered nothing: how many segments, and the last of them
  traffic                TCP: sent_bytes, received_bytes, sent_segments, lost_segments, retransmitted_segments, invalid_segments (a wrong checksum or header length), spurious_retransmissions, timeouts, tail_probes, smoothed_rtt_ms, min_rtt_ms, congestion_control, congestion_window_bytes, bandwidth_bytes_per_second
  path                   TCP: link_mtu_bytes, path_mtu_bytes (by the route and what routers said), peer_mss_bytes, own_mss_bytes, too_big_from and too_big_mtu_bytes (the last router that said so), black_hole
  proxy_protocol         --proxy-protocol: version, command (proxy, local), family, transport, source, destination (null where the header names none), header_bytes, tlvs, each with type, name, and text, hex or ssl (client_ssl, client_certificate_in_connection, client_certificate_in_session, verify, tlvs)
  datagrams              -u: sent_datagrams, sent_bytes, received_datagrams, received_bytes, lost_frames (the receive buffer was full), egress_dropped_datagrams, stranger_datagrams, invalid_datagrams
  command                --run: held_ports, refused_ports, foreign_packets (dropped as no flow's), lost_sent_packets, lost_received_packets (a receive buffer was full), flow_count, and flows, each with protocol, local, local_port, remote, sent_packets, sent_bytes, received_packets, received_bytes
  exec_status            --exec, --sh-exec, --run: the process's status, or 128 + the number of the signal that ended it
  guard_dropped_packets  packets that the guard dropped before the kernel's own stack
  clients                -k: the number of clients
  attempts               a host with several addresses: remote, verdict (null if another address won first) and error of each
  listening              -l: protocol, addresses, port
  ports                  -z: address, host (the name as typed), port, protocol, state (open, closed, open_or_filtered, or a verdict), verdict, error, round_trip_ms of each; waited (waited_ms, probes, before) of --until-open, --until-closed and --retry",
    ),
    (
        "Packets",
        "A line shows time, direction, protocol, both ends, length, identification, and the protocol's fields; a packet without known ports, as a later fragment, shows none. TCP's flags are F S R P A U, and E W e for ECE, CWR and AE. Tags follow as vlan:ID, outermost first. A packet that the snap length cut ends in \"cut: N of M bytes captured\"; invalid and truncated ones say what is wrong.
A packet in a tunnel follows its outer packet behind a bar: VXLAN (UDP ports 4789, 8472, 4790), Geneve (6081), GRE, ERSPAN, IPv4 and IPv6 in one another, MPLS (also over UDP port 6635) and PPPoE, eight in one another at most. Filters look at the outermost packet. With --json, the inner packet is the object \"inner\", with the tunnel's name in \"tunnel\". --payload shows the innermost payload.
--read reads pcap 2 (microseconds, nanoseconds, Kuznetzov's variant) and pcapng 1, in either byte order. It knows the link types Ethernet, raw IP, Linux cooked (both), BSD loopback (both), PPP and NFLOG, and shows others by their number. Blocks of unknown types are skipped and counted. The packets of a pipe are shown as they come:
  ssh node tcpdump -U -w - | netkat --read -
A HOST's name stands for all its addresses, and with --read for those that the file itself gives it, if the file is not a pipe.",
    ),
    (
        "Comparison",
        "--compare prints a conclusion, and what it rests on:
  same             both paths connected, and no address was translated
  captured         the kernel's connection was translated: this host answers for the address
  this host        a rule, policy, route or filter of this host stops the kernel's connection
  only the kernel  the kernel connected, netkat did not
  inconsistent     the trials differ, and nothing explains it
  not here         the SYN left this host as it was, and failed beyond it
  unknown          the kernel did not connect, and nothing was seen to stop it
by names the place and the rule, which what it belongs to, kernel and raw how both paths ended, proof the evidence, try a command that shows more. What follows from positions and counters alone is marked (inferred). The server sees two connections that are reset; with -u, empty datagrams. While the kernel's attempt lasts, a table netkat-trace-NUMBER marks its packets for tracing; it needs CAP_NET_ADMIN, the packet socket CAP_NET_RAW. Rules of iptables-legacy are not traced but inferred from their counters, by rounds of 3 and 7 further connections; programs at tc and of control groups from the places where the packet was seen. With CAP_PERFMON, too, the kernel's drop events prove those, and programs of XDP; -v says why there are none.
--json prints an object of its own, which docs/schema/comparison.json describes.
--compare -l watches the clients of a server on this host, sends nothing and takes nothing of the server's. It prints a block for each cause, most clients first, and last those that got their answer:
  this host        a rule, program, filter by path or socket of this host stops the SYNs of these clients, or the answers to them
  unknown          they came in, and nothing was seen to answer or to stop them
  not here         nothing came in; or the answers left this host and the SYNs come again; or another host is asked
  answered         they got a SYN-ACK
from names the clients, and how often they tried; server says what listens. A table netkat-trace-NUMBER marks SYNs to the port and SYN-ACKs from it for tracing, 50 a second at each hook. Of the first 1000 connections each is judged. Once everything is open netkat keeps CAP_NET_ADMIN alone, with which it reads the rules that the kernel names. -w and Ctrl-C end the watch, --once soon after a proof. --json prints an object that docs/schema/reachability.json describes.",
    ),
    (
        "Path",
        "--trace sends SYNs, and repeats of an acknowledged byte once connected, with rising hop limits; a router that drops one quotes it. A line for each hop has its address, with -v its name, three round trips, and below what has changed of the packet before that hop. What is silent may pass packets all the same; a hop with fewer answers than those behind it limits its ICMP errors. The last line:
  reached        the far end answers: SYN-ACK, RST, or with -u a datagram or its port unreachable
  refused by     a reset in the peer's name arrives with the TTL of that hop's own errors, one more than the peer's would have
  rejected by    an ICMP error of that hop
  dies after     nothing comes from beyond that hop
  no answer      no hop answers
A NAT that keeps connections translates the errors back, as Linux does for SNAT, and does not show; a DNAT shows in errors that come in the peer's name. The status is that of a connection; of several paths, that of the one which came least far.
--mtu sends repeats of acknowledged bytes, of any length, or with -u datagrams: link and route are this host's MTU, told what routers say is too big, arrives what the peer acknowledged, lost what got neither an answer nor a message. A black hole, where packets that the flow may use are lost and smaller ones are not, counts as timed out.
--ping sends a SYN to each port every --interval, all from one local port, or with -u a datagram, \"netkat ping\" and a number; an answer that does not repeat the number counts for the port's last ping. A SYN-ACK is answered with a reset. The line of a ping is:
  open            a SYN-ACK, or with -u a datagram
  refused         a reset
  closed          with -u, the host's own port unreachable
  rejected by     an ICMP error of that host
  no answer       none within -w; an answer after that is late, and counted so
Round trips are the differences of the kernel's timestamps of the departing packet, behind rules and queue, and of the arriving one, before the rules. Loss is the share of pings without an answer, of those whose wait is over. Jitter is the mean difference of consecutive round trips. Percentiles are of the nearest rank, and with the histogram of the last million round trips of all targets. --both connects by the kernel, too, whose round trip lasts from before the rules at output to behind those at input (tcpi_rtt), with -u to the answer's arrival at netkat.
--json prints an object of its own, which docs/schema/trace.json, docs/schema/mtu.json and docs/schema/ping.json describe.",
    ),
    (
        "Blocked outputs",
        "Lines on standard error never make netkat wait: up to 256 KiB are kept for a slow reader, further lines are dropped, and as soon as there is room, a line says how many. Data waits for its reader: standard output, -o, -x, --pcap, --json=FILE. A signal ends that wait, too. At its end netkat waits a second, at most, for a reader of standard error that reads nothing.",
    ),
    EXAMPLES,
];

/// Returns what `--help` shows after the flags.
pub(crate) fn long_help_end() -> String {
    let [examples, status] = [EXAMPLES, STATUS].map(|(title, text)| format!("{title}:\n{text}"));
    format!("{examples}\n\n{status}")
}
