//! The guard as rules of nftables, for hosts that let netkat load no program: what bpf/netkat.bpf.c's guard drops,
//! dropped at the ingress hook of family netdev.
//!
//! The hook comes behind the packet socket's tap and behind tc's programs, and before IP (`nf_ingress` in
//! net/core/dev.c). Every flow at the port has to be told to the kernel by a request: a set holds them, so a
//! packet costs one search.
//!
//! Limits of the rules: frames with a VLAN tag are left to the kernel, also those of VLAN 0, which are ours.
//! IPv4 over lo needs the loopback program.
use super::{
    FlowFilter, FlowKey, Guard, KernelError,
    nft_expression::{COUNTER, Expressions, Field, L4PROTO, LINK, NETWORK, PACKET_TYPE, TRANSPORT, octets},
    owned_table::{
        Chain, Command, DELETE_ELEMENT, GET_OBJECT, NETDEV, NEW_ELEMENT, NEW_OBJECT, OwnedTable, PORT_TYPE,
        Set,
    },
    programs::{Counters, HEARTBEAT_INTERVAL, HEARTBEAT_LIMIT},
};
use crate::{
    host::{
        netlink::NetlinkError,
        nfnetlink::{Attributes, push, push_name, push_nested},
    },
    kernel::matcher::{self, Addressee, Frame, KnownFlows, Verdict},
    net::{FiveTuple, Protocol},
    process::capability::{self, Capability},
};
use netlink_packet_core::NLM_F_CREATE;
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// The beginning of the tables' names; a number follows.
const PREFIX: &str = "netkat-guard-";
/// The counter of dropped packets.
const DROPPED: &[u8] = b"dropped";
/// TCP's flags: their offset, those that tell an opening SYN, and SYN (RFC 9293, section 3.1).
const TCP_FLAGS: u32 = 13;
const OPENING: u8 = 0x17;
const SYN: u8 = 0x02;
/// nft's numbers of the types of addresses, and the bits of each in the number of a concatenation.
const IPV4_TYPE: u32 = 7;
const IPV6_TYPE: u32 = 8;
const TYPE_BITS: u32 = 6;

/// Differences between the IP versions.
struct Layout {
    v4: bool,
    ethertype: u16,
    /// Offsets of source and destination, and an address's length, in bytes.
    source: u32,
    destination: u32,
    length: u32,
    address_type: u32,
    addresses: &'static [u8],
    flows: &'static [u8],
    /// The numbers of the sets within their batch.
    numbers: [u32; 2],
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        v4: true,
        ethertype: libc::ETH_P_IP as u16,
        source: 12,
        destination: 16,
        length: 4,
        address_type: IPV4_TYPE,
        addresses: b"addresses4",
        flows: b"flows4",
        numbers: [2, 3],
    },
    Layout {
        v4: false,
        ethertype: libc::ETH_P_IPV6 as u16,
        source: 8,
        destination: 24,
        length: 16,
        address_type: IPV6_TYPE,
        addresses: b"addresses6",
        flows: b"flows6",
        numbers: [4, 5],
    },
];

impl Layout {
    fn of(address: IpAddr) -> &'static Layout {
        &LAYOUTS[usize::from(address.is_ipv6())]
    }

    /// The key of a flow: the peer's address and port, and our address. Our port and the protocol are the same
    /// for all.
    fn key(&self) -> [Field; 3] {
        [(NETWORK, self.source, self.length), (TRANSPORT, 0, 2), (NETWORK, self.destination, self.length)]
    }

    fn key_length(&self) -> u32 {
        self.key().iter().map(|(_, _, length)| length.next_multiple_of(4)).sum()
    }

    fn key_type(&self) -> u32 {
        let [first, second] = [self.address_type, PORT_TYPE];
        (first << TYPE_BITS | second) << TYPE_BITS | first
    }
}

/// The rules of one run, and what else does the programs' work. The rules go when the value is dropped or the
/// process ends.
pub(crate) struct RuleGuard {
    table: OwnedTable,
    filter: FlowFilter,
    known: KnownFlows,
    /// End of the time in which segments of unknown flows are captured.
    unsure_until: Option<Instant>,
    counters: Counters,
    chains: u32,
    beat: Instant,
}

