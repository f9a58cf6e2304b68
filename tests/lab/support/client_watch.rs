//! `netkat --compare -l` at the host of a pair, with clients of the kernel's at the peer.
use super::{
    comparison::{OTHER_PORT, PORT, check, serve},
    netkat::netkat,
    process::{DEADLINE, Output, Process},
    topology::{Family, Pair},
};
use std::net::{IpAddr, SocketAddr};

/// A pair whose host is the server.
pub struct Stage {
    pub pair: Pair,
    pub family: Family,
}

impl Stage {
    pub fn new(family: Family) -> Stage {
        Stage::of(Pair::new(), family)
    }

    pub fn of(pair: Pair, family: Family) -> Stage {
        Stage { pair, family }
    }

    /// Starts a server at the host, on all addresses.
    pub fn serve(&self) -> Process {
        serve(&self.pair.host, PORT)
    }

    pub fn server(&self) -> SocketAddr {
        (self.pair.host_address(self.family), PORT).into()
    }

    /// Tries to connect from the peer to the server for at most a second.
    pub fn client(&self) {
        self.client_to(self.pair.host_address(self.family));
    }

    pub fn client_to(&self, to: IpAddr) {
        self.pair.peer.words(&format!("nc.openbsd -z -w 1 {to} {PORT}")).run();
    }

    /// Replaces `{iptables}`, `{ip}`, `{v}`, `{client}`, `{server}`, `{server:7000}` and `{server:7001}` by the family's words.
    pub fn words(&self, text: &str) -> String {
        let v4 = self.family == Family::V4;
        text.replace("{iptables}", if v4 { "iptables" } else { "ip6tables" })
            .replace("{ip}", if v4 { "ip" } else { "ip6" })
            .replace("{v}", if v4 { "-4" } else { "-6" })
            .replace("{client}", &self.pair.peer_address(self.family).to_string())
            .replace("{server}", &self.pair.host_address(self.family).to_string())
            .replace("{server:7000}", &self.server().to_string())
            .replace("{server:7001}", &SocketAddr::from((self.server().ip(), OTHER_PORT)).to_string())
    }

    /// Runs commands at the host, separated by `;`, whose words hold no spaces.
    pub fn run(&self, lines: &str) {
        for line in self.words(lines).split(';').map(str::trim) {
            self.pair.host.run(line);
        }
    }

    /// Starts the watch, and returns once it watches.
    pub fn start(&self, flags: &str) -> Process {
        let line = format!("--compare --exit-verdict -v -n -l {flags} {PORT}");
        let mut watch = netkat(&self.pair.host, &line).spawn();
        watch.wait_for_stderr("watching port");
        watch
    }

    /// Watches while `clients` run, and ends the watch by a signal.
    pub fn watch(&self, flags: &str, clients: impl FnOnce(&Stage)) -> Output {
        let watch = self.start(flags);
        clients(self);
        watch.signal(nix::sys::signal::Signal::SIGINT);
        watch.wait(DEADLINE)
    }

    /// Watches one client with and without drop events, and checks status and text. Of `{events A|B}`, A stands for the
    /// text with drop events and B for that without.
    pub fn expect(&self, client: impl Fn(&Stage), status: i32, expected: &str) {
        for (events, flags) in [(true, ""), (false, "--without drop-events")] {
            check(&self.watch(flags, &client), status, &self.words(&choose(expected, events)));
        }
    }
}

/// Chooses of each `{events A|B}` the text with drop events or that without.
pub fn choose(text: &str, events: bool) -> String {
    let mut parts = text.split("{events ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (choice, rest) = part.split_once('}').expect("a choice");
        let (with, without) = choice.split_once('|').expect("two texts");
        whole.push_str(if events { with } else { without });
        whole.push_str(rest);
    }
    whole
}

/// Watches one client of a server in both families, with and without drop events.
pub fn clients_in_both(set_up: impl Fn(&Stage), status: i32, expected: &str) {
    for family in Family::ALL {
        let stage = Stage::new(family);
        let _server = stage.serve();
        set_up(&stage);
        stage.expect(Stage::client, status, expected);
    }
}
