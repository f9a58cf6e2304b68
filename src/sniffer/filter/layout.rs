//! The places of headers in a frame, and the tests of the protocol above the link (libpcap's gencode.c:
//! init_linktype, gen_linktype).
//!
//! `vlan`, `mpls` and `pppoes` move the places for everything behind them in the expression.
use super::{
    condition::{
        Condition,
        Size::{Byte, Half, Word},
    },
    program::extension,
    words::{ethertype, sap},
};
use crate::sniffer::frame::LinkType;

/// The format of the header that tells the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Ethernet,
    Raw,
    /// Linux "cooked" capture; the second version has no 802.2.
    Cooked1,
    Cooked2,
    /// An address family of four bytes, in network byte order or in the capturing machine's.
    Loop,
    Null,
    /// PPP's protocol field, within PPPoE.
    Ppp,
}

/// The places of headers, in bytes from the first of the frame.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    link: Link,
    /// The link header.
    pub header: u32,
    /// The field that tells the protocol.
    protocol: u32,
    /// The place behind the link header: of MPLS labels, or of the network header.
    payload: u32,
    /// Length of the MPLS labels.
    labels: u32,
    vlan_tags: u32,
    /// The kernel has taken the outermost VLAN tag out of the frame.
    outer_tag_taken: bool,
    /// The kernel runs the program.
    live: bool,
    /// Netmask for `ip broadcast`; 0 if it is unknown.
    pub netmask: u32,
    /// A primitive that the link does not have is false instead of an error.
    lenient: bool,
}

impl Layout {
    /// Returns the layout of recorded frames, or the number of a link type that is not known.
    pub(super) fn new(link_type: LinkType, lenient: bool) -> Result<Layout, u16> {
        let (link, protocol, payload) = match link_type {
            LinkType::Ethernet => (Link::Ethernet, 12, 14),
            LinkType::RawIp => (Link::Raw, 0, 0),
            LinkType::LinuxCooked1 => (Link::Cooked1, 14, 16),
            LinkType::LinuxCooked2 => (Link::Cooked2, 0, 20),
            LinkType::Null => (Link::Null, 0, 4),
            LinkType::Loop => (Link::Loop, 0, 4),
            // Behind FF 03 (RFC 1662, section 3.1).
            LinkType::Ppp => (Link::Ppp, 2, 4),
            // The packet lies behind attributes of any length, which a program of classic BPF cannot follow.
            LinkType::Nflog => return Err(239),
            LinkType::Other(number) => return Err(number),
        };
        Ok(Layout {
            link,
            header: 0,
            protocol,
            payload,
            labels: 0,
            vlan_tags: 0,
            outer_tag_taken: false,
            live: false,
            netmask: 0,
            lenient,
        })
    }

    pub(super) fn live(self, netmask: u32) -> Layout {
        Layout { live: true, netmask, ..self }
    }

    pub(super) fn without_outer_tag(self) -> Layout {
        Layout { outer_tag_taken: true, ..self }
    }

    /// Returns whether frames may have VLAN tags.
    pub(super) fn has_vlan_tags(&self) -> bool {
        self.link == Link::Ethernet
    }

    /// Returns whether frames begin with Ethernet addresses.
    pub(super) fn has_ethernet_addresses(&self) -> bool {
        self.link == Link::Ethernet
    }

    /// Returns whether `ether[0]` is the first byte of a frame. Bare IP packets among others have no link
    /// header.
    pub(super) fn has_link_header(&self) -> bool {
        !(self.link == Link::Raw && self.lenient)
    }

    /// Returns the place of the interface's index, if there is one.
    pub(super) fn interface_index(&self) -> Option<u32> {
        match self.link {
            _ if self.live => Some(extension(libc::SKF_AD_IFINDEX)),
            Link::Cooked2 => Some(self.header + 4),
            _ => None,
        }
    }