impl RuleGuard {
    /// Makes the table, without a chain. `owner` false pretends that tables have no owner.
    ///
    /// # Errors
    /// [`KernelError::Capability`] without CAP_NET_ADMIN; [`KernelError::Rules`].
    pub(super) fn create(filter: &FlowFilter, owner: bool) -> Result<RuleGuard, KernelError> {
        filter.check()?;
        let table = OwnedTable::create(PREFIX, vec![NETDEV], &[], HEARTBEAT_LIMIT, owner).map_err(refused)?;
        let mut guard = RuleGuard {
            table,
            filter: filter.clone(),
            known: KnownFlows::default(),
            unsure_until: None,
            counters: Counters::default(),
            chains: 0,
            beat: Instant::now(),
        };
        let mut commands = vec![guard.counter()];
        for layout in &LAYOUTS {
            commands.extend(guard.sets(layout));
        }
        guard.table.commit(commands).map_err(refused)?;
        guard.table.keep_alive(filter.local_port, false).map_err(refused)?;
        Ok(guard)
    }

    /// Adds the chain at an interface's ingress. `ethernet` says that its frames have Ethernet headers.
    ///
    /// # Errors
    /// [`KernelError::Rules`].
    pub(super) fn attach(
        &mut self,
        interface: u32,
        name: &str,
        ethernet: bool,
    ) -> Result<Guard, KernelError> {
        let chain = Chain {
            family: NETDEV,
            name: format!("ingress{}", self.chains),
            hook: 0,
            device: Some(name.to_owned()),
        };
        let mut commands = vec![self.table.chain(&chain)];
        for layout in &LAYOUTS {
            commands.extend(self.rules(&chain, layout, ethernet));
        }
        self.table.commit(commands).map_err(refused)?;
        self.chains += 1;
        Ok(Guard::of_rules(interface))
    }

    /// Returns the filter that a socket filter for the capture is made from.
    pub(crate) fn filter(&self) -> &FlowFilter {
        &self.filter
    }

    /// Returns whether an address of ours is IPv4.
    pub(super) fn has_ipv4(&self) -> bool {
        self.filter.has_ipv4()
    }

    /// Returns whether a captured packet is ours, and counts it. The socket filter lets a few others through.
    pub(super) fn admits(&mut self, ethertype: u16, network: &[u8]) -> bool {
        self.known.unsure = self.unsure_until.is_some_and(|until| Instant::now() < until);
        // The socket filter has compared the link header. What it takes of frames to all hosts passes as ours, too.
        let frame = Frame { to: Addressee::Us, ethertype, network };
        match matcher::arriving(&self.filter, &self.known, &frame) {
            Verdict::Foreign => return false,
            Verdict::Flow => self.counters.flow += 1,
            Verdict::Fragment => self.counters.fragments += 1,
            Verdict::Control | Verdict::Shared | Verdict::Unsure => self.counters.control += 1,
        }
        true
    }

    /// Adds a flow: its packets are ours from now on. Returns whether the kernel took it.
    pub(super) fn insert(&mut self, tuple: &FiveTuple) -> bool {
        if self.filter.table == 0 || !self.known.flows.insert(*tuple) {
            return true;
        }
        let command = self.flow(NEW_ELEMENT, tuple);
        let done = self.table.commit(vec![command]);
        if let Err(error) = &done {
            log::debug!("cannot add {tuple} to the guard's set: {error}");
        }
        done.is_ok()
    }

    /// Removes a flow: its packets are not ours from now on.
    pub(super) fn remove(&mut self, tuple: &FiveTuple) {
        if self.known.flows.remove(tuple) {
            let command = self.flow(DELETE_ELEMENT, tuple);
            if let Err(error) = self.table.commit(vec![command]) {
                log::debug!("cannot remove {tuple} from the guard's set: {error}");
            }
        }
    }

    /// Admits segments of unknown flows for this long, which the kernel sees, too.
    pub(super) fn capture_unknown(&mut self, period: Duration) {
        self.unsure_until = Some(Instant::now() + period);
    }

    /// Returns the counters; those of dropped packets are the kernel's.
    pub(super) fn counters(&mut self) -> Counters {
        let mut attributes = self.table.table_name();
        push_name(&mut attributes, 2, DROPPED);
        push(&mut attributes, 3, &COUNTER.to_be_bytes());
        match self.table.query(GET_OBJECT, NETDEV, attributes) {
            Ok(replies) => {
                let packets = replies.first().and_then(|reply| {
                    // NFTA_OBJ_DATA, NFTA_COUNTER_PACKETS.
                    let packets = Attributes(&reply.attributes).nested(4).find(2)?;
                    packets.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
                });
                self.counters.dropped = packets.unwrap_or(self.counters.dropped);
            }
            Err(error) => log::debug!("cannot read the guard's counter: {error}"),
        }
        self.counters
    }

    /// Returns the interval at which to call [`RuleGuard::beat`]; `None` while the kernel undoes all rules.
    pub(super) fn heartbeat_interval(&self) -> Option<Duration> {
        (!self.table.is_owned()).then_some(HEARTBEAT_INTERVAL)
    }

