//! The report of `netkat --compare`, without the parts that differ from run to run.
use super::{
    namespace::Namespace,
    netkat::netkat,
    process::{DEADLINE, Output, Process},
    rules::nft,
    topology::{Family, Pair, address},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// The port in question, and the other server's port.
pub const PORT: u16 = 7000;
pub const OTHER_PORT: u16 = 7001;

/// A pair whose peer serves both ports, at its address and at another one.
pub struct Scene {
    pub pair: Pair,
    pub family: Family,
    _servers: Vec<Process>,
}

impl Scene {
    pub fn new(family: Family) -> Scene {
        Scene::of(family, serve)
    }

    /// A pair whose peer echoes datagrams at both ports.
    pub fn of_datagrams(family: Family) -> Scene {
        let [_, peer, third] = addresses(family);
        Scene::of(family, |at, port| {
            let own = if port == PORT { peer } else { third };
            // From the address that was asked, which a socket of all addresses does not promise.
            echo_datagrams(at, own, own, port)
        })
    }

    fn of(family: Family, serve: impl Fn(&Namespace, u16) -> Process) -> Scene {
        let pair = Pair::new();
        address(&pair.peer, "eth0", "10.77.0.3/24");
        address(&pair.peer, "eth0", "fd77::3/64");
        let servers = [PORT, OTHER_PORT].map(|port| serve(&pair.peer, port)).into();
        Scene { pair, family, _servers: servers }
    }

    /// Replaces `{iptables}`, `{ip}`, `{v}`, `{host}`, `{peer}`, `{other}` (the other server's end), `{peer:7000}`
    /// and the like by the family's words.
    pub fn words(&self, text: &str) -> String {
        let v4 = self.family == Family::V4;
        let [host, peer, third] = addresses(self.family);
        let bracketed = |address: &str| if v4 { address.to_owned() } else { format!("[{address}]") };
        text.replace("{iptables}", if v4 { "iptables" } else { "ip6tables" })
            .replace("{ip}", if v4 { "ip" } else { "ip6" })
            .replace("{v}", if v4 { "-4" } else { "-6" })
            .replace("{other}", &format!("{}:{OTHER_PORT}", bracketed(third)))
            .replace("{host:}", &bracketed(host))
            .replace("{peer:7000}", &format!("{}:{PORT}", bracketed(peer)))
            .replace("{host}", host)
            .replace("{peer}", peer)
            .replace("{third}", third)
    }

    /// Runs commands at the host, separated by `;`, whose words hold no spaces.
    pub fn run(&self, lines: &str) {
        for line in self.words(lines).split(';').map(str::trim) {
            self.pair.host.run(line);
        }
    }

    /// Loads nft rules at the host.
    pub fn nft(&self, rules: &str) {
        nft(&self.pair.host, &self.words(rules));
    }

    /// Compares the way to the peer, with further flags.
    pub fn compare(&self, flags: &str) -> Output {
        let peer = self.pair.peer_address(self.family);
        netkat(&self.pair.host, &format!("--compare --exit-verdict -n {flags} {peer} {PORT}")).run()
    }

    /// Compares with and without drop events, and checks status and text. `{raw}` stands for a connection of
    /// netkat's, `{drop REASON}` for the drop event in the proof.
    pub fn expect(&self, flags: &str, status: i32, expected: &str) {
        let expected = self.expected(expected);
        for (events, more) in [(true, ""), (false, " --without drop-events")] {
            check(&self.compare(&format!("{flags}{more}")), status, &drop_events(&expected, events));
        }
    }

    pub fn expected(&self, text: &str) -> String {
        let raw = "raw connected after T {host:}:0 > {peer:7000} via {peer}, eth0";
        self.words(&text.replace("{raw}", raw))
    }
}

/// Runs a scene in both families: set-up at the host, then the text.
pub fn in_both(set_up: impl Fn(&Scene), status: i32, expected: &str) {
    for family in Family::ALL {
        let scene = Scene::new(family);
        set_up(&scene);
        scene.expect("", status, expected);
    }
}

/// Returns a text with its drop events as a proof names them, or without.
pub fn drop_events(text: &str, events: bool) -> String {
    let mut parts = text.split("{drop ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (reason, rest) = part.split_once('}').expect("a reason");
        if events {
            whole.push_str(&format!("; drop event {reason}"));
        }
        whole.push_str(rest);
    }
    whole
}

/// Starts a server on all addresses of both families.
pub fn serve(at: &Namespace, port: u16) -> Process {
    let listen = format!("TCP6-LISTEN:{port},fork,reuseaddr,ipv6-v6only=0");
    let mut server = at.command("socat").args([listen.as_str(), "PIPE"]).spawn();
    server.wait_listening(port);
    server
}

/// Returns the host's and the peer's address, and the peer's other one.
fn addresses(family: Family) -> [&'static str; 3] {
    match family {
        Family::V4 => ["10.77.0.1", "10.77.0.2", "10.77.0.3"],
        Family::V6 => ["fd77::1", "fd77::2", "fd77::3"],
    }
}

/// Starts a server that echoes datagrams to an address from an address.
pub fn echo_datagrams(at: &Namespace, asked: &str, answering: &str, port: u16) -> Process {
    let inet = if asked.contains(':') { "AF_INET6" } else { "AF_INET" };
    let script = format!(
        "import socket\n\
         def bound(address):\n\
         \x20   s = socket.socket(socket.{inet}, socket.SOCK_DGRAM)\n\
         \x20   s.bind((address, {port}))\n\
         \x20   return s\n\
         asked = bound('{asked}')\n\
         answering = asked if '{asked}' == '{answering}' else bound('{answering}')\n\
         while True: answering.sendto(*asked.recvfrom(65536))"
    );
    let mut server = at.command("python3").args(["-c", &script]).spawn();
    server.wait_listening(port);
    server
}

/// Checks status and text, line by line, without what differs from run to run.
pub fn check(output: &Output, status: i32, expected: &str) {
    let lines =
        |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).map(steady).collect::<Vec<_>>();
    assert_eq!(lines(&output.text()), lines(expected), "{output}");
    assert_eq!(output.code(), Some(status), "{output}");
}

