//! Our port, held against other processes.
use super::{Error, Setup, engine::unpredictable, masqueraded, translated};
use crate::{
    kernel::PortLease,
    net::Protocol,
    process::capability::{self, Capability},
};
use std::ops::RangeInclusive;

/// The ports to choose from at an address that is not the host's (RFC 6335, section 6).
const EPHEMERAL: RangeInclusive<u16> = 49_152..=65_535;
/// Ports tried before giving up where any will do and those that the kernel picks are others'.
const FREE_PORT_ATTEMPTS: usize = 16;

/// A port of ours, held against other processes for as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lease: Option<PortLease>,
}

impl Port {
    /// Takes the port that `setup` wants, or any free one. Nothing else has been opened yet, so this is where
    /// missing privileges show, that for a low port among them: an assumed address has low ports, too.
    pub fn take(setup: &Setup) -> Result<Port, Error> {
        capability::require(Capability::NetRaw, "open a packet socket")?;
        capability::require(Capability::NetAdmin, "attach the ingress guard")?;
        capability::require(Capability::Bpf, "load its eBPF programs")?;
        if setup.lease.is_empty() {
            // Nothing is bound, so the kernel does not ask.
            capability::require_port(setup.port)?;
            let number = match setup.port {
                0 => EPHEMERAL.start() + (unpredictable() % EPHEMERAL.len() as u64) as u16,
                port => port,
            };
            return Ok(Port { number, _lease: None });
        }
        translated::refuse(setup)?;
        let scope = setup.interfaces.first().map_or(0, |interface| interface.index);
        let mut attempts = if setup.port == 0 { FREE_PORT_ATTEMPTS } else { 1 };
        // Kept until one is found, so that the kernel picks another each time.
        let mut passed_over = Vec::new();
        loop {
            attempts -= 1;
            let lease = match setup.protocol {
                Protocol::Tcp => PortLease::tcp(&setup.lease, setup.port, scope)?,
                Protocol::Udp => PortLease::udp(&setup.lease, setup.port, scope)?,
            };
            match masqueraded::refuse(setup, lease.port()) {
                Ok(()) => return Ok(Port { number: lease.port(), _lease: Some(lease) }),
                Err(error) if attempts == 0 => return Err(error),
                Err(error) => log::info!("{error}"),
            }
            passed_over.push(lease);
        }
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}