    /// Keeps rules active that would outlive the process; does nothing where there are none.
    pub(super) fn beat(&mut self) {
        if self.table.is_owned() || self.beat.elapsed() < HEARTBEAT_INTERVAL {
            return;
        }
        self.beat = Instant::now();
        // The element has timed out if the process was stopped.
        let kept = self.table.keep_alive(self.filter.local_port, true);
        let kept = kept.or_else(|_| self.table.keep_alive(self.filter.local_port, false));
        if let Err(error) = kept {
            log::warn!("cannot keep the guard's rules active: {error}");
        }
    }

    fn counter(&self) -> Command {
        let mut attributes = Vec::new();
        push_name(&mut attributes, 2, DROPPED);
        push(&mut attributes, 3, &COUNTER.to_be_bytes());
        push_nested(&mut attributes, 4, &[]);
        self.table.command(NEW_OBJECT, NLM_F_CREATE, NETDEV, &attributes)
    }

    /// Returns the commands that make the sets of an IP version: our addresses, and the flows.
    fn sets(&self, layout: &Layout) -> Vec<Command> {
        let set = |name, key_type, key_length, number| {
            self.table.set(NETDEV, &Set { name, key_type, key_length, number, lifetime: None })
        };
        let [addresses, flows] = layout.numbers;
        let mut commands = vec![set(layout.addresses, layout.address_type, layout.length, addresses)];
        for address in self.filter.local_addresses.iter().filter(|address| address.is_ipv4() == layout.v4) {
            commands.push(self.table.element(NEW_ELEMENT, NETDEV, layout.addresses, &octets(*address), None));
        }
        if self.filter.table > 0 {
            commands.push(set(layout.flows, layout.key_type(), layout.key_length(), flows));
        }
        commands
    }

    fn flow(&self, kind: u16, tuple: &FiveTuple) -> Command {
        let layout = Layout::of(tuple.local.ip());
        let flow = FlowKey::from(tuple);
        let mut key = octets(flow.remote.ip());
        key.extend(flow.remote.port().to_be_bytes());
        key.extend([0; 2]);
        key.extend(octets(flow.local.ip()));
        self.table.element(kind, NETDEV, layout.flows, &key, None)
    }

    /// Returns the rules for an IP version; none without an address of it, or where all our packets are to groups.
    fn rules(&self, chain: &Chain, layout: &Layout, ethernet: bool) -> Vec<Command> {
        let filter = &self.filter;
        if filter.groups_only
            || !filter.local_addresses.iter().any(|address| address.is_ipv4() == layout.v4)
            || filter.remote_address.is_some_and(|remote| remote.is_ipv4() != layout.v4)
        {
            return Vec::new();
        }
        let mut ours = Expressions::default();
        // The port rejects nearly all packets of others.
        ours.compare_payload(TRANSPORT, 2, &filter.local_port.to_be_bytes());
        ours.compare_meta(L4PROTO, &[filter.protocol.number()]);
        ours.compare_ethertype(layout.ethertype);
        match filter.assumed_mac {
            Some(mac) => ours.compare_payload(LINK, 0, &mac.0),
            None => ours.compare_meta(PACKET_TYPE, &[libc::PACKET_HOST]),
        }
        if ethernet {
            // A tag stands here, also one that the device has taken out (nft_payload_copy_vlan).
            ours.compare_payload(LINK, 12, &layout.ethertype.to_be_bytes());
        }
        if let Some(port) = filter.remote_port {
            ours.compare_payload(TRANSPORT, 0, &port.to_be_bytes());
        }
        if let Some(remote) = filter.remote_address {
            ours.compare_payload(NETWORK, layout.source, &octets(remote));
        }
        ours.fields_within(layout.addresses, &[(NETWORK, layout.destination, layout.length)]);
        let mut variants = Vec::new();
        if filter.table == 0 {
            variants.push(ours);
        } else {
            let mut known = ours.clone();
            known.fields_within(layout.flows, &layout.key());
            variants.push(known);
            if filter.protocol == Protocol::Tcp {
                ours.compare_bits(TRANSPORT, TCP_FLAGS, OPENING, SYN);
                variants.push(ours);
            }
        }
        let rule = |conditions| {
            self.table.rule(chain, conditions, Expressions::drop_counted(DROPPED), filter.local_port)
        };
        variants.into_iter().map(rule).collect()
    }
}

/// Explains the kernel's refusal.
fn refused(error: NetlinkError) -> KernelError {
    let purpose = "add its nftables rules";
    match error.errno() {
        Some(nix::errno::Errno::EPERM) => match capability::require(Capability::NetAdmin, purpose) {
            Err(error) => error.into(),
            Ok(()) => KernelError::Rules(error),
        },
        _ => KernelError::Rules(error),
    }
}
