//! Our port, held against other processes.
use super::{Error, Setup, engine::unpredictable, nat};
use crate::{
    kernel::PortLease,
    process::capability::{self, Capability},
};
use std::ops::RangeInclusive;

/// Ephemeral ports at an address that is not the host's (RFC 6335, section 6).
const EPHEMERAL: RangeInclusive<u16> = 49_152..=65_535;
/// Maximum ephemeral ports of a listener to try, of which NAT may use some.
const FREE_PORT_ATTEMPTS: usize = 16;

/// A port of ours, held against other processes for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lease: Option<PortLease>,
}

impl Port {
    /// Checks the privileges that taking a port begins with. Call it before anything else is opened.
    ///
    /// # Errors
    /// [`Error::Capability`].
    pub(super) fn require_privileges() -> Result<(), Error> {
        capability::require(Capability::NetRaw, "open a packet socket")?;
        Ok(capability::require(Capability::NetAdmin, "attach the ingress guard")?)
    }

    /// Takes the port that `setup` names, or any free one. A low port takes its privilege at an assumed address, too.
    ///
    /// # Errors
    /// [`Error::Capability`], [`Error::Kernel`] where another socket has the port, [`Error::Translated`] and
    /// [`Error::Masqueraded`] where this host's NAT uses it.
    pub(crate) fn take(setup: &Setup) -> Result<Port, Error> {
        Port::require_privileges()?;
        if setup.lease.is_empty() {
            // The kernel checks privileges at bind(2) only, and nothing is bound here.
            capability::require_port(setup.port)?;
            let number = match setup.port {
                0 => EPHEMERAL.start() + (unpredictable() % EPHEMERAL.len() as u64) as u16,
                port => port,
            };
            return Ok(Port { number, _lease: None });
        }
        if setup.port != 0 {
            nat::refuse_translated(setup, setup.port)?;
        }
        let scope = setup.interfaces.first().map_or(0, |interface| interface.index);
        let mut attempts = if setup.port == 0 { FREE_PORT_ATTEMPTS } else { 1 };
        // Refused leases stay until one is found, so that the kernel picks another port each time.
        let mut refused = Vec::new();
        loop {
            attempts -= 1;
            let lease = match setup.groups.only {
                true => PortLease::share(&setup.lease, setup.port, scope)?,
                false => PortLease::take(setup.protocol, &setup.lease, setup.port, scope)?,
            };
            let translated = match setup.port {
                0 => nat::refuse_translated(setup, lease.port()),
                _ => Ok(()),
            };
            match translated.and_then(|()| nat::refuse_masqueraded(setup, lease.port())) {
                Ok(()) => return Ok(Port { number: lease.port(), _lease: Some(lease) }),
                Err(error) if attempts == 0 => return Err(error),
                Err(error) => log::info!("{error}"),
            }
            refused.push(lease);
        }
    }

    /// Returns the port's number, never 0.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
