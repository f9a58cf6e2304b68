//! The modes of a run, and the flags that have an effect in each. A flag without effect is wrong usage: a script that
//! gives one expects something that does not happen.
use super::Cli;
use clap::{ArgMatches, Command, CommandFactory, parser::ValueSource};

/// A mode of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Mode {
    Connect = 1,
    ConnectUdp = 1 << 1,
    /// A client with --exec or --sh-exec.
    ConnectExec = 1 << 2,
    Listen = 1 << 3,
    ListenUdp = 1 << 4,
    ListenExec = 1 << 5,
    Scan = 1 << 6,
    ScanUdp = 1 << 7,
    Sniff = 1 << 8,
    Read = 1 << 9,
    Compare = 1 << 10,
    Run = 1 << 11,
    Trace = 1 << 12,
    Mtu = 1 << 13,
    CompareListen = 1 << 14,
    Ping = 1 << 15,
}

#[cfg(test)]
pub(crate) const MODES: [Mode; 16] = [
    Mode::Connect,
    Mode::ConnectUdp,
    Mode::ConnectExec,
    Mode::Listen,
    Mode::ListenUdp,
    Mode::ListenExec,
    Mode::Scan,
    Mode::ScanUdp,
    Mode::Sniff,
    Mode::Read,
    Mode::Compare,
    Mode::CompareListen,
    Mode::Run,
    Mode::Trace,
    Mode::Mtu,
    Mode::Ping,
];

impl Mode {
    /// Returns the mode that the flags choose.
    pub(crate) fn of(cli: &Cli) -> Mode {
        let exec = cli.exec.is_some() || cli.sh_exec.is_some();
        match (cli.read.is_some(), cli.sniff, cli.scan, cli.listen) {
            (true, ..) => Mode::Read,
            (_, true, ..) => Mode::Sniff,
            _ if cli.compare && cli.listen => Mode::CompareListen,
            _ if cli.compare => Mode::Compare,
            _ if cli.runs_command() => Mode::Run,
            _ if cli.trace => Mode::Trace,
            _ if cli.mtu => Mode::Mtu,
            _ if cli.ping.is_some() => Mode::Ping,
            (_, _, true, _) if cli.udp => Mode::ScanUdp,
            (_, _, true, _) => Mode::Scan,
            (.., true) if cli.udp => Mode::ListenUdp,
            (.., true) if exec => Mode::ListenExec,
            (.., true) => Mode::Listen,
            _ if cli.udp => Mode::ConnectUdp,
            _ if exec => Mode::ConnectExec,
            _ => Mode::Connect,
        }
    }

    /// Returns the flags that choose the mode.
    fn flags(self) -> &'static str {
        match self {
            Mode::Connect => "a plain TCP client",
            Mode::ConnectUdp => "-u",
            Mode::ConnectExec => "--exec and --sh-exec",
            Mode::Listen => "-l",
            Mode::ListenUdp => "-l -u",
            Mode::ListenExec => "-l with --exec and --sh-exec",
            Mode::Scan => "-z",
            Mode::ScanUdp => "-z -u",
            Mode::Sniff => "--sniff",
            Mode::Read => "--read",
            Mode::Compare => "--compare",
            Mode::CompareListen => "--compare -l",
            Mode::Run => "--run",
            Mode::Trace => "--trace",
            Mode::Mtu => "--mtu",
            Mode::Ping => "--ping",
        }
    }
}

/// A set of modes, with the words for what a flag of these modes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Modes(u32, &'static str);

const fn modes(modes: &[Mode], words: &'static str) -> Modes {
    let (mut bits, mut at) = (0, 0);
    while at < modes.len() {
        bits |= modes[at] as u32;
        at += 1;
    }
    Modes(bits, words)
}

