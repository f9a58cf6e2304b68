//! tcpdump's filter language, pcap-filter(7), as a program of classic BPF.
//!
//! Theory of operation: `token` cuts the text into words, `parser` makes a tree of them, and `qualify`
//! decides what each primitive means. So far nothing is known of the packets, and no name is looked up.
//! [`Filter::resolve`] replaces names of hosts by addresses. [`Filter::compile`] then makes a program for
//! one kind of frames: `lower` turns each primitive into a `condition`, tests of bytes whose places
//! `layout` knows, and `assemble` lays out tests and jumps as instructions. The kernel runs the program on
//! live frames, `machine` on those of a file: one program, one meaning.
//!
//! Verdicts are tcpdump's (libpcap 1.10), also where pcap-filter(7) is surprising: `and` and `or` have
//! equal precedence, `vlan` moves every offset behind it, and a test beyond the end of a packet rejects
//! the packet. docs/filter.md lists what is taken, what is refused and what differs.
mod arithmetic;
mod assemble;
mod condition;
mod error;
mod layout;
mod lower;
mod machine;
mod parser;
mod program;
mod qualify;
mod syntax;
mod token;
mod words;

pub use self::error::FilterError;
pub use self::program::Program;
use self::{
    assemble::Assembler,
    condition::Condition,
    layout::Layout,
    lower::lower,
    syntax::{Addresses, Network, Node, Primitive},
};
use super::frame::LinkType;
use crate::{
    host::resolve::{self, Family, Names},
    net::arphrd,
};
use std::net::{IpAddr, SocketAddr};

/// The VLAN identifier in a tag (802.1Q).
const VLAN_VID_MASK: u32 = 0x0fff;

/// The frames that a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Frames of a capture file.
    Recorded(LinkType),
    /// Frames of one interface, with the netmask of its first IPv4 address (0 without one).
    Live {
        /// The format of the frames.
        link_type: LinkType,
        /// The netmask, for `ip broadcast`.
        netmask: u32,
    },
    /// Frames of every interface of this host.
    Any,
}

/// A filter: an expression of pcap-filter(7) that has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    root: Node,
    /// A primitive that a link type does not have is false instead of an error.
    lenient: bool,
}

