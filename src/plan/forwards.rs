//! The services that a command reaches through this host's sockets: name servers that its namespace cannot
//! reach past the firewall, and ports of the host's loopback that the user names.
use super::PlanError;
use crate::{
    cli::{Cli, Dns},
    host::{
        interface::{Address, Interface},
        resolve::{self, Family},
        rules,
    },
    kernel,
    namespace::Forward,
    net::Protocol,
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Name servers that the resolver asks (resolv.conf(5), MAXNS).
const MAX_SERVERS: usize = 3;
const DNS_PORT: u16 = 53;

/// A command's forwards.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    pub by_host: Vec<Forward>,
    pub by_namespace: Vec<Forward>,
    /// Addresses that the namespace has for them, on lo.
    pub on_loopback: Vec<IpAddr>,
}

impl Forwards {
    /// Plans the forwards of a command that has `own` addresses on a host that has `all`.
    pub(crate) fn plan(
        cli: &Cli,
        own: &[(IpAddr, u8)],
        all: &[Address],
        interfaces: &[Interface],
    ) -> Result<Forwards, PlanError> {
        let mut forwards = Forwards::default();
        let servers = name_servers(&fs::read_to_string(RESOLV_CONF).unwrap_or_default());
        let chosen = match &cli.dns {
            Dns::Server(text) => {
                let found = resolve::addresses(text, DNS_PORT, Family::Any, super::flags::names(cli))?;
                found.first().map(|server| SocketAddr::new(server.ip(), DNS_PORT))
            }
            Dns::Host | Dns::Relay => None,
        };
        for server in servers {
            let at = SocketAddr::new(server, DNS_PORT);
            if let Some(to) = chosen {
                if to != at {
                    log::info!("dns: {to} answers for {server}, past the firewall");
                    forwards.add(at, to, own, true);
                }
            } else if cli.dns == Dns::Relay || is_host_local(server, all) || is_translated(at, interfaces) {
                log::info!("dns: {server} is asked through this host's sockets, and so through its firewall");
                forwards.add(at, at, own, false);
            }
        }
        for (protocol, port) in &cli.host_loopback {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            forwards.by_host.push(Forward { protocol: *protocol, listen: at, to: at });
        }
        Ok(forwards)
    }

    /// Adds a name server's forwards.
    fn add(&mut self, at: SocketAddr, to: SocketAddr, own: &[(IpAddr, u8)], past: bool) {
        let ip = at.ip();
        if !ip.is_loopback() && !own.iter().any(|(own, _)| *own == ip) {
            self.on_loopback.push(ip);
        }
        let both = [Protocol::Udp, Protocol::Tcp].map(|protocol| Forward { protocol, listen: at, to });
        if past { self.by_namespace.extend(both) } else { self.by_host.extend(both) }
    }
}

/// Returns the name servers of a resolv.conf, or the resolver's default.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(Ok(server)) = words.next().map(str::parse::<IpAddr>)
            && !servers.contains(&server)
            && servers.len() < MAX_SERVERS
        {
            servers.push(server);
        }
    }
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers
}

/// Returns whether an address is this host's own, which a command's namespace cannot reach.
fn is_host_local(server: IpAddr, all: &[Address]) -> bool {
    server.is_loopback()
        || server == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        || server == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        || all.iter().any(|address| address.ip == server)
}

/// Returns whether rules of this host give packets to a name server another destination, as kube-proxy's do
/// with a ClusterIP.
fn is_translated(server: SocketAddr, interfaces: &[Interface]) -> bool {
    let ingress: Vec<_> = interfaces.iter().map(|i| (i.index, i.name.clone())).collect();
    rules::translation(Protocol::Udp, &[server], &ingress, &kernel::legacy_nat_tables()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_servers_count() {
        let text = "# nameserver 192.0.2.9\nnameserver 127.0.0.53\noptions edns0\nnameserver fd00::1 # two\n\
                    nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver\n";
        let wanted: Vec<IpAddr> =
            ["127.0.0.53", "fd00::1", "192.0.2.1"].map(|ip| ip.parse().expect("an address")).into();
        assert_eq!(name_servers(text), wanted);
        assert_eq!(name_servers(""), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
}