    /// Returns the place of a byte of the network header.
    pub(super) fn network(&self, at: u32) -> u32 {
        (self.payload + self.labels).wrapping_add(at)
    }

    /// Returns the place of a byte of the OSI network header, behind 802.2.
    pub(super) fn osi(&self, at: u32) -> u32 {
        let llc = if self.link == Link::Ethernet { 3 } else { 0 };
        self.network(llc + at)
    }

    pub(super) fn is_in_mpls(&self) -> bool {
        self.labels > 0
    }

    /// Returns false, or an error, for a primitive that the link does not have.
    pub(super) fn lacks(&self, what: &str) -> Result<Condition, String> {
        if self.lenient {
            return Ok(Condition::Always(false));
        }
        let link = match self.link {
            Link::Ethernet => "Ethernet",
            Link::Raw => "bare IP packets",
            Link::Cooked1 | Link::Cooked2 => "Linux cooked captures",
            Link::Loop | Link::Null => "BSD loopback",
            Link::Ppp => "PPPoE",
        };
        Err(format!("{link}: {what}"))
    }

    /// Returns the test that the protocol above the link is this EtherType or service access point.
    pub(super) fn is_protocol(&self, number: u32) -> Result<Condition, String> {
        if self.is_in_mpls() {
            return self.is_above_mpls(number);
        }
        let equals = |number| Condition::equal(Half, self.protocol, number);
        Ok(match self.link {
            Link::Ethernet => {
                self.is_ethernet(number, Condition::greater(Half, self.protocol, ethertype::MAX_LENGTH).not())
            }
            // LINUX_SLL_P_802_2.
            Link::Cooked1 => self.is_ethernet(number, equals(4)),
            Link::Cooked2 => equals(number),
            Link::Raw => match number {
                ethertype::IP => Condition::masked(Byte, self.payload, 0xf0, 0x40),
                ethertype::IP6 => Condition::masked(Byte, self.payload, 0xf0, 0x60),
                _ => Condition::Always(false),
            },
            Link::Loop => self.is_family(number, &[|family| family]),
            Link::Null => self.is_family(number, &[|family| family, u32::swap_bytes]),
            Link::Ppp => equals(match number {
                ethertype::IP => 0x21,
                ethertype::IP6 => 0x57,
                sap::ISO => 0x23,
                ethertype::ATALK => 0x29,
                ethertype::MPLS => 0x281,
                sap::IPX => 0x2b,
                sap::STP => 0x31,
                other => other,
            }),
        })
    }

    /// Tests an EtherType, or a service access point in frames that are `llc`, with an 802.2 header.
    fn is_ethernet(&self, number: u32, llc: Condition) -> Condition {
        let equals = |number| Condition::equal(Half, self.protocol, number);
        let snap = |organization: u32, number| {
            let [at0, at4] = [self.payload, self.payload + 4];
            // The last bytes first: a cut header rejects the packet.
            Condition::all([
                Condition::equal(Word, at4, organization << 16 | number),
                Condition::equal(Word, at0, 0xaaaa_0300 | organization >> 16),
            ])
        };
        match number {
            sap::ISO | sap::IP | sap::NETBEUI => {
                Condition::all([llc, Condition::equal(Half, self.payload, number << 8 | number)])
            }
            sap::IPX => {
                let novell = match self.link {
                    Link::Cooked1 => Condition::Always(false),
                    _ => Condition::equal(Half, self.payload, 0xffff),
                };
                let access_point = Condition::equal(Byte, self.payload, sap::IPX);
                let within = Condition::any([snap(0, ethertype::IPX), access_point, novell]);
                // LINUX_SLL_P_802_3.
                let without = if self.link == Link::Cooked1 { equals(1) } else { Condition::Always(false) };
                Condition::any([equals(ethertype::IPX), without, Condition::all([llc, within])])
            }
            ethertype::ATALK => {
                Condition::any([equals(number), Condition::all([llc, snap(0x08_0007, number)])])
            }
            ethertype::AARP => Condition::any([equals(number), Condition::all([llc, snap(0, number)])]),
            0..=ethertype::MAX_LENGTH => {
                Condition::all([llc, Condition::equal(Byte, self.protocol + 2, number)])
            }
            _ => equals(number),
        }
    }

