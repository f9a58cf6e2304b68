//! The guard with the back ends of programs.

use crate::{
    filters::listener,
    namespace::{Answer, FAR, Far, INTERFACE, NEAR, alone, index, inject, ip, joined, run, tap},
    neighbours::{FOREIGN, attach_tcx, backends, count_tcx, filters, foreign_program, has_clsact, has_tcx},
};
use netkat::{
    kernel::{Backend, Counters, Filter, FlowFilter, Guard, HEARTBEAT_INTERVAL, HEARTBEAT_LIMIT, Programs},
    net::Protocol,
};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 8080;
/// The peer's port of one connection.
const FROM: u16 = 41000;

fn programs(protocol: Protocol) -> Programs {
    Programs::load(&Filter::Flow(listener(protocol, NEAR.map(ip).to_vec(), PORT))).unwrap()
}

fn silences_the_kernel_for_its_port_only(backend: Backend) {
    joined(|far| {
        let (tcp, udp) = (programs(Protocol::Tcp), programs(Protocol::Udp));
        let guards = [&tcp, &udp].map(|p| Guard::attach(p, index(INTERFACE), backend).unwrap());
        assert!(guards.iter().all(|g| g.backend() == backend));
        for near in NEAR {
            tcp.beat();
            udp.beat();
            assert_eq!(far.connect(near, PORT), Answer::Silence, "{near}");
            assert_eq!(far.connect(near, PORT + 1), Answer::Refused, "{near}");
            assert_eq!(far.send(near, PORT), Answer::Silence, "{near}");
            assert_eq!(far.send(near, PORT + 1), Answer::Refused, "{near}");
        }
        assert!(tcp.counters().dropped >= 2 && udp.counters().dropped == 2);
        drop(guards);
        for near in NEAR {
            assert_eq!(far.connect(near, PORT), Answer::Refused, "{near}, without the guard");
            assert_eq!(far.send(near, PORT), Answer::Refused, "{near}, without the guard");
        }
    });
}

#[test]
fn tcx_silences_the_kernel_for_its_port_only() {
    if !has_tcx() {
        return;
    }
    silences_the_kernel_for_its_port_only(Backend::Tcx);
}

#[test]
fn clsact_silences_the_kernel_for_its_port_only() {
    silences_the_kernel_for_its_port_only(Backend::Clsact);
}

/// Returns the programs of one connection, with a guard at netfilter.
fn one_connection(protocol: Protocol, near: &str, far: &str) -> Programs {
    let flow = listener(protocol, vec![ip(near)], PORT);
    let flow = FlowFilter { remote_address: Some(ip(far)), remote_port: Some(FROM), ..flow };
    Programs::load_for_netfilter(&flow).unwrap()
}

#[test]
fn netfilter_silences_the_kernel_for_one_connection_only() {
    if !has_tcx() {
        return;
    }
    joined(|far| {
        let any = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let ends = NEAR.iter().zip(FAR);
            ends.map(|(near, far)| one_connection(protocol, near, far)).collect::<Vec<_>>()
        });
        let attach = |programs| Guard::attach(programs, index(INTERFACE), Backend::Netfilter).unwrap();
        let guards: Vec<_> = any.iter().flatten().map(attach).collect();
        assert!(guards.iter().all(|guard| guard.backend() == Backend::Netfilter));
        assert_eq!(count_tcx(index(INTERFACE)), 0);
        for near in NEAR {
            assert_eq!(far.connect_from(near, PORT, FROM), Answer::Silence, "{near}");
            assert_eq!(far.connect_from(near, PORT, FROM + 1), Answer::Refused, "{near}");
            assert_eq!(far.connect_from(near, PORT + 1, FROM), Answer::Refused, "{near}");
            assert_eq!(far.send_from(near, PORT, FROM), Answer::Silence, "{near}");
            assert_eq!(far.send_from(near, PORT, FROM + 1), Answer::Refused, "{near}");
            assert_eq!(far.send_from(near, PORT + 1, FROM), Answer::Refused, "{near}");
        }
        for programs in any.iter().flatten() {
            assert!(programs.counters().dropped >= 1);
        }
        drop(guards);
        for near in NEAR {
            assert_eq!(far.connect_from(near, PORT, FROM), Answer::Refused, "{near}, without the guard");
            assert_eq!(far.send_from(near, PORT, FROM), Answer::Refused, "{near}, without the guard");
        }
    });
}

