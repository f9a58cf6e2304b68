//! tcpdump on the wire: tells whether a kernel answered packets that netkat alone should answer.
use super::{
    namespace::Namespace,
    process::{DEADLINE, Process},
};
use std::time::Duration;

/// A running tcpdump that prints the packets a filter admits.
pub struct Witness(Process);

impl Witness {
    /// Watches packets that come in on an interface.
    pub fn incoming(at: &Namespace, interface: &str, filter: &str) -> Self {
        Self::start(at, interface, &["-Q", "in"], filter)
    }

    /// Watches both directions.
    pub fn all(at: &Namespace, interface: &str, filter: &str) -> Self {
        Self::start(at, interface, &[], filter)
    }

    fn start(at: &Namespace, interface: &str, more: &[&str], filter: &str) -> Self {
        // The lab runs as root, and tcpdump would give that up with its right to enter nothing.
        let mut tcpdump = at
            .command("tcpdump")
            .args(["-n", "-l", "--immediate-mode", "-Z", "root", "-i", interface])
            .args(more)
            .arg(filter)
            .deadline(Duration::from_secs(600))
            .spawn();
        tcpdump.wait_for_stderr("listening on");
        Self(tcpdump)
    }

    /// Watches for resets and ICMP errors (RFC 792, RFC 4443 section 2.1: types below 128) that
    /// arrive on eth0 and concern this TCP port.
    pub fn of_resets_and_errors(at: &Namespace, port: u16) -> Self {
        Self::incoming(
            at,
            "eth0",
            // IPv6: TCP's flags at offset 40 + 13, ICMPv6's type at 40. An ICMP error quotes a
            // header whose port no simple filter finds, so any error counts.
            &format!(
                "(tcp port {port} and (tcp[tcpflags] & tcp-rst != 0 or ip6[53] & 4 != 0)) \
                 or (icmp and icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply) \
                 or (icmp6 and ip6[40] < 128)"
            ),
        )
    }

    /// Waits until tcpdump has printed this text.
    pub fn wait_for(&mut self, text: &str) {
        self.0.wait_for_stdout(text);
    }

    /// Ends tcpdump and returns the packets that it printed.
    pub fn finish(self) -> String {
        self.0.signal(nix::sys::signal::SIGINT);
        self.0.wait(DEADLINE).text().trim().to_owned()
    }

    /// Ends tcpdump. Panics if it printed a packet.
    pub fn saw_nothing(self) {
        let seen = self.finish();
        assert_eq!(seen, "", "seen on the wire");
    }
}
