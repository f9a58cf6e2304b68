//! Rules of netfilter as text, from the kernel's own representation, without a tool.
//!
//! A rule of nf_tables is a program over registers. [`render`] follows it once: each register remembers what
//! was loaded ([`selector`]), a comparison prints it with its value ([`datatype`]), and a condition that
//! nft(8) inserts for a later field is left out as nft leaves it out. Sets are printed by [`set`], verdicts and
//! actions by [`statement`], and xtables' matches and targets, which iptables-nft keeps where nf_tables has no
//! expression, in iptables' words by [`xtables`].
//!
//! All of it is pure. What a rule refers to (sets, names of interfaces) comes from a [`Ruleset`]. Names and
//! comments are foreign text: each is cut to a bounded length, and no control character passes.

mod comparison;
pub(crate) mod datatype;
pub(crate) mod legacy;
mod rule;
mod selector;
pub(crate) mod set;
mod statement;
pub(crate) mod xtables;

pub(crate) use rule::render;
use set::{SetDescription, SetElement};

/// The sets and interfaces that a table's rules refer to.
pub(crate) trait Ruleset {
    /// Returns the description of a set of the rule's table.
    fn set(&mut self, name: &[u8]) -> Option<SetDescription>;

    /// Returns the elements of an anonymous set.
    fn elements(&mut self, name: &[u8]) -> Vec<SetElement>;

    /// Returns the elements of a named set that may hold a key: all of them, or the kernel's answer for the key.
    fn elements_at(&mut self, name: &[u8], key: &[u8]) -> Vec<SetElement>;

    /// Returns the name of an interface.
    fn interface(&mut self, index: u32) -> Option<String>;
}

/// The headers of a packet that a rule judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers<'a> {
    /// From the network header on.
    pub network: &'a [u8],
    /// From the transport header on.
    pub transport: &'a [u8],
}

/// A rule as text, and what it does beyond its verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleText {
    /// The rule in the words of nft(8), without counters.
    pub text: String,
    /// The comment, of nft's user data or of xtables' match.
    pub comment: Option<String>,
    /// The elements of sets and maps that the packet's key meets, each as `KEY` or `KEY : VALUE` with the set's
    /// name if it has one.
    pub elements: Vec<MatchedElement>,
    /// It answers the packet with an ICMP error or a reset.
    pub rejects: bool,
    /// It changes the packet's addresses or ports.
    pub translates: Option<Translation>,
    /// The queue to which it gives packets.
    pub queue: Option<u16>,
    /// The mark that it gives, if it is a constant.
    pub mark: Option<u32>,
    /// It depends on more than the packet: a rate, a random number, the time, a changing set.
    pub varies: bool,
    /// It depends on the user or control group of the socket.
    pub by_identity: bool,
}

/// An element of a set that a packet's key meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatchedElement {
    /// The set's name, unless it is a rule's own.
    pub set: Option<String>,
    /// `KEY` or `KEY : VALUE`.
    pub element: String,
}

/// The end of a packet that a rule translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// The destination: dnat, redirect, tproxy.
    Destination,
    /// The source: snat, masquerade.
    Source,
}

#[cfg(test)]
mod tests;
