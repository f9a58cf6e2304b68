//! `--compare` lists the programs that a packet met where it was lost: positions tell where, the kernel's lists what.
use crate::support::{
    comparison::Scene,
    process::Output,
    programs::{self, Direction, TC_ACT_SHOT, XDP_DROP},
    requirements::{lab, lacking},
    topology::Family,
};
use std::{fs, path::PathBuf};

/// A scene whose neighbours know each other: the programs drop their questions, too.
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
    for family in Family::ALL {
        let sentence = "this host: our SYN is dropped on its way out, behind netfilter\n";
        let raw = "  raw     dropped by this host's own egress";
        let proof = "  proof   positions (own chains, tap) (inferred)\n";
        let drop = programs::classifier("lab_drop", TC_ACT_SHOT);
        let scene = acquainted(family);
        programs::attach_clsact(&drop, &scene.pair.host, "eth0", Direction::Egress, 1);
        check(
            &scene.compare("-w 1s"),
            11,
            &[sentence, "  by      clsact egress program lab_drop (id ", raw, proof],
        );

        let scene = acquainted(family);
        let Some(_link) = programs::attach_tcx(&drop, &scene.pair.host, "eth0", Direction::Egress) else {
            return;
        };
        check(
            &scene.compare("-w 1s"),
            11,
            &[sentence, "  by      tcx egress program lab_drop (id ", raw, proof],
        );
        // Which of two it was, positions do not tell.
        let pass = programs::classifier("lab_pass", programs::TC_ACT_UNSPEC);
        let _first = programs::attach_tcx_first(&pass, &scene.pair.host, "eth0", Direction::Egress);
        check(
            &scene.compare("-w 1s"),
            11,
            &[
                sentence,
                "  by      one of: tcx egress program lab_pass (id ",
                ", tcx egress program lab_drop (id ",
            ],
        );
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
        check(
            &scene.compare("-w 1s"),
            11,
            &[sentence, "  by      clsact ingress program lab_drop (id ", "  raw     connected"],
        );
        let scene = acquainted(family);
        let Some(_link) = programs::attach_tcx(&drop, &scene.pair.host, "eth0", Direction::Ingress) else {
            return;
        };
        check(&scene.compare("-w 1s"), 11, &[sentence, "  by      tcx ingress program lab_drop (id "]);
    }
}

/// XDP comes before the tap: it cannot be excluded, nor proven.
#[test]
fn an_xdp_program_is_not_excluded() {
    lab!("socat");
    for family in Family::ALL {
        let scene = acquainted(family);
        let _drop = programs::attach_xdp(&scene.pair.host, "eth0", XDP_DROP);
        let conclusion =
            "not here: 1 SYN left eth0 unchanged, and nothing came back; or XDP program lab_xdp (id ";
        check(&scene.compare("-w 900ms"), 3, &[conclusion]);
    }
}

/// A control group of version 2, until it is dropped.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Option<Group> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
        let mount = mounts.lines().find(|line| line.contains(" cgroup2 "))?.split(' ').nth(1)?;
        let folder = PathBuf::from(mount).join(format!("netkat-lab-{}-{name}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        Some(Group(folder))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
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
        let flags = format!("-w 1s --cgroup {}", group.0.display());
        check(&scene.compare(&flags), 0, &["same: "]);
        let refuse = programs::refuse_connect(&group.0, family == Family::V4);
        let number = if family == Family::V4 { 4 } else { 6 };
        let place = format!("  by      cgroup/connect{number} program lab_refuse (id ");
        let sentence = "this host: connect() is refused before any packet\n";
        check(&scene.compare(&flags), 11, &[sentence, &place, "  proof   connect() says EPERM; "]);
        check(&scene.compare("-w 1s"), 0, &["same: "]);
        drop(refuse);

        let _drop = programs::drop_by_cgroup(&group.0, Direction::Egress);
        check(
            &scene.compare(&flags),
            11,
            &["this host: our SYN is ", "cgroup_skb egress program lab_cgroup_drop (id "],
        );
    }
}