#[test]
fn netfilter_leaves_nothing_when_killed() {
    if !has_tcx() {
        return;
    }
    joined(|far| {
        let child = holder("netfilter");
        assert_eq!(far.connect_from(NEAR[0], PORT, FROM), Answer::Silence);
        kill(child);
        assert_eq!(far.connect_from(NEAR[0], PORT, FROM), Answer::Refused);
    });
}

/// Returns a frame to the guarded interface with a datagram for its port, behind `tag`.
fn datagram(tag: &[u8]) -> Vec<u8> {
    let mac = netkat::host::interface::by_name(INTERFACE).unwrap().mac.unwrap();
    let mut frame = [mac.0, [2, 0, 0, 0, 0, 2]].concat();
    frame.extend(tag);
    frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]);
    frame.extend([10, 77, 0, 2, 10, 77, 0, 1]);
    frame.extend(9u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    frame
}

#[test]
fn tagged_packets_are_not_ours_but_priority_tags_are() {
    joined(|far| {
        let programs = programs(Protocol::Udp);
        let _tap = tap(programs.capture_fd());
        let _guard = Guard::attach(&programs, index(INTERFACE), Backend::Auto).unwrap();
        let mut ours = 0;
        // The kernel moves the tag from the frame to the socket buffer before any reader sees the
        // frame.
        for (name, tag, is_ours) in [
            ("none", &[][..], true),
            ("VID 5", &[0x81, 0, 0, 5], false),
            ("VID 5, QinQ", &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6], false),
            ("VID 4095", &[0x81, 0, 0x0f, 0xff], false),
            ("VID 0, priority 7", &[0x81, 0, 0xe0, 0], true),
        ] {
            let frame = datagram(tag);
            far.within(|| inject("far0", &frame));
            ours += u64::from(is_ours);
            let counters = programs.counters();
            assert_eq!((counters.flow, counters.dropped), (ours, ours), "{name}");
        }
    });
}

#[test]
fn packets_cut_in_their_ip_header_are_not_ours() {
    joined(|far| {
        let programs = programs(Protocol::Udp);
        let _tap = tap(programs.capture_fd());
        let _guard = Guard::attach(&programs, index(INTERFACE), Backend::Auto).unwrap();
        let whole = datagram(&[]);
        // Up to the last byte of the ports.
        for length in 15..38 {
            far.within(|| inject("far0", &whole[..length]));
            assert_eq!(programs.counters(), Counters::default(), "{length} bytes");
        }
        far.within(|| inject("far0", &whole[..38]));
        assert_eq!(programs.counters(), Counters { flow: 1, dropped: 1, ..Counters::default() });
    });
}

/// On a veth the frames arrive without promiscuous mode.
#[test]
fn frames_for_others_are_left_to_the_kernel() {
    for &backend in backends() {
        joined(|far| {
            let programs = programs(Protocol::Udp);
            let _tap = tap(programs.capture_fd());
            let _guard = Guard::attach(&programs, index(INTERFACE), backend).unwrap();
            programs.beat();
            let mut frame = datagram(&[]);
            far.within(|| inject("far0", &frame));
            let own = Counters { flow: 1, dropped: 1, ..Counters::default() };
            assert_eq!(programs.counters(), own, "{backend:?}");
            for mac in [[2, 0xaa, 0xbb, 0xcc, 0xdd, 1], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
                frame[..6].copy_from_slice(&mac);
                far.within(|| inject("far0", &frame));
                assert_eq!(programs.counters(), own, "{backend:?}, {mac:02x?}");
            }
        });
    }
}

#[test]
fn auto_takes_tcx_where_there_is_one() {
    if !has_tcx() {
        return;
    }
    alone(|| {
        let programs = programs(Protocol::Tcp);
        let guard = Guard::attach(&programs, index("lo"), Backend::Auto).unwrap();
        assert_eq!(guard.backend(), Backend::Tcx);
        assert_eq!(programs.heartbeat_interval(), None, "tcx needs no heartbeat");
        assert_eq!(count_tcx(index("lo")), 1);
        drop(guard);
        assert_eq!(count_tcx(index("lo")), 0);
    });
}

