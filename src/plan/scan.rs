//! The plan of a scan: hosts and networks, their addresses, and the ports.
use super::{
    PlanError,
    flags::{family, protocol, setup},
    listen::network,
    remote::{CONNECT_WAIT, addresses, attempt, interleaved, remote_target, source_port, unbracketed},
    scope::Scope,
    usage,
};
use crate::{
    cli::Cli,
    commands::{Attempt, MAX_SCAN_TARGETS, PROBE_BUFFER, Patience, Scan, ScannedHost, Wanted},
    host::{
        resolve::{self, ResolveError},
        route::Query,
    },
    net::{
        count,
        zone::{scoped, zone_of},
    },
    report::{Failure, JsonReport, Tried},
    runtime::{EgressRequest, Setup},
};
use ipnet::IpNet;
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
};

/// Plans a scan.
pub(super) fn scan(cli: &Cli, report: &mut JsonReport) -> Result<Scan, PlanError> {
    let (typed, ports) = remote_target(cli)?;
    let ports = resolve::ports(ports, protocol(cli))?;
    let words: Vec<_> = typed.split(',').map(|host| unbracketed(host.trim())).collect();
    let several = words.len() > 1 || typed.contains('/');
    let mut hosts = Hosts {
        cli,
        port: ports.first().copied().unwrap_or_default(),
        source_port: source_port(cli)?,
        scope: Scope::new(cli)?,
        several,
        limit: MAX_SCAN_TARGETS / ports.len().max(1),
        ports: ports.len(),
        found: Vec::new(),
        requests: Vec::new(),
        unusable: Vec::new(),
        seen: HashSet::new(),
    };
    for word in words {
        match word {
            "" => {
                return usage(format!(
                    "\"{typed}\": a host is empty; write hosts as 10.0.0.1,example.org,10.1.0.0/28"
                ));
            }
            word if word.contains('/') => hosts.add_network(word)?,
            word => hosts.add_host(word, report)?,
        }
    }
    let Hosts { source_port, found, requests, unusable, .. } = hosts;
    let mut setup =
        Setup { port: source_port.unwrap_or(0), port_is_free: source_port.is_none(), ..setup(cli) };
    setup.flows = requests.len() * ports.len();
    setup.settings.send_buffer = PROBE_BUFFER;
    setup.settings.receive_buffer = PROBE_BUFFER;
    Ok(Scan {
        protocol: protocol(cli),
        typed: typed.to_owned(),
        hosts: found,
        several,
        requests,
        unusable,
        setup,
        ports,
        wait: cli.wait.unwrap_or(CONNECT_WAIT),
        rate: cli.rate,
        patience: patience(cli),
    })
}

/// Returns the reason to probe ports again.
fn patience(cli: &Cli) -> Option<Patience> {
    let until = |wanted, limit| Patience { wanted, limit, probes: None, all: true };
    match (cli.until_open, cli.until_closed, cli.retry) {
        (Some(limit), ..) => Some(until(Wanted::Open, limit)),
        (_, Some(limit), _) => Some(until(Wanted::Closed, limit)),
        (.., Some(more)) => {
            let probes = Some(more.saturating_add(1));
            Some(Patience { wanted: Wanted::Open, limit: None, probes, all: false })
        }
        _ => None,
    }
}

/// The hosts of a scan so far.
struct Hosts<'a> {
    cli: &'a Cli,
    /// The first port, which the route may depend on.
    port: u16,
    source_port: Option<u16>,
    scope: Scope,
    several: bool,
    /// Maximum hosts.
    limit: usize,
    ports: usize,
    found: Vec<ScannedHost>,
    requests: Vec<EgressRequest>,
    /// Addresses of a single host that nothing can be sent to.
    unusable: Vec<Tried>,
    /// Hosts that were typed as addresses: each is probed once.
    seen: HashSet<(IpAddr, Option<u32>)>,
}