    /// Tests an address family; IPv6 has different numbers on NetBSD, FreeBSD and macOS.
    fn is_family(&self, number: u32, orders: &[fn(u32) -> u32]) -> Condition {
        let families: &[u32] = match number {
            ethertype::IP => &[2],
            ethertype::IP6 => &[24, 28, 30],
            _ => &[],
        };
        let numbers = families.iter().flat_map(|family| orders.iter().map(move |order| order(*family)));
        Condition::any(numbers.map(|number| Condition::equal(Word, self.header, number)))
    }

    /// Tests for the bottom of the label stack, and for the version of IP.
    fn is_above_mpls(&self, number: u32) -> Result<Condition, String> {
        let version = match number {
            ethertype::IP => 0x40,
            ethertype::IP6 => 0x60,
            _ => return self.lacks("only ip and ip6 can be told apart behind mpls"),
        };
        Ok(Condition::all([
            Condition::masked(Byte, self.network(0u32.wrapping_sub(2)), 0x01, 0x01),
            Condition::masked(Byte, self.network(0), 0xf0, version),
        ]))
    }

    /// Tests for a VLAN tag, and moves the places behind it.
    pub(super) fn enter_vlan(&mut self, identifier: Option<u32>) -> Result<Condition, String> {
        if self.is_in_mpls() {
            return self.lacks("there are no VLAN tags behind mpls");
        }
        if self.link != Link::Ethernet {
            return self.lacks("there are no VLAN tags");
        }
        let outermost = self.vlan_tags == 0;
        self.vlan_tags += 1;
        if outermost && self.outer_tag_taken {
            let tag = extension(libc::SKF_AD_VLAN_TAG);
            return Ok(
                identifier.map_or(Condition::Always(true), |id| Condition::masked(Word, tag, 0x0fff, id))
            );
        }
        let tags = [ethertype::VLAN, ethertype::PROVIDER_VLAN, ethertype::DOUBLE_VLAN];
        let tag = Condition::any(tags.map(|number| Condition::equal(Half, self.protocol, number)));
        let number = identifier.map(|id| Condition::masked(Half, self.payload, 0x0fff, id));
        self.protocol += 4;
        self.payload += 4;
        Ok(Condition::all([tag].into_iter().chain(number)))
    }

    /// Tests for an MPLS label, and moves the places behind it.
    pub(super) fn enter_mpls(&mut self, label: Option<u32>) -> Result<Condition, String> {
        let first = if self.is_in_mpls() {
            // The label before is not the bottom of the stack.
            Condition::masked(Byte, self.network(0u32.wrapping_sub(2)), 0x01, 0)
        } else if matches!(self.link, Link::Ethernet | Link::Ppp) {
            self.is_protocol(ethertype::MPLS)?
        } else {
            return self.lacks("there are no MPLS labels");
        };
        let number = label.map(|label| Condition::masked(Word, self.network(0), 0xffff_f000, label << 12));
        self.labels += 4;
        Ok(Condition::all([first].into_iter().chain(number)))
    }

    /// Tests for a PPPoE session, and moves the places behind it.
    pub(super) fn enter_pppoe(&mut self, session: Option<u32>) -> Result<Condition, String> {
        let first = self.is_protocol(ethertype::PPPOE_SESSION)?;
        let number = session.map(|session| Condition::masked(Word, self.network(0), 0xffff, session));
        let ppp = self.network(6);
        self.link = Link::Ppp;
        (self.header, self.protocol, self.payload, self.labels) = (ppp, ppp, ppp + 2, 0);
        Ok(Condition::all([first].into_iter().chain(number)))
    }
}
