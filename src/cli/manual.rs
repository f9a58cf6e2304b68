//! The manual page, and the part of it that --help shows: what the flags' own descriptions do not say.
use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use std::io::{self, Write};

/// A section's title and its paragraphs; lines that begin with two spaces stand as they are.
type Section = (&'static str, &'static str);

const STATUS: Section = (
    "Exit status",
    "  0  done: both directions ended and everything was delivered; with -z, a port is open
  1  failed; the line on stderr says how
  2  wrong usage
With --exit-verdict, failures have statuses of their own; the rest stays 1:
  3  timed out: no answer, nobody connected, or silence for --idle-timeout or --user-timeout
  4  refused: a reset answered, or with -u an ICMP port unreachable
  5  rejected: an ICMP error answered
  6  no route, or no neighbour
  7  a privilege is missing
  8  dropped by this host's own egress
The process of a single connection (--exec, --sh-exec) decides the status, with --exit-verdict as well: its own, or 128 + the number of the signal that ended it; 127 and 126 where there is no such command, or it can't be run. A process that netkat had to end, because its connection broke or was over, decides nothing.
A run that SIGINT, SIGTERM or SIGHUP ends resets its connections and ends by that signal; as the first process of a container, with status 128 + its number.",
);

const SECTIONS: [Section; 8] = [
    (
        "End of input",
        "When standard input ends, what is left is sent, then a FIN, and reading goes on until the peer ends, too. It is over once both directions have ended and every byte is acknowledged:
  input  peer   what happens
  open   open   both ways flow
  ended  open   a FIN follows the last byte; reading goes on until the peer ends
  open   ended  sending goes on until the input ends
  ended  ended  done, once every byte sent is acknowledged
With --no-shutdown, no FIN is sent until the peer has ended. With -q TIME, it is over TIME after the input's end or, while data is under way, after the peer last acknowledged any. With --send-only, it is over once everything is acknowledged, and what the peer sends is dropped. With --recv-only, nothing is sent, and it is over when the peer ends. With --idle-timeout TIME, a silence of TIME in both directions is a failure. A reset ends everything at once.",
    ),
    STATUS,
    (
        "Privileges",
        "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (CAP_SYS_ADMIN in its place before Linux 5.8), and CAP_NET_BIND_SERVICE for a port of ours below 1024. Run it with sudo, or let the members of a group run it:
  chown root:netkat netkat; chmod 750 netkat; setcap cap_net_raw,cap_net_admin,cap_bpf+ep netkat
which CAPABILITIES=group in /etc/default/netkat does for the package's. Who can execute it then can read everybody's traffic on this host, answer for its ports and be other hosts.
All of them are given up as soon as everything is set up (with a guard at clsact all but CAP_NET_ADMIN, which takes it away at the end); netkat goes on as the user who called sudo, else as nobody, opens no more files and makes only the system calls that it needs. Files and standard streams are opened before that; new files have mode 0600. Processes of --exec and --sh-exec are the user's who called sudo, without any capability and without means to gain one; for their sake netkat's files and system calls stay open then. --no-sandbox gives up capabilities only.",
    ),
    (
        "Limits",
        "What stops it nevertheless: tc and tcx programs at egress, a root qdisc that drops, nft netdev egress, XDP on the receiving interface, and everything beyond this host.
Names are looked up by the system's resolver, through the kernel and so through the firewall.
-z keeps 500 probes in flight. A host that limits its ICMP errors, as Linux does, lets TCP ports that it rejects look as if they had timed out.",
    ),
    (
        "UDP",
        "One read of standard input is one datagram, up to 65507 bytes, over IPv6 65527; larger than the path's MTU, it travels in fragments. A write of the program that feeds netkat is one read if netkat has time to read before the next; with --delay, each line is a datagram. What arrives is written out as it comes; a standard output that keeps messages apart (a socket of type SOCK_DGRAM or SOCK_SEQPACKET) gets each datagram by itself.
An ICMP port unreachable ends a client as refused, other errors by their names; a server goes on.
-z -u sends each port an empty datagram, four times within -w while there is no answer:
  open           a datagram came back
  closed         the host itself says that the port is unreachable
  rejected       another ICMP error, or another host's
  open|filtered  silence: most services ignore an empty datagram, and firewalls drop it
Hosts limit how many ICMP errors they send: Linux sends six at once, then one a second (net.ipv4.icmp_ratelimit, net.ipv6.icmp.ratelimit), so that closed ports, too, are silent. Where it looks like that, netkat says so and probes the silent ports again for as long as any of them answers: about a second for each closed port. Where only silent ports are left, they are open|filtered, and count as timed out.",
    ),
    (
        "Report",
        "--json prints one object on one line when all is over; what was not reached is null. Times are in milliseconds.
  verdict           done, timed out, refused, rejected, no route, no neighbour, missing privilege, dropped by own egress, interrupted, wrong usage, failed
  error             the line on stderr
  flow              local and remote address with port
  route             interface, source, next_hop, mtu
  timings           neighbour (ARP or neighbour discovery), connect, first_byte, close
  discarded         segments that came before the connection stood and were no answer: how many segments, and the last of them
  traffic           TCP: bytes_sent, bytes_received, invalid (a wrong checksum or header length), segments_sent, segments_retransmitted, smoothed_rtt, min_rtt
  datagrams         -u: datagrams_sent, bytes_sent, datagrams_received, bytes_received, lost (the receive buffer was full), egress_drops, strangers, invalid
  exec_status       --exec, --sh-exec: the process's status, or 128 + the number of the signal that ended it
  kept_from_kernel  packets that the kernel did not get to see
  clients           -k: how many were served; each has an object of its own, on a line before, as soon as it is over
  ports             -z: address, port, protocol, state, failure (a verdict, or null) and error of each",

    ),
    (
        "Outputs that nobody reads",
        "Lines on standard error hold up nothing: while nobody reads them, 256 KiB wait, further lines are dropped, and as soon as there is room, a line says how many. What is data waits for its reader: standard output, -o, -x, --pcap, --json=FILE. A signal ends that wait, too. The end of a run waits a second, at most, for a reader of standard error that takes nothing.",
    ),
    (
        "Examples",
        "Fetch a page past the host's own rules:
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | netkat 192.0.2.10 80
Send a file, and receive it:
  netkat -l 5000 > copy
  netkat 192.0.2.10 5000 < file
Which of these ports answer within a second:
  netkat -z -w 1 192.0.2.10 22,80,8000-8100
Tell a firewall's silence from a refusal in a script:
  netkat -z --exit-verdict -w 2 192.0.2.10 443; [ $? -eq 3 ] && echo filtered",
    ),
];

/// What --help shows after the flags.
pub fn short() -> String {
    let (title, text) = STATUS;
    format!("{title}:\n{text}")
}

/// Writes the manual page, section 1, in roff.
pub fn page(command: Command, out: &mut dyn Write) -> io::Result<()> {
    let command = command.after_long_help("").after_help("");
    let man = Man::new(command).manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for (title, text) in SECTIONS {
        section(title, text).to_writer(&mut page)?;
    }
    out.write_all(&page)
}

fn section(title: &str, text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title.to_uppercase().as_str()]);
    let mut verbatim = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        match (verbatim, indented) {
            (false, true) => roff.control("nf", []),
            (true, false) => roff.control("fi", []).control("PP", []),
            (false, false) => roff.control("PP", []),
            (true, true) => &mut roff,
        };
        verbatim = indented;
        roff.text([roman(line)]);
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}