#[test]
fn programs_of_others_keep_running_behind_the_guard() {
    if !has_tcx() {
        return;
    }
    alone(|| {
        let lo = index("lo");
        let foreign = foreign_program();
        let _before = attach_tcx(&foreign, lo, false);
        let programs = programs(Protocol::Tcp);
        let guard = Guard::attach(&programs, lo, Backend::Tcx).unwrap();
        assert_eq!(guard.earlier_programs().unwrap(), [""; 0], "the guard is first");
        assert_eq!(count_tcx(lo), 2);

        let late = attach_tcx(&foreign_program(), lo, true);
        assert_eq!(guard.earlier_programs().unwrap(), [FOREIGN]);
        drop(late);
        drop(guard);
        assert_eq!(count_tcx(lo), 1, "the other's program stays");
    });
}

#[test]
fn filters_of_others_keep_running_behind_the_guard() {
    alone(|| {
        let lo = index("lo");
        run("tc qdisc add dev lo clsact");
        run("tc filter add dev lo ingress pref 1 protocol all u32 match u32 0 0");
        run("tc filter add dev lo ingress pref 49152 protocol ip u32 match u32 0 0");
        let others = filters("lo");

        let programs = programs(Protocol::Tcp);
        let guard = Guard::attach(&programs, lo, Backend::Clsact).unwrap();
        assert_eq!(guard.earlier_programs().unwrap(), ["u32"], "its priority was taken");
        assert!(filters("lo").contains("netkat_guard"));
        if has_tcx() {
            // Programs at tcx run before clsact.
            let _tcx = attach_tcx(&foreign_program(), lo, true);
            assert_eq!(guard.earlier_programs().unwrap(), [FOREIGN, "u32"]);
        }
        drop(guard);
        assert_eq!(filters("lo"), others);
        assert!(has_clsact("lo"), "a qdisc of others is never removed");
    });
}

#[test]
fn a_qdisc_of_ours_goes_with_its_last_user() {
    alone(|| {
        let lo = index("lo");
        let [first, second, third] = [(); 3].map(|()| programs(Protocol::Tcp));
        let attach = |programs| Guard::attach(programs, lo, Backend::Clsact).unwrap();

        let creator = attach(&first);
        let heir = attach(&second);
        assert_eq!(heir.earlier_programs().unwrap(), [""; 0], "another netkat is in nobody's way");
        drop(creator);
        assert!(has_clsact("lo") && filters("lo").contains("netkat_guard"));
        let next = attach(&third);
        drop(heir);
        assert!(has_clsact("lo"));
        drop(next);
        assert!(!has_clsact("lo"), "the last one cleans up");

        let guard = attach(&first);
        run("tc filter add dev lo egress pref 7 protocol all u32 match u32 0 0");
        drop(guard);
        assert!(has_clsact("lo"), "somebody else uses it now");
    });
}

/// The other process of the tests below: it guards an interface until it is killed.
#[test]
#[ignore = "run by other tests"]
fn hold_a_guard_until_killed() {
    let backend = match std::env::var("NETKAT_TEST_BACKEND").as_deref() {
        Ok("tcx") => Backend::Tcx,
        Ok("clsact") => Backend::Clsact,
        Ok("netfilter") => Backend::Netfilter,
        _ => return,
    };
    let programs = match backend {
        Backend::Netfilter => one_connection(Protocol::Tcp, NEAR[0], FAR[0]),
        _ => programs(Protocol::Tcp),
    };
    let _guard = Guard::attach(&programs, index(INTERFACE), backend).unwrap();
    println!("\nattached");
    loop {
        programs.beat();
        thread::sleep(HEARTBEAT_INTERVAL);
    }
}

