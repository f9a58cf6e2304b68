//! The local end of a client's flows: port, sources and routes.
//!
//! Port, source and route depend on each other. Policy rules and multipath hashing look at the port, the route
//! gives the source, and the port is taken at the source. The kernel's UDP has its port first (inet_autobind()
//! before ip_route_connect()); its TCP, which takes a port last, looks up the source's route by a random port
//! since Linux 6.16 (FLOWI_FLAG_ANY_SPORT). So netkat draws a free port, asks for the route of each flow once,
//! with this port, and holds the port at the routes' sources. A port that is taken there is drawn again.
use super::{Egress, EgressError, EgressRequest, Error, Port, Setup};
use crate::{
    host::{interface::Interface, route},
    kernel::{self, KernelError},
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

/// Maximum ports to draw. Other sockets and masqueraded connections may use some.
const ATTEMPTS: usize = 16;

/// The local end of a client's flows, with its port held.
pub(crate) struct LocalEnd {
    /// The port.
    pub port: Port,
    /// The engine's parameters, with the flows' sources and interfaces.
    pub setup: Setup,
    /// The egress of each flow.
    pub egresses: Egresses,
}

/// The local end of flows to several addresses of a host, all from one port.
pub(crate) struct SharedEnd {
    /// The port; `None` if no flow has a route.
    pub port: Option<Port>,
    /// The engine's parameters, with the sources, interfaces and remotes of the flows that have a route.
    pub setup: Setup,
    /// The egress of each flow.
    pub egresses: Vec<Result<Egress, EgressError>>,
}

/// The egresses of flows to the ports of one host.
pub(crate) struct Egresses {
    /// The egress to ports that are not in `by_port`.
    pub first: Egress,
    /// Further egresses.
    pub others: Vec<Egress>,
    /// The egress to each other remote port, as an index into `others`.
    pub by_port: HashMap<u16, usize>,
    /// The remote ports that have none.
    pub refused: Vec<(u16, EgressError)>,
}

impl LocalEnd {
    /// Chooses port and routes for flows to the remote `ports`, of which the request has one. `setup` names the
    /// local port, or 0 for any free one. Call it before anything else is opened, so that missing
    /// privileges show here.
    ///
    /// # Errors
    /// [`Error::Egress`] where no remote port has a route; those of [`Port::take`].
    pub(crate) fn choose(request: &EgressRequest, setup: &Setup, ports: &[u16]) -> Result<LocalEnd, Error> {
        with_port(request, setup, |port| LocalEnd::at(request, setup, ports, port))
    }

    fn at(request: &EgressRequest, setup: &Setup, ports: &[u16], port: u16) -> Result<LocalEnd, Error> {
        let request = request.with_local_port(port);
        let egresses = Egresses::decide(&request, ports)?;
        let setup = complete(setup, port, egresses.iter().map(|egress| (&request, egress)))?;
        let port = Port::take(&setup)?;
        Ok(LocalEnd { port, setup, egresses })
    }
}

impl SharedEnd {
    /// Chooses a port for all the flows, and the route of each. `setup` names the local port, or 0 for any free one.
    ///
    /// # Errors
    /// Those of [`Port::take`]. A flow without a route is no error.
    pub(crate) fn choose(requests: &[EgressRequest], setup: &Setup) -> Result<SharedEnd, Error> {
        let Some(first) = requests.first() else {
            return Ok(SharedEnd { port: None, setup: setup.clone(), egresses: Vec::new() });
        };
        with_port(first, setup, |port| SharedEnd::at(requests, setup, port))
    }

    fn at(requests: &[EgressRequest], setup: &Setup, port: u16) -> Result<SharedEnd, Error> {
        let requests: Vec<_> = requests.iter().map(|request| request.with_local_port(port)).collect();
        let egresses: Vec<_> = requests.iter().map(EgressRequest::decide).collect();
        let flows = || {
            requests.iter().zip(&egresses).filter_map(|(flow, egress)| Some((flow, egress.as_ref().ok()?)))
        };
        let mut setup = complete(setup, port, flows())?;
        setup.remotes = flows()
            .map(|(flow, _)| {
                SocketAddr::new(flow.query.destination, flow.query.destination_port.unwrap_or(0))
            })
            .collect();
        let port = if setup.remotes.is_empty() { None } else { Some(Port::take(&setup)?) };
        Ok(SharedEnd { port, setup, egresses })
    }
}

/// Tries `at` with the port that `setup` names, or with drawn ones until one is free.
pub(super) fn with_port<T>(
    request: &EgressRequest,
    setup: &Setup,
    at: impl Fn(u16) -> Result<T, Error>,
) -> Result<T, Error> {
    Port::require_privileges()?;
    let draws = setup.port == 0 && request.assumed.is_none();
    let mut attempts = if draws { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let port = match draws {
            true => kernel::draw_port(setup.protocol, request.query.destination.is_ipv4())?,
            false => setup.port,
        };
        match at(port) {
            Err(error @ (Error::Kernel(KernelError::PortInUse { .. }) | Error::Masqueraded { .. }))
                if attempts > 0 =>
            {
                log::info!("{error}; taking another port");
            }
            result => return result,
        }
    }
}

/// Completes the engine's parameters by port, sources and interfaces of the flows. The interface of a link-local source
/// comes first, since the port is held there.
pub(super) fn complete<'a>(
    setup: &Setup,
    port: u16,
    flows: impl Iterator<Item = (&'a EgressRequest, &'a Egress)>,
) -> Result<Setup, EgressError> {
    let mut setup = Setup { port, ..setup.clone() };
    let mut flows: Vec<_> = flows.collect();
    flows.sort_by_key(|(_, egress)| !matches!(egress.source, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    for (_, egress) in &flows {
        log::info!("{}", egress.description);
        if egress.pod_veth {
            log::info!("{} is this pod's veth: the node's rules see its packets", egress.interface.name);
        }
        add(&mut setup.local, egress.source);
        add_interface(&mut setup.interfaces, egress.interface.clone());
        setup.assumed = egress.assumed;
        setup.to_group |= egress.is_to_group();
    }
    if setup.assumed.is_none() {
        setup.lease = setup.local.clone();
    }
    for (request, egress) in &flows {
        for interface in egress.return_interfaces(&request.query)? {
            if setup.interfaces.iter().all(|own| own.index != interface.index) {
                add_interface(&mut setup.return_interfaces, interface);
            }
        }
    }
    Ok(setup)
}

impl Egresses {
    /// Asks for the route to each port, or only to the request's where the port makes no difference. Fails with
    /// the first port's error where no port has a route.
    pub(super) fn decide(request: &EgressRequest, ports: &[u16]) -> Result<Egresses, EgressError> {
        // The interface of a chosen next hop or an assumed address does not depend on the port.
        let differ = ports.len() > 1
            && request.via.is_none()
            && request.assumed.is_none()
            && route::depends_on_port(&request.query);
        if !differ {
            return request.decide().map(Egresses::new);
        }
        let (mut found, mut refused): (Option<Egresses>, _) = (None, Vec::new());
        for port in ports {
            match (request.with_remote_port(*port).decide(), &mut found) {
                (Ok(egress), Some(egresses)) => egresses.insert(*port, egress),
                (Ok(first), None) => found = Some(Egresses::new(first)),
                (Err(error), _) => refused.push((*port, error)),
            }
        }
        match (found, refused.is_empty()) {
            (Some(egresses), _) => Ok(Egresses { refused, ..egresses }),
            (None, false) => Err(refused.swap_remove(0).1),
            (None, true) => request.decide().map(Egresses::new),
        }
    }

    fn new(first: Egress) -> Egresses {
        Egresses { first, others: Vec::new(), by_port: HashMap::new(), refused: Vec::new() }
    }

    fn insert(&mut self, port: u16, egress: Egress) {
        if egress == self.first {
            return;
        }
        let at = self.others.iter().position(|known| *known == egress).unwrap_or_else(|| {
            self.others.push(egress);
            self.others.len() - 1
        });
        self.by_port.insert(port, at);
    }

    fn iter(&self) -> impl Iterator<Item = &Egress> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

fn add(addresses: &mut Vec<IpAddr>, address: IpAddr) {
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

pub(super) fn add_interface(interfaces: &mut Vec<Interface>, interface: Interface) {
    if interfaces.iter().all(|known| known.index != interface.index) {
        interfaces.push(interface);
    }
}
