//! Parts our packets from the kernel's: by eBPF programs, or, where none may be loaded, by a classic socket filter
//! and rules of nftables.
use super::{
    Backend, Counters, Filter, FlowFilter, Guard, KernelError, ListedProgram, Loopback, Programs,
    program_list, programs::GuardHook, rule_guard::RuleGuard,
};
use crate::{
    host::{features::FeatureOverrides, interface::Interface, nf_tables},
    net::{FiveTuple, arphrd},
};
use std::{os::fd::BorrowedFd, time::Duration};

/// The means that keep our packets for us and from the kernel.
pub(crate) enum Diversion {
    /// eBPF programs.
    Programs(Box<Programs>),
    /// Rules of nftables, and the reason why no program could be loaded; the matcher runs in this process.
    Rules(Box<RuleGuard>, Option<Box<KernelError>>),
}

/// The filter that the packet socket needs.
pub(crate) enum Capture<'a> {
    /// A loaded program.
    Program(BorrowedFd<'a>),
    /// A classic filter that lets at least the packets of this filter through.
    Classic(&'a FlowFilter),
}

impl Diversion {
    /// Loads the programs, or makes the table of rules, as `backend` says, for these interfaces.
    ///
    /// # Errors
    /// Those of [`Programs::load`]; [`KernelError::NoNetfilter`] and [`KernelError::NotOneConnection`] with
    /// [`Backend::Netfilter`]; [`KernelError::Rules`]; [`KernelError::NeitherWay`].
    pub(crate) fn open(
        filter: &FlowFilter,
        interfaces: &[&Interface],
        backend: Backend,
        overrides: FeatureOverrides,
    ) -> Result<Diversion, KernelError> {
        let lo = interfaces.iter().any(|interface| interface.loopback);
        let load = |hook| {
            let programs = Programs::load_for(&Filter::Flow(filter.clone()), lo, hook)?;
            Ok(Diversion::Programs(Box::new(programs.with_overrides(overrides))))
        };
        match (backend, way_to_netfilter(filter, interfaces)) {
            (Backend::Netfilter, None) => return Err(KernelError::NotOneConnection),
            (Backend::Netfilter, Some(_)) => return load(GuardHook::Netfilter),
            (Backend::Auto, Some(interface)) if !overrides.no_netfilter && is_free(interface) => {
                match load(GuardHook::Netfilter) {
                    Err(error) => log::debug!("no guard at netfilter: {error}"),
                    diversion => return diversion,
                }
            }
            _ => {}
        }
        let rules = || RuleGuard::create(filter, !overrides.no_table_owner).map(Box::new);
        if backend == Backend::Nftables {
            return Ok(Diversion::Rules(rules()?, None));
        }
        match load(GuardHook::Interface) {
            Err(error) if backend == Backend::Auto && error.is_refusal() => {
                log::info!("may load no eBPF program ({error}): rules of nftables guard instead");
                let programs = Box::new(error);
                match rules() {
                    Ok(rules) => Ok(Diversion::Rules(rules, Some(programs))),
                    Err(rules) => Err(KernelError::NeitherWay { programs, rules: Box::new(rules) }),
                }
            }
            diversion => diversion,
        }
    }

    /// Returns the filter for the packet socket.
    pub(crate) fn capture(&self) -> Capture<'_> {
        match self {
            Diversion::Programs(programs) => Capture::Program(programs.capture_fd()),
            Diversion::Rules(rules, _) => Capture::Classic(rules.filter()),
        }
    }

    /// Attaches the guard to an interface, and what IPv4 over lo needs. Where rules guard several interfaces,
    /// IPv4 over lo is left out.
    ///
    /// # Errors
    /// Those of [`Guard::attach`]; [`KernelError::Rules`]; [`KernelError::ProgramsOnly`] for IPv4 over lo as the
    /// `only` interface.
    pub(crate) fn guard(
        &mut self,
        interface: &Interface,
        backend: Backend,
        only: bool,
    ) -> Result<(Guard, Option<Loopback>), KernelError> {
        match self {
            Diversion::Programs(programs) => {
                let guard = Guard::attach(programs, interface.index, backend)?;
                let loopback = interface.loopback && programs.loopback_fd().is_some();
                let loopback = loopback.then(|| Loopback::attach(programs, interface.index, backend));
                Ok((guard, loopback.transpose()?))
            }
            Diversion::Rules(rules, refusal) => {
                if interface.loopback && rules.has_ipv4() {
                    if only {
                        let rules = KernelError::ProgramsOnly("make IPv4 over lo work");
                        return Err(match refusal.take() {
                            Some(programs) => KernelError::NeitherWay { programs, rules: Box::new(rules) },
                            None => rules,
                        });
                    }
                    log::info!("guard by nftables rules: clients on this host reach us by IPv6 alone");
                }
                let ethernet = matches!(interface.hardware, arphrd::ETHER | arphrd::LOOPBACK);
                Ok((rules.attach(interface.index, &interface.name, ethernet)?, None))
            }
        }
    }

    /// Returns whether a captured packet is ours. `network` is the frame from its network header on.
    pub(crate) fn admits(&mut self, ethertype: u16, network: &[u8]) -> bool {
        match self {
            Diversion::Programs(_) => true,
            Diversion::Rules(rules, _) => rules.admits(ethertype, network),
        }
    }

    /// Adds a flow where a table tells which are ours. Returns whether there was room.
    pub(crate) fn insert(&mut self, tuple: &FiveTuple) -> bool {
        match self {
            Diversion::Programs(programs) => programs.table().is_none_or(|table| table.insert(tuple)),
            Diversion::Rules(rules, _) => rules.insert(tuple),
        }
    }

    /// Removes a flow: its packets are not ours from now on.
    pub(crate) fn remove(&mut self, tuple: &FiveTuple) {
        match self {
            Diversion::Programs(programs) => {
                programs.table().into_iter().for_each(|table| table.remove(tuple))
            }
            Diversion::Rules(rules, _) => rules.remove(tuple),
        }
    }

    /// Captures segments of flows that are not in the table, for this long; the kernel sees them, too.
    pub(crate) fn capture_unknown(&mut self, period: Duration) {
        match self {
            Diversion::Programs(programs) => programs.capture_unknown(period),
            Diversion::Rules(rules, _) => rules.capture_unknown(period),
        }
    }

    /// Returns the counters.
    pub(crate) fn counters(&mut self) -> Counters {
        match self {
            Diversion::Programs(programs) => programs.counters(),
            Diversion::Rules(rules, _) => rules.counters(),
        }
    }

    /// Returns the interval at which to call [`Diversion::beat`], where something would outlive the process.
    pub(crate) fn heartbeat_interval(&self) -> Option<Duration> {
        match self {
            Diversion::Programs(programs) => programs.heartbeat_interval(),
            Diversion::Rules(rules, _) => rules.heartbeat_interval(),
        }
    }

    /// Keeps what would outlive the process active.
    pub(crate) fn beat(&mut self) {
        match self {
            Diversion::Programs(programs) => programs.beat(),
            Diversion::Rules(rules, _) => rules.beat(),
        }
    }
}

/// Returns the interface whose packets a guard at netfilter may drop; `None` where it takes one at tc.
fn way_to_netfilter<'a>(filter: &FlowFilter, interfaces: &[&'a Interface]) -> Option<&'a Interface> {
    let [interface] = interfaces else { return None };
    // A bridge of this host runs PREROUTING before a packet socket above it sees the packet (br_nf_pre_routing() in
    // net/bridge/br_netfilter_hooks.c): there the guard would drop the packet for netkat, too.
    let bridged = interface.kind.as_deref() == Some("bridge") || interface.lower.is_some();
    (filter.is_one_connection() && !bridged && !interface.loopback).then_some(*interface)
}

/// Returns whether the interface has no foreign program at tc ingress, no rule at an ingress hook of nftables, and no
/// bridge, bond or VRF device above it: they would come before a guard at netfilter. Guards of other netkats do no harm.
fn is_free(interface: &Interface) -> bool {
    interface.master.is_none()
        && program_list::ingress_programs(interface.index).iter().all(ListedProgram::is_living_guard)
        && nf_tables::judges_before_prerouting().is_ok_and(|judges| !judges)
}