impl Hosts<'_> {
    /// Adds the addresses of a network, each as a host.
    fn add_network(&mut self, text: &str) -> Result<(), PlanError> {
        let network = network(text)?;
        let net = network.net.trunc();
        let wanted = family(self.cli);
        if !wanted.includes(net.addr()) {
            let (name, present) = (text.to_owned(), net.to_string());
            return Err(ResolveError::NoAddressOfFamily { name, wanted, present }.into());
        }
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        // 2^16 is the limit, so larger networks need no count.
        let size = 1usize.checked_shl(bits).filter(|_| bits <= 16).unwrap_or(usize::MAX);
        self.make_room(size)?;
        let first = scoped(net.addr(), self.port, network.zone.unwrap_or_default());
        // All have the family and the zone of the first.
        let request = attempt(self.cli, first, self.source_port, &self.scope)?.request;
        for at in 0..size {
            let destination = nth(net, at);
            if self.seen.insert((destination, network.zone)) {
                let number = self.requests.len();
                let query = Query { destination, ..request.query };
                self.requests.push(EgressRequest { query, ..request });
                self.found.push(ScannedHost { name: None, addresses: number..number + 1, failure: None });
            }
        }
        Ok(())
    }

    /// Adds a host by its name or address.
    fn add_host(&mut self, text: &str, report: &mut JsonReport) -> Result<(), PlanError> {
        self.make_room(1)?;
        let literal = resolve::literal(text, self.port).is_ok();
        let name: Option<Rc<str>> = (!literal).then(|| text.into());
        let remotes = match addresses(self.cli, text, self.port, report) {
            Ok(remotes) => remotes,
            // The resolver's thread is left behind, and the run has to end.
            Err(error @ ResolveError::NoAnswer { waited: Some(_), .. }) => return Err(error.into()),
            Err(error) if !self.several => return Err(error.into()),
            Err(error) => {
                log::warn!("{error}");
                self.add_failed(text, &Failure::from(PlanError::from(error)));
                return Ok(());
            }
        };
        if let ([only], true) = (remotes.as_slice(), literal)
            && !self.seen.insert((only.ip(), zone_of(only)))
        {
            log::info!("{text} is named twice, and probed once");
            return Ok(());
        }
        let single = remotes.len() == 1;
        let (mut attempts, mut wrong, mut failed) = (Vec::with_capacity(remotes.len()), None, None);
        for remote in remotes {
            match attempt(self.cli, remote, self.source_port, &self.scope) {
                Ok(attempt) => attempts.push(attempt),
                Err(error) if single && !self.several => return Err(error),
                Err(error) => {
                    log::info!("{error}");
                    if let PlanError::Usage(words) = &error {
                        wrong.get_or_insert_with(|| words.clone());
                    }
                    let failure = Failure::from(error);
                    self.unusable.push(Tried::failed(remote, &failure));
                    failed = Some(failure);
                }
            }
        }
        // Flags that fit one family only are no mistake if a host has an address of it.
        if let Some(words) = wrong.filter(|_| attempts.is_empty() && !self.several) {
            return usage(words);
        }
        if let Some(failure) = failed.filter(|_| attempts.is_empty() && self.several) {
            self.add_failed(text, &failure);
            return Ok(());
        }
        let start = self.requests.len();
        self.requests.extend(interleaved(attempts).iter().map(|Attempt { request, .. }| request));
        self.found.push(ScannedHost { name, addresses: start..self.requests.len(), failure: None });
        Ok(())
    }

    /// Adds a host whose results are this failure.
    fn add_failed(&mut self, text: &str, failure: &Failure) {
        let failure = Some((failure.message().into(), failure.verdict()));
        let number = self.requests.len();
        self.found.push(ScannedHost { name: Some(text.into()), addresses: number..number, failure });
    }

    /// Refuses more targets than a scan takes.
    fn make_room(&self, more: usize) -> Result<(), PlanError> {
        match self.found.len().checked_add(more) {
            Some(hosts) if hosts <= self.limit => Ok(()),
            _ => {
                let ports = count(self.ports as u64, "port");
                usage(format!(
                    "-z takes at most {MAX_SCAN_TARGETS} targets, each a port of a host: with {ports} at most {} hosts; name \
                     fewer hosts or ports, or scan in parts",
                    self.limit
                ))
            }
        }
    }
}

/// Returns an address of a network, counted from its first.
fn nth(net: IpNet, number: usize) -> IpAddr {
    match net {
        IpNet::V4(net) => Ipv4Addr::from_bits(net.network().to_bits() + number as u32).into(),
        IpNet::V6(net) => Ipv6Addr::from_bits(net.network().to_bits() + number as u128).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_network_are_counted_from_its_first() {
        let nth = |text: &str, number| nth(text.parse().expect("a network"), number).to_string();
        assert_eq!(nth("10.0.0.9/29", 0), "10.0.0.8");
        assert_eq!(nth("10.0.0.9/29", 7), "10.0.0.15");
        assert_eq!(nth("10.0.0.0/16", 65_535), "10.0.255.255");
        assert_eq!(nth("fd77::ff/120", 1), "fd77::1");
        assert_eq!(nth("255.255.255.255/32", 0), "255.255.255.255");
    }
}
