//! The interface of a run, on which -i and the zones of addresses (RFC 4007) agree.
use super::{PlanError, usage};
use crate::{
    cli::Cli,
    host::{
        interface::{self, Interface},
        route::RouteError,
    },
    net::zone::{ScopedIp, needs_zone, scoped, zone_of},
    runtime::EgressError,
};
use std::net::{IpAddr, SocketAddr};

/// The interface that the flags name, with the text that named it.
#[derive(Clone, Debug)]
pub(super) struct Scope(Option<(String, Interface)>);

impl Scope {
    /// Returns the interface of -i.
    pub(crate) fn new(cli: &Cli) -> Result<Scope, PlanError> {
        Scope::named(cli.interface.as_deref())
    }

    /// Returns the interface of this name.
    pub(crate) fn named(name: Option<&str>) -> Result<Scope, PlanError> {
        let Some(name) = name else { return Ok(Scope(None)) };
        Ok(Scope(Some((format!("-i {name}"), interface::by_name(name)?))))
    }

    /// Narrows the scope to an address's zone. An interface of a VRF or bridge is within that device's scope.
    pub(crate) fn within(self, address: &SocketAddr) -> Result<Scope, PlanError> {
        let Some(zone) = zone_of(address) else { return Ok(self) };
        let interface = interface::by_index(zone)?;
        match self.0 {
            Some((by, other)) if other.index != zone && interface.master != Some(other.index) => {
                usage(format!("{by} and {} name two interfaces; name one", ScopedIp::from(*address)))
            }
            _ => Ok(Scope(Some((ScopedIp::from(*address).to_string(), interface)))),
        }
    }

    /// Narrows the scope to the interface that has one of this host's own addresses, if the address needs a zone.
    pub(crate) fn at_own(self, address: &SocketAddr) -> Result<Scope, PlanError> {
        if zone_of(address).is_some() || self.0.is_some() || !needs_zone(address.ip()) {
            return self.within(address);
        }
        let own = interface::addresses(None)?.into_iter().filter(|own| own.ip == address.ip());
        match own.map(|own| own.interface).collect::<Vec<_>>().as_slice() {
            [] => Ok(self),
            [only] => self.within(&scoped(address.ip(), 0, *only)),
            _ => Err(zone_missing(address.ip())),
        }
    }

    /// Returns the interface, if one is named.
    pub(crate) fn interface(&self) -> Option<&Interface> {
        self.0.as_ref().map(|(_, interface)| interface)
    }

    /// Returns the index of the interface, if one is named.
    pub(crate) fn index(&self) -> Option<u32> {
        self.interface().map(|interface| interface.index)
    }
}

/// Returns the error of an address that means nothing without a zone.
pub(super) fn zone_missing(address: IpAddr) -> PlanError {
    match address {
        IpAddr::V6(v6) => EgressError::Route(RouteError::ZoneMissing(v6)).into(),
        IpAddr::V4(_) => PlanError::Usage(format!("{address} has no zone")),
    }
}
