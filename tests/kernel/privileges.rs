//! Each missing capability is named. The test's thread alone drops them.

use crate::{
    filters::listener,
    namespace::{alone, index, ip},
    neighbours::{backends, count_tcx, has_tcx},
};
use caps::{CapSet, Capability};
use netkat::{
    kernel::{Backend, Counters, Filter, FlowFilter, Guard, KernelError, PortLease, Programs},
    net::Protocol,
};
use std::net::IpAddr;

fn without(capabilities: &[Capability]) {
    for &capability in capabilities {
        caps::drop(None, CapSet::Effective, capability).unwrap();
    }
}

fn flow() -> Filter {
    Filter::Flow(listener(Protocol::Tcp, vec![ip("127.0.0.1")], 8080))
}

fn names<T>(result: Result<T, KernelError>, capability: &str) {
    let error = result.err().expect("the capability is missing").to_string();
    assert!(error.starts_with(&format!("needs {capability} to ")), "{error}");
}

#[test]
fn loading_needs_bpf() {
    alone(|| {
        without(&[Capability::CAP_BPF, Capability::CAP_SYS_ADMIN]);
        names(Programs::load(&flow()), "CAP_BPF");
    });
}

#[test]
fn loading_the_guard_needs_net_admin() {
    alone(|| {
        without(&[Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN]);
        names(Programs::load(&flow()), "CAP_NET_ADMIN");
    });
}

#[test]
fn attaching_to_clsact_needs_net_admin() {
    alone(|| {
        let tcx = has_tcx();
        let programs = Programs::load(&flow()).unwrap();
        without(&[Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN]);
        names(Guard::attach(&programs, index("lo"), Backend::Clsact), "CAP_NET_ADMIN");
        if tcx {
            // A holder of a loaded program may attach it at tcx.
            Guard::attach(&programs, index("lo"), Backend::Tcx).unwrap();
        }
    });
}

#[test]
fn tcx_is_undone_and_counters_are_read_without_any_privilege() {
    alone(|| {
        if !has_tcx() {
            return;
        }
        let programs = Programs::load(&flow()).unwrap();
        let guard = Guard::attach(&programs, index("lo"), Backend::Tcx).unwrap();
        let lease = PortLease::take(Protocol::Tcp, &[ip("127.0.0.1")], 8080, 0).unwrap();
        caps::clear(None, CapSet::Effective).unwrap();
        assert_eq!(programs.counters(), Counters::default());
        programs.beat();
        drop((guard, lease));
        // Permitted capabilities can be raised again, to look at the rest.
        caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
        assert_eq!(count_tcx(index("lo")), 0);
    });
}

#[test]
fn low_ports_need_net_bind_service() {
    alone(|| {
        without(&[Capability::CAP_NET_BIND_SERVICE]);
        names(PortLease::take(Protocol::Tcp, &[ip("127.0.0.1")], 80, 0), "CAP_NET_BIND_SERVICE");
        PortLease::take(Protocol::Tcp, &[ip("127.0.0.1")], 8080, 0).unwrap();
    });
}

#[test]
fn three_capabilities_suffice() {
    alone(|| {
        let keep = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
        let all: Vec<_> = caps::all().into_iter().filter(|c| !keep.contains(c)).collect();
        without(&all);
        // Each program at its largest: the verifier's limits depend on the capabilities.
        let local = |i: u8| [IpAddr::from([10, 0, 0, i]), format!("fd00::{i:x}").parse().unwrap()];
        let Filter::Flow(small) = flow() else { unreachable!() };
        let local_addresses = (1..=64).flat_map(local).collect();
        let large = FlowFilter { local_addresses, neighbour_discovery: true, ..small };
        Programs::load(&Filter::Flow(large)).unwrap();

        let programs = Programs::load(&flow()).unwrap();
        for &backend in backends() {
            let guard = Guard::attach(&programs, index("lo"), backend).unwrap();
            assert_eq!(guard.earlier_programs().unwrap(), [""; 0]);
        }
        PortLease::take(Protocol::Tcp, &[ip("127.0.0.1")], 0, 0).unwrap();
    });
}