use Mode::{
    Compare, CompareListen, Connect, ConnectExec, ConnectUdp, Listen, ListenExec, ListenUdp, Mtu, Ping, Read,
    Run, Scan, ScanUdp, Sniff, Trace,
};
/// The modes that measure the path of flows.
const PATH: u32 = Trace as u32 | Mtu as u32 | Ping as u32;
const ALL: Modes = Modes(u32::MAX, "");
const LIVE: Modes = Modes(!(Read as u32), "live traffic");
const LISTEN: Modes = modes(&[Listen, ListenUdp, ListenExec], "-l");
/// The modes of --compare.
const COMPARING: u32 = Compare as u32 | CompareListen as u32;
const LISTEN_TCP: Modes = modes(&[Listen, ListenExec], "-l over TCP");
const DATA: Modes = modes(
    &[Connect, ConnectUdp, ConnectExec, Listen, ListenUdp, ListenExec],
    "clients and listeners that transfer data",
);
const STREAM: Modes = modes(&[Connect, ConnectExec, Listen, ListenExec], "TCP clients and listeners");
const STANDARD: Modes = modes(&[Connect, Listen], "TCP with standard input and output");
const LINES: Modes =
    modes(&[Connect, ConnectUdp, Listen, ListenUdp], "clients and listeners with standard input and output");
const CLIENTS: Modes = modes(
    &[Connect, ConnectUdp, ConnectExec, Scan, ScanUdp, Compare, Trace, Mtu, Ping],
    "clients, -z, --compare, --trace, --mtu and --ping",
);
const OWN: Modes = Modes(
    DATA.0 | Scan as u32 | ScanUdp as u32 | Compare as u32 | PATH,
    "clients, listeners, -z, --compare, --trace, --mtu and --ping",
);
const SEGMENTS: Modes = Modes(STREAM.0 | Scan as u32 | Compare as u32 | PATH, "TCP");
const SHOWING: Modes = Modes(!COMPARING, "packets that are shown");
const COMPARE: Modes = modes(&[Compare], "--compare HOST PORT");
const SCAN: Modes = modes(&[Scan, ScanUdp], "-z");
const RUN: Modes = modes(&[Run], "--run and --shell");
const NOT_RUN: Modes = Modes(!(Run as u32), "netkat's own connections");
const OWN_OR_RUN: Modes =
    Modes(OWN.0 | Run as u32, "clients, listeners, -z, --compare, --trace, --mtu, --ping and --run");
const CLIENTS_OR_RUN: Modes =
    Modes(CLIENTS.0 | Run as u32, "clients, -z, --compare, --trace, --mtu, --ping and --run");
const STREAM_OR_RUN: Modes = Modes(STREAM.0 | Run as u32, "TCP clients and listeners, and --run");
const WATCH: Modes = modes(&[Sniff, Read], "--sniff and --read");