impl Filter {
    /// Reads an expression. Looks up names of ports in /etc/services, and no other name.
    ///
    /// # Errors
    /// [`FilterError::At`], with the place and what would be right there.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let root = parser::parse(text)?;
        Ok(Filter { text: text.to_owned(), root, lenient: false })
    }

    /// Makes primitives that a link type does not have false, instead of errors.
    #[must_use]
    pub(crate) fn lenient(self) -> Filter {
        Filter { lenient: true, ..self }
    }

    /// Returns whether the first word of a text is one of the language's.
    pub(crate) fn starts_with_word_of_the_language(text: &str) -> bool {
        words::keyword(text.split_whitespace().next().unwrap_or_default()).is_some()
    }

    /// Looks up the names of hosts, each once. `names` tells whether the resolver is asked. `known_here` returns
    /// addresses that are known without it.
    ///
    /// # Errors
    /// [`FilterError::Resolve`] for a name without any address.
    pub fn resolve(
        mut self,
        family: Family,
        names: Names,
        known_here: &dyn Fn(&str) -> Vec<IpAddr>,
    ) -> Result<Filter, FilterError> {
        let mut known: Vec<(String, Family, Vec<Network>)> = Vec::new();
        self.root.for_each_mut(&mut |primitive| {
            let Primitive::Host { addresses, scope, .. } = primitive else { return Ok(()) };
            let Addresses::Name(name) = addresses else { return Ok(()) };
            let family = scope.family().unwrap_or(family);
            let found = match known.iter().find(|(other, of, _)| other == name && *of == family) {
                Some((_, _, found)) => found.clone(),
                None => {
                    let here = known_here(name).into_iter().filter(|address| family.includes(*address));
                    let mut found: Vec<_> = here.collect();
                    match resolve::addresses(name, 0, family, names) {
                        Ok(resolved) => found.extend(resolved.iter().map(SocketAddr::ip)),
                        Err(error) if found.is_empty() => return Err(error.into()),
                        Err(error) => log::debug!("{error}"),
                    }
                    found.sort_unstable();
                    found.dedup();
                    found.into_iter().map(Network::from).collect()
                }
            };
            known.push((name.clone(), family, found.clone()));
            *addresses = Addresses::Networks(found);
            Ok(())
        })?;
        Ok(self)
    }

    /// Compiles the filter for one kind of frames.
    ///
    /// # Errors
    /// [`FilterError::At`] for a primitive that these frames do not have; [`FilterError::TooComplex`].
    pub fn compile(&self, frames: Frames) -> Result<Program, FilterError> {
        let mut assembler = Assembler::new();
        match frames {
            Frames::Recorded(link_type) => {
                let layout = self.layout(link_type)?;
                self.part(&mut assembler, layout)?;
            }
            Frames::Live { link_type, netmask } => {
                let layout = self.layout(link_type)?.live(netmask);
                self.live_part(&mut assembler, layout)?;
            }
            Frames::Any => self.any_part(&mut assembler)?,
        }
        assembler.finish()
    }

    /// Compiles the filter for frames of every interface that arrive without a tag of another VLAN than 0. With
    /// `group`, this filter is for frames to this host's link address alone, and `group` for broadcast and multicast.
    ///
    /// # Errors
    /// As for [`Filter::compile`].
    pub(crate) fn compile_arriving(&self, group: Option<&Filter>) -> Result<Program, FilterError> {
        let mut assembler = Assembler::new();
        assembler.require(&Condition::any([
            Condition::extension(libc::SKF_AD_VLAN_TAG_PRESENT, u32::MAX, 0),
            Condition::extension(libc::SKF_AD_VLAN_TAG, VLAN_VID_MASK, 0),
        ]));
        if let Some(group) = group {
            let (to_us, others) = (assembler.label(), assembler.label());
            assembler.branch_on_extension(libc::SKF_AD_PKTTYPE, libc::PACKET_HOST.into(), to_us, others);
            assembler.bind(others);
            assembler.require(&Condition::any([
                Condition::extension(libc::SKF_AD_PKTTYPE, u32::MAX, libc::PACKET_BROADCAST.into()),
                Condition::extension(libc::SKF_AD_PKTTYPE, u32::MAX, libc::PACKET_MULTICAST.into()),
            ]));
            group.any_part(&mut assembler)?;
            assembler.bind(to_us);
        }
        self.any_part(&mut assembler)?;
        assembler.finish()
    }

    /// Compiles a part for frames of every interface.
    fn any_part(&self, assembler: &mut Assembler) -> Result<(), FilterError> {
        let ethernet = assembler.label();
        for hardware in [arphrd::ETHER, arphrd::LOOPBACK] {
            let next = assembler.label();
            assembler.branch_on_extension(libc::SKF_AD_HATYPE, hardware.into(), ethernet, next);
            assembler.bind(next);
        }
        let filter = self.clone().lenient();
        filter.live_part(assembler, filter.layout(LinkType::RawIp)?.live(0))?;
        assembler.bind(ethernet);
        filter.live_part(assembler, filter.layout(LinkType::Ethernet)?.live(0))
    }

    fn layout(&self, link_type: LinkType) -> Result<Layout, FilterError> {
        let unknown = |number| FilterError::LinkType { expression: self.text.clone(), number };
        Layout::new(link_type, self.lenient).map_err(unknown)
    }

    /// Compiles a part for frames of one interface. The kernel has taken the outermost VLAN tag out of
    /// some of them: where that matters, these get a part of their own.
    fn live_part(&self, assembler: &mut Assembler, layout: Layout) -> Result<(), FilterError> {
        if layout.has_vlan_tags() && self.root.any(&|primitive| matches!(primitive, Primitive::Vlan(_))) {
            let (stripped, whole) = (assembler.label(), assembler.label());
            assembler.branch_on_extension(libc::SKF_AD_VLAN_TAG_PRESENT, 1, stripped, whole);
            assembler.bind(stripped);
            self.part(assembler, layout.clone().without_outer_tag())?;
            assembler.bind(whole);
        }
        self.part(assembler, layout)
    }

    fn part(&self, assembler: &mut Assembler, mut layout: Layout) -> Result<(), FilterError> {
        let condition = lower(&self.root, &mut layout).map_err(|fault| fault.within(&self.text))?;
        assembler.part(&condition);
        Ok(())
    }
}
