//! `--compare` lists the programs at the place where a packet was lost: positions tell the place,
//! the kernel's lists the programs.
use crate::support::{
    comparison::Scene,
    control_group::Group,
    process::Output,
    programs::{self, Direction, TC_ACT_SHOT, XDP_DROP},
    requirements::{lab, lacking},
    topology::Family,
};

/// Returns a scene whose neighbours know each other: the programs drop neighbour discovery, too.
fn acquainted(family: Family) -> Scene {
    let scene = Scene::new(family);
    let peer = scene.pair.peer_address(family);
    scene.pair.host.ip(&format!("neigh replace {peer} lladdr 02:00:77:00:00:02 dev eth0"));
    let host = scene.pair.host_address(family);
    scene.pair.peer.ip(&format!("neigh replace {host} lladdr 02:00:77:00:00:01 dev eth0"));
    scene
}

fn check(output: &Output, status: i32, lines: &[&str]) {
    assert_eq!(output.code(), Some(status), "{output}");
    for line in lines {
        assert!(output.text().contains(line), "{line}\n{output}");
    }
}

#[test]
fn programs_at_egress() {
    lab!("socat");
    let by_event = [
        "this host: our SYN is dropped on its way out by a program\n",
        "  proof   drop event TC_EGRESS\n",
        "  raw     dropped by this host's own egress",
    ];
    let by_position = [
        "this host: our SYN is dropped on its way out, behind netfilter\n",
        "  proof   positions (own chains, tap) (inferred)\n",
        "  raw     dropped by this host's own egress",
    ];
    for family in Family::ALL {
        let drop = programs::classifier("lab_drop", TC_ACT_SHOT);
        let scene = acquainted(family);
        programs::attach_clsact(&drop, &scene.pair.host, "eth0", Direction::Egress, 1);
        let place = "  by      clsact egress program lab_drop (id ";
        check(&scene.compare("-w 900ms"), 11, &[&[place], &by_event[..]].concat());
        let without = scene.compare("-w 900ms --without drop-events");
        check(&without, 11, &[&[place], &by_position[..]].concat());

        let scene = acquainted(family);
        let Some(_link) = programs::attach_tcx(&drop, &scene.pair.host, "eth0", Direction::Egress) else {
            return;
        };
        let place = "  by      tcx egress program lab_drop (id ";
        check(&scene.compare("-w 900ms"), 11, &[&[place], &by_event[..]].concat());
        // Neither positions nor the event tell which of two programs dropped it.
        let pass = programs::classifier("lab_pass", programs::TC_ACT_UNSPEC);
        let _first = programs::attach_tcx_first(&pass, &scene.pair.host, "eth0", Direction::Egress);
        let either =
            ["  by      one of: tcx egress program lab_pass (id ", ", tcx egress program lab_drop (id "];
        check(&scene.compare("-w 900ms"), 11, &[&either, &by_event[..1]].concat());
        let without = scene.compare("-w 900ms --without drop-events");
        check(&without, 11, &[&either, &by_position[..2]].concat());
    }
}

#[test]
fn programs_at_ingress() {
    lab!("socat");
    for family in Family::ALL {
        let sentence = "this host: the answer (SYN-ACK) is dropped\n";
        let drop = programs::classifier("lab_drop", TC_ACT_SHOT);
        let scene = acquainted(family);
        programs::attach_clsact(&drop, &scene.pair.host, "eth0", Direction::Ingress, 1);
        let place = "  by      clsact ingress program lab_drop (id ";
        for (flags, proof) in [
            ("-w 900ms", "  proof   drop event TC_INGRESS\n"),
            ("-w 900ms --without drop-events", "  proof   positions (own chains, tap) (inferred)\n"),
        ] {
            check(&scene.compare(flags), 11, &[sentence, place, "  raw     connected", proof]);
        }
        let scene = acquainted(family);
        let Some(_link) = programs::attach_tcx(&drop, &scene.pair.host, "eth0", Direction::Ingress) else {
            return;
        };
        check(&scene.compare("-w 900ms"), 11, &[sentence, "  by      tcx ingress program lab_drop (id "]);
    }
}

/// The name tells a program of Cilium, and the command that shows its reason.
#[test]
fn a_program_of_cilium() {
    lab!("socat");
    let drop = programs::classifier("cil_to_netdev", TC_ACT_SHOT);
    let scene = acquainted(Family::V4);
    programs::attach_clsact(&drop, &scene.pair.host, "eth0", Direction::Egress, 1);
    let lines = ["  which   Cilium\n", "  try     cilium-dbg monitor --type drop\n"];
    check(&scene.compare("-w 900ms"), 11, &lines);
    check(&scene.compare("-w 900ms --without drop-events"), 11, &lines);
}

/// XDP comes before the tap: without drop events it can neither be excluded nor proven.
#[test]
fn an_xdp_program_is_proven_by_a_drop_event_alone() {
    lab!("socat");
    for family in Family::ALL {
        let scene = acquainted(family);
        let _drop = programs::attach_xdp(&scene.pair.host, "eth0", XDP_DROP);
        let named = ["this host: the answer (SYN-ACK) is dropped\n", "  by      XDP program lab_xdp (id "];
        check(&scene.compare("-w 900ms"), 11, &named);
        let conclusion =
            "not here: 1 SYN left eth0 unchanged, and nothing came back; or XDP program lab_xdp (id ";
        check(&scene.compare("-w 900ms --without drop-events"), 3, &[conclusion]);
    }
}

#[test]
fn programs_of_a_control_group() {
    lab!("socat");
    let Some(group) = Group::new("compare") else {
        return lacking("programs_of_a_control_group", "no control groups of version 2");
    };
    for family in Family::ALL {
        let scene = acquainted(family);
        let flags = format!("-w 1s --cgroup {}", group.folder().display());
        check(&scene.compare(&flags), 0, &["same: "]);
        let refuse = programs::refuse_connect(group.folder(), family == Family::V4);
        let number = if family == Family::V4 { 4 } else { 6 };
        let place = format!("  by      cgroup/connect{number} program lab_refuse (id ");
        let sentence = "this host: connect() is refused before any packet\n";
        check(&scene.compare(&flags), 11, &[sentence, &place, "  proof   connect() says EPERM; "]);
        check(&scene.compare("-w 1s"), 0, &["same: "]);
        drop(refuse);

        let drop = programs::drop_by_cgroup(group.folder(), Direction::Egress);
        for (more, sentence) in [
            ("", "this host: our SYN is dropped on its way out by a program\n"),
            (" --without drop-events", "this host: our SYN is "),
        ] {
            let output = scene.compare(&format!("{flags}{more}"));
            check(&output, 11, &[sentence, "cgroup_skb egress program lab_cgroup_drop (id "]);
        }
        std::mem::drop(drop);

        let _drop = programs::drop_by_cgroup(group.folder(), Direction::Ingress);
        check(
            &scene.compare(&flags),
            11,
            &[
                "this host: the answer (SYN-ACK) is dropped\n",
                "  by      cgroup_skb ingress program lab_cgroup_drop (id ",
                "  proof   drop event ",
            ],
        );
    }
}