/// The modes in which each flag has an effect, by the flag's identifier.
const FLAGS: [(&str, Modes); 94] = [
    ("target", ALL),
    ("listen", Modes(LISTEN.0 | CompareListen as u32, "")),
    ("keep_open", LISTEN),
    ("exec", modes(&[ConnectExec, ListenExec], "TCP clients and listeners")),
    ("sh_exec", modes(&[ConnectExec, ListenExec], "TCP clients and listeners")),
    (
        "udp",
        Modes(WATCH.0 | ConnectUdp as u32 | ListenUdp as u32 | ScanUdp as u32 | Compare as u32 | PATH, ""),
    ),
    ("scan", modes(&[Scan, ScanUdp], "")),
    ("until_open", SCAN),
    ("until_closed", SCAN),
    ("retry", SCAN),
    ("rate", SCAN),
    ("source_port", NOT_RUN),
    ("interface", LIVE),
    ("wait", Modes(OWN.0 | CompareListen as u32, OWN.1)),
    ("quit_after", DATA),
    ("verbose", ALL),
    ("help", ALL),
    ("max_conns", LISTEN_TCP),
    ("allow", LISTEN),
    ("deny", LISTEN),
    ("reject", LISTEN_TCP),
    ("force", LISTEN),
    ("broadcast", modes(&[ConnectUdp, ScanUdp], "clients and -z with -u")),
    ("ipv4", ALL),
    ("ipv6", ALL),
    ("numeric", ALL),
    ("source", Modes(OWN_OR_RUN.0 | CompareListen as u32, OWN_OR_RUN.1)),
    ("via", CLIENTS_OR_RUN),
    ("impersonate", OWN_OR_RUN),
    ("as_mac", OWN_OR_RUN),
    ("user_timeout", STREAM_OR_RUN),
    ("idle_timeout", DATA),
    ("delay", LINES),
    ("keepalive", STREAM),
    ("shutdown", DATA),
    ("no_shutdown", DATA),
    ("quit_on_peer_close", STANDARD),
    ("send_only", DATA),
    ("recv_only", DATA),
    ("crlf", STANDARD),
    ("proxy_protocol", STREAM),
    ("output", STANDARD),
    ("hex_dump", STANDARD),
    ("append_output", STANDARD),
    ("buffer", STREAM),
    ("congestion", STREAM),
    ("ttl", OWN),
    ("tos", OWN),
    ("mss", SEGMENTS),
    ("sniff", Modes(WATCH.0, "")),
    ("read", modes(&[Read], "")),
    ("tcp", WATCH),
    ("promiscuous", modes(&[Sniff], "--sniff")),
    ("count", WATCH),
    ("pcap", SHOWING),
    ("dump", SHOWING),
    ("line", SHOWING),
    ("time", SHOWING),
    ("absolute_tcp_sequence_numbers", SHOWING),
    ("link_header", SHOWING),
    ("snapshot_length", WATCH),
    ("list_interfaces", modes(&[Sniff], "--sniff")),
    ("payload", SHOWING),
    ("run", Modes(Run as u32, "")),
    ("shell", Modes(Run as u32, "")),
    ("publish", RUN),
    ("dns", RUN),
    ("host_loopback", RUN),
    ("raw", RUN),
    ("compare", Modes(COMPARING, "")),
    ("once", modes(&[CompareListen], "--compare -l")),
    ("netns", modes(&[Compare, CompareListen, Sniff], "--compare and --sniff")),
    ("cgroup", COMPARE),
    ("like", COMPARE),
    ("trials", COMPARE),
    ("user", COMPARE),
    ("trace", Modes(Trace as u32, "")),
    ("mtu", Modes(Mtu as u32, "")),
    ("ping", Modes(Ping as u32, "")),
    ("interval", modes(&[Ping], "--ping")),
    ("both", modes(&[Ping], "--ping")),
    ("past_egress", Modes(OWN.0 & !(Compare as u32), "clients, listeners, -z, --trace, --mtu and --ping")),
    ("paths", modes(&[Trace], "--trace")),
    ("debug", SHOWING),
    ("progress", STANDARD),
    ("json", ALL),
    ("exit_verdict", NOT_RUN),
    ("generate", ALL),
    ("version", ALL),
    ("no_sandbox", ALL),
    ("no_gso", DATA),
    ("no_vnet_header", OWN),
    ("guard", OWN_OR_RUN),
    ("without", LIVE),
];

/// Flags that only modify another one: the identifiers of that one, and its name.
const NEEDS: [(&str, &[&str], &str); 10] = [
    ("max_conns", &["keep_open"], "-k"),
    ("as_mac", &["impersonate"], "--as"),
    ("append_output", &["output", "hex_dump"], "-o or -x"),
    ("promiscuous", &["interface"], "-i"),
    ("payload", SHOWN, "-d, --sniff or --read"),
    ("dump", SHOWN, "-d, --sniff or --read"),
    ("line", SHOWN, "-d, --sniff or --read"),
    ("time", SHOWN, "-d, --sniff or --read"),
    ("absolute_tcp_sequence_numbers", SHOWN, "-d, --sniff or --read"),
    ("link_header", SHOWN, "-d, --sniff or --read"),
];

/// The flags that show packets.
const SHOWN: &[&str] = &["debug", "sniff", "read"];

/// Explanations of some flags without effect, which say more than that.
const EXPLAINED: [(&str, Mode, &str); 6] = [
    ("exec", ConnectUdp, EXEC_UDP),
    ("sh_exec", ConnectUdp, EXEC_UDP),
    ("exec", ListenUdp, EXEC_UDP),
    ("sh_exec", ListenUdp, EXEC_UDP),
    ("max_conns", ListenUdp, "--max-conns is for TCP; with -u, -k serves every peer"),
    (
        "reject",
        ListenUdp,
        "--reject answers by a reset, which UDP does not have; without it, other hosts get no answer",
    ),
];

const EXEC_UDP: &str = "--exec and --sh-exec are for TCP; with -u, -l -k serves several peers";

