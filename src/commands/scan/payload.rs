//! The datagrams that UDP probes carry: requests that the service of a well-known port answers, so that an open port
//! is told from a silent one.
//!
//! Each request asks for little, changes nothing, and is answered without a secret. Any datagram that comes back shows
//! the port to be open, so no answer is read.
mod dns;
mod memcached;
mod ntp;
mod quic;
mod snmp;
mod stun;

/// A kind of probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// The probe as a noun, for messages.
    pub noun: &'static str,
    /// Returns the payload of the probe with this number, from 0 on; unpredictable numbers make it unlike any other.
    build: fn(number: u64, random: [u64; 2]) -> Vec<u8>,
}

/// The probe of a port without a request of its own.
const EMPTY: Request = Request { noun: "empty datagram", build: |_, _| Vec::new() };

impl Request {
    /// Returns the request of the service that has the port (IANA, "Service Name and Transport Protocol Port Number
    /// Registry").
    pub(super) fn of(port: u16) -> Request {
        match port {
            53 => Request { noun: "DNS request", build: |_, random| dns::query(random) },
            123 => Request { noun: "NTP request", build: |_, random| ntp::request(random) },
            161 => Request { noun: "SNMP request", build: snmp::request },
            443 => Request { noun: "QUIC packet", build: |_, random| quic::initial(random) },
            3478 => Request { noun: "STUN request", build: |_, random| stun::binding_request(random) },
            11_211 => Request { noun: "memcached request", build: |_, random| memcached::version(random) },
            _ => EMPTY,
        }
    }

    /// Returns the payload of the probe with this number, from 0 on.
    pub(super) fn payload(&self, number: u64, random: [u64; 2]) -> Vec<u8> {
        (self.build)(number, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_gets_its_own_request_and_other_ports_an_empty_datagram() {
        for port in [53, 123, 161, 443, 3478, 11_211] {
            let request = Request::of(port);
            assert!(!request.payload(0, [1, 2]).is_empty(), "{port}");
            assert_ne!(request.payload(0, [1, 2]), request.payload(0, [3, 4]), "{port}");
        }
        assert_eq!(Request::of(54).payload(0, [1, 2]), b"");
    }
}