/// The packets that reports count.
const COUNTED: [&str; 5] = ["SYN", "SYN-ACK", "reset", "datagram", "answer"];

/// Returns a line with one space between words, and without times, numbers of packets and local ports.
fn steady(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let is_number = word.parse::<f64>().is_ok();
        let counted = |word: &str| COUNTED.contains(&word.trim_end_matches('s')) || word == "ICMP";
        match *word {
            _ if is_number && ["s", "ms"].contains(&next) => {
                kept.push("T".to_owned());
                at += 1;
            }
            _ if is_number && counted(next) => {}
            // "2 of 2 SYNs".
            _ if is_number && next == "of" && words.get(at + 3).is_some_and(|word| counted(word)) => at += 1,
            "SYNs" | "SYN-ACKs" | "resets" | "errors" | "datagrams" | "answers" => {
                kept.push(word.trim_end_matches('s').to_owned())
            }
            "they" => kept.push("it".to_owned()),
            word if next == ">" => kept.push(word.rsplit_once(':').map_or(word, |(end, _)| end).to_owned()),
            word => kept.push(word.to_owned()),
        }
        at += 1;
    }
    kept.join(" ")
}

/// Waits until a text is what it was before.
pub fn wait_until_equal(what: &str, before: &str, now: impl Fn() -> String) {
    let deadline = Instant::now() + DEADLINE;
    while now() != before {
        assert!(Instant::now() < deadline, "{what} is not as before:\n{}", now());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns an output's text without what differs from run to run.
pub fn steady_text(output: &Output) -> String {
    output.text().lines().map(steady).collect::<Vec<_>>().join("\n")
}