/// Checks that each flag given has an effect in the mode that the flags choose.
///
/// # Errors
/// The first flag that has none, with the mode's name.
pub(super) fn check(cli: &Cli, matches: &ArgMatches) -> Result<(), String> {
    let mode = Mode::of(cli);
    let command = Cli::command();
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let rows = FLAGS.iter().filter(|(id, _)| given(id));
    for (id, Modes(bits, words)) in rows {
        if bits & mode as u32 != 0 {
            continue;
        }
        if let Some((.., text)) = EXPLAINED.iter().find(|(flag, of, _)| flag == id && *of == mode) {
            return Err((*text).to_owned());
        }
        let flag = name(&command, id, mode);
        let purpose = if words.is_empty() { String::new() } else { format!("; it is for {words}") };
        return Err(format!("{flag} has no effect with {}{purpose}", mode.flags()));
    }
    for (id, needed, words) in NEEDS.iter().filter(|(id, ..)| given(id)) {
        if !needed.iter().any(|needed| given(needed)) {
            return Err(format!("{} has no effect without {words}", name(&command, id, mode)));
        }
    }
    Ok(())
}

/// Returns a flag as its users know it, by its letter and its name. A sniffer's other letters are tcpdump's.
fn name(command: &Command, id: &str, mode: Mode) -> String {
    let Some(flag) = command.get_arguments().find(|flag| flag.get_id() == id) else { return id.to_owned() };
    let same = |letter: &char| WATCH.0 & mode as u32 == 0 || "ipnv46duh".contains(*letter);
    let letter = flag.get_short().filter(same);
    match (letter, flag.get_long()) {
        (Some(letter), Some(name)) => format!("-{letter} (--{name})"),
        (Some(letter), None) => format!("-{letter}"),
        (None, Some(name)) => format!("--{name}"),
        (None, None) => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The flags that choose each mode, and a target where it needs one.
    fn words(mode: Mode) -> Vec<&'static str> {
        let line = match mode {
            Mode::Connect => "192.0.2.1 80",
            Mode::ConnectUdp => "-u 192.0.2.1 80",
            Mode::ConnectExec => "--exec cat 192.0.2.1 80",
            Mode::Listen => "-l 80",
            Mode::ListenUdp => "-l -u 80",
            Mode::ListenExec => "-l --sh-exec cat 80",
            Mode::Scan => "-z 192.0.2.1 80",
            Mode::ScanUdp => "-z -u 192.0.2.1 80",
            Mode::Sniff => "--sniff -i lo",
            Mode::Read => "--read file",
            Mode::Compare => "--compare 192.0.2.1 80",
            Mode::CompareListen => "--compare -l 80",
            Mode::Run => "--run",
            Mode::Trace => "--trace 192.0.2.1 80",
            Mode::Mtu => "--mtu 192.0.2.1 80",
            Mode::Ping => "--ping 192.0.2.1 80",
        };
        line.split(' ').collect()
    }

    /// A flag with a value that its parser takes.
    fn typed(flag: &clap::Arg) -> Vec<String> {
        let name = format!("--{}", flag.get_long().expect("a name"));
        let value = match flag.get_id().as_str() {
            _ if !flag.get_action().takes_values() => return vec![name],
            "json" => return vec![name],
            "impersonate" => "192.0.2.9",
            "as_mac" => "02:00:00:00:00:01",
            "buffer" => "1M",
            "congestion" => "cubic",
            "generate" => "man",
            "guard" => "tcx",
            "mss" => "1000",
            "dump" => "x",
            "line" => "tcpdump",
            "time" => "epoch",
            "without" => "tcx",
            _ => "1",
        };
        vec![name, value.to_owned()]
    }

    #[test]
    fn every_flag_has_a_row_and_every_row_a_flag() {
        let command = Cli::command();
        let flags: BTreeSet<_> = command.get_arguments().map(|flag| flag.get_id().as_str()).collect();
        let rows: BTreeSet<_> = FLAGS.iter().map(|(id, _)| *id).collect();
        assert_eq!(flags, rows);
        assert_eq!(rows.len(), FLAGS.len(), "a flag has two rows");
    }

    /// Every flag in every mode: taken where the table says so, else refused with both names, and never by clap.
    #[test]
    fn flags_are_taken_where_they_have_an_effect_and_refused_elsewhere() {
        let command = Cli::command();
        for flag in command.get_arguments().filter(|flag| !flag.is_positional()) {
            let id = flag.get_id().as_str();
            // These two end the run by themselves, and those that choose a mode would make another one.
            if matches!(
                id,
                "help"
                    | "version"
                    | "generate"
                    | "sniff"
                    | "read"
                    | "scan"
                    | "exec"
                    | "sh_exec"
                    | "udp"
                    | "compare"
                    | "run"
                    | "shell"
                    | "trace"
                    | "mtu"
                    | "ping"
            ) {
                continue;
            }
            let (_, Modes(bits, _)) = FLAGS.iter().find(|(row, _)| *row == id).expect("a row");
            for mode in MODES {
                let needed: &[&str] = match id {
                    "max_conns" if bits & mode as u32 != 0 => &["-k"],
                    "as_mac" => &["--as", "192.0.2.9"],
                    "append_output" => &["-o", "file"],
                    "payload"
                    | "dump"
                    | "line"
                    | "time"
                    | "absolute_tcp_sequence_numbers"
                    | "link_header" => &["-d"],
                    _ => &[],
                };
                if id == "listen"
                    && bits & mode as u32 == 0
                    && matches!(mode, Mode::Connect | Mode::ConnectUdp | Mode::ConnectExec | Mode::Compare)
                {
                    continue;
                }
                let line: Vec<String> = std::iter::once("netkat".to_owned())
                    .chain(words(mode).into_iter().map(str::to_owned))
                    .chain(needed.iter().map(|word| (*word).to_owned()))
                    .chain(typed(flag))
                    .collect();
                let result = Cli::read(line.iter().map(Into::into));
                let taken = bits & mode as u32 != 0;
                match result {
                    Ok(_) => assert!(taken, "taken without effect: {line:?}"),
                    Err(super::super::NotRun::Wrong(text)) => {
                        assert!(!taken, "refused: {line:?}: {text}");
                        assert!(
                            text.contains(&format!("--{}", flag.get_long().unwrap()))
                                || text.starts_with('-'),
                            "{line:?}: {text}"
                        );
                    }
                    Err(super::super::NotRun::Print(_)) => panic!("{line:?}"),
                }
            }
        }
    }

    /// A wrapper's default can be overridden: of a flag given twice, the last counts. Lists collect.
    #[test]
    fn flags_given_twice_are_taken() {
        let command = Cli::command();
        for flag in command.get_arguments().filter(|flag| !flag.is_positional()) {
            let id = flag.get_id().as_str();
            let mode = match FLAGS.iter().find(|(row, _)| *row == id) {
                _ if matches!(id, "help" | "version" | "generate") => continue,
                _ if matches!(id, "exec" | "sh_exec" | "run" | "shell" | "trace" | "mtu" | "ping") => {
                    Mode::Connect
                }
                Some((_, Modes(bits, _))) if id != "listen" => {
                    MODES.into_iter().find(|mode| bits & *mode as u32 != 0).expect("a mode")
                }
                _ => Mode::Listen,
            };
            let mut line = vec!["netkat".to_owned()];
            line.extend(words(mode).into_iter().map(str::to_owned));
            for needed in NEEDS.iter().filter(|(needs, ..)| *needs == id) {
                let needed =
                    command.get_arguments().find(|flag| flag.get_id() == needed.1[0]).expect("a flag");
                line.extend(typed(needed));
            }
            line.extend(typed(flag));
            line.extend(typed(flag));
            let result = Cli::read(line.iter().map(Into::into));
            assert!(result.is_ok(), "{line:?}: {result:?}");
        }
        let read = |line: &str| Cli::read(line.split(' ').map(Into::into)).expect(line);
        assert_eq!(read("netkat -w 3 -w 5 a 1").wait, Some(std::time::Duration::from_secs(5)));
        assert_eq!(read("netkat -vv -v a 1").verbose, 3);
        assert_eq!(read("netkat -l --allow a,b --allow c 1").allow, ["a", "b", "c"]);
    }
}