fn holder(backend: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guard::hold_a_guard_until_killed", "--ignored", "--nocapture"])
        .env("NETKAT_TEST_BACKEND", backend)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "attached"));
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn tcx_leaves_nothing_when_killed() {
    if !has_tcx() {
        return;
    }
    joined(|far| {
        let child = holder("tcx");
        assert_eq!(count_tcx(index(INTERFACE)), 1);
        assert_eq!(far.connect(NEAR[0], PORT), Answer::Silence);
        kill(child);
        assert_eq!(count_tcx(index(INTERFACE)), 0);
        assert_eq!(far.connect(NEAR[0], PORT), Answer::Refused);
    });
}

/// Waits until the kernel answers again; fails when that takes longer than the heartbeat's limit
/// allows.
fn answers_again(far: &Far) {
    let killed = Instant::now();
    while far.connect(NEAR[0], PORT) != Answer::Refused {
        assert!(killed.elapsed() < HEARTBEAT_LIMIT + Duration::from_millis(700), "{:?}", killed.elapsed());
    }
}

#[test]
fn clsact_goes_inert_when_killed_and_the_next_start_removes_it() {
    joined(|far| {
        let child = holder("clsact");
        // Longer than the limit: the heartbeat keeps the attachment active.
        thread::sleep(HEARTBEAT_LIMIT + HEARTBEAT_INTERVAL);
        assert_eq!(far.connect(NEAR[0], PORT), Answer::Silence);
        kill(child);
        assert!(filters(INTERFACE).contains("netkat_guard"), "the kernel does not remove it");
        answers_again(far);

        let leftover = filters(INTERFACE);
        let programs = programs(Protocol::Udp);
        let guard = Guard::attach(&programs, index(INTERFACE), Backend::Auto).unwrap();
        let id = leftover.split_whitespace().find(|word| word.starts_with("netkat_guard/")).unwrap();
        assert!(!filters(INTERFACE).contains(id));
        drop(guard);
        assert!(!has_clsact(INTERFACE), "the dead netkat's qdisc is gone: {}", filters(INTERFACE));
    });
}

#[test]
fn a_living_netkat_is_no_leftover() {
    joined(|far| {
        let child = holder("clsact");
        let programs = programs(Protocol::Udp);
        drop(Guard::attach(&programs, index(INTERFACE), Backend::Clsact).unwrap());
        drop(Guard::attach(&programs, index(INTERFACE), Backend::Auto).unwrap());
        assert_eq!(far.connect(NEAR[0], PORT), Answer::Silence);
        // A stopped process is inert and not dead.
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        answers_again(far);
        drop(Guard::attach(&programs, index(INTERFACE), Backend::Clsact).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        thread::sleep(2 * HEARTBEAT_INTERVAL);
        assert_eq!(far.connect(NEAR[0], PORT), Answer::Silence);
        kill(child);
    });
}

#[test]
fn an_interface_that_goes_takes_the_guard_with_it() {
    alone(|| {
        for &backend in backends() {
            run("ip link add gone0 type veth peer name gone1");
            let gone = index("gone0");
            let programs = programs(Protocol::Tcp);
            let guard = Guard::attach(&programs, gone, backend).unwrap();
            run("ip link delete gone0");
            drop(guard);
            let error = Guard::attach(&programs, gone, backend).unwrap_err().to_string();
            assert!(error.contains("No such device") && error.contains("ingress"), "{error}");
        }
    });
}

#[test]
fn two_hundred_interfaces_can_be_guarded() {
    alone(|| {
        for i in 0..100 {
            run(&format!("ip link add a{i} type veth peer name b{i}"));
        }
        let programs = programs(Protocol::Tcp);
        let indices: Vec<_> =
            (0..100).flat_map(|i| [index(&format!("a{i}")), index(&format!("b{i}"))]).collect();
        for &backend in backends() {
            let start = Instant::now();
            let guards: Vec<_> =
                indices.iter().map(|&i| Guard::attach(&programs, i, backend).unwrap()).collect();
            let attached = start.elapsed();
            drop(guards);
            // tcx waits for an RCU grace period for each (tcx_entry_sync in include/net/tcx.h).
            eprintln!("200 guards, {backend:?}: {attached:?} to attach, {:?} in all", start.elapsed());
            assert_eq!(count_tcx(indices[0]), 0);
            assert!(!has_clsact("a0"));
        }
    });
}
