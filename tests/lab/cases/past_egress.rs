//! Past the programs at egress and the queueing disciplines (--past-egress), and what --compare makes of it.
use crate::support::{
    comparison::Scene,
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::DEADLINE,
    programs::{self, Direction, TC_ACT_SHOT},
    requirements::lab,
    rules::nft,
    topology::{Family, Pair},
};

/// Makes the neighbours known, whose questions the programs drop, too.
fn acquaint(pair: &Pair, family: Family) {
    let (host, peer) = (pair.host_address(family), pair.peer_address(family));
    pair.host.ip(&format!("neigh replace {peer} lladdr 02:00:77:00:00:02 dev eth0"));
    pair.peer.ip(&format!("neigh replace {host} lladdr 02:00:77:00:00:01 dev eth0"));
}

#[test]
fn programs_and_queueing_disciplines_at_egress_are_passed() {
    lab!("socat", "tc", "nft");
    for family in Family::ALL {
        for obstacle in ["clsact", "tcx", "qdisc"] {
            let pair = Pair::new();
            acquaint(&pair, family);
            let drop = programs::classifier("lab_drop", TC_ACT_SHOT);
            let mut _link = None;
            match obstacle {
                "clsact" => programs::attach_clsact(&drop, &pair.host, "eth0", Direction::Egress, 1),
                "tcx" => {
                    _link = programs::attach_tcx(&drop, &pair.host, "eth0", Direction::Egress);
                    if _link.is_none() {
                        continue;
                    }
                }
                _ => drop_all(&pair),
            }
            let (to, out, back) = (pair.peer_address(family), Payload::new(31, MIB), Payload::new(32, MIB));
            let server = Netcat::Socat.listen(&pair.peer, to, 5000, |c| c.input(back.input()).expect(&out));
            let stopped = netkat(&pair.host, &format!("-w 500ms --exit-verdict {to} 5000")).run();
            assert_eq!(stopped.code(), Some(8), "{obstacle}: {stopped}");
            let client = netkat(&pair.host, &format!("--past-egress {to} 5000"));
            let client = client.input(out.input()).expect(&back).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{obstacle}: {client}");
            client.check(&back);
            server.wait(DEADLINE).check(&out);
            // A listener's answers pass, too.
            let server = listening(&pair.host, "--past-egress -i eth0 5000", |c| c.expect(&out));
            Netcat::Socat.connect(&pair.peer, pair.host_address(family), 5000).input(out.input()).succeed();
            server.wait(DEADLINE).check(&out);
        }
        // nft's netdev egress holds.
        let pair = Pair::new();
        nft(
            &pair.host,
            "table netdev lab { chain c { type filter hook egress device \"eth0\" priority 0; meta l4proto tcp drop; }; }",
        );
        let line = format!("--past-egress -w 500ms --exit-verdict {} 5000", pair.peer_address(family));
        let held = netkat(&pair.host, &line).run();
        assert_eq!(held.code(), Some(8), "{held}");
    }
}

/// A queueing discipline at the root that drops every packet.
fn drop_all(pair: &Pair) {
    pair.host.run("tc qdisc replace dev eth0 root pfifo limit 0");
}

/// On lo, a program at egress gives netkat's frames their route.
#[test]
fn lo_is_refused() {
    lab!();
    let pair = Pair::new();
    for to in ["127.0.0.1", "::1", "10.77.0.1"] {
        let refused = netkat(&pair.host, &format!("--past-egress {to} 5000")).run();
        assert_eq!(refused.code(), Some(1), "{refused}");
        assert!(refused.stderr.contains("--past-egress") && refused.stderr.contains("of lo"), "{refused}");
    }
    let refused = netkat(&pair.host, "--past-egress -l 5000").run();
    assert!(refused.code() == Some(1) && refused.stderr.contains("with -i"), "{refused}");
}

/// --compare takes the third path by itself, and so tells tc, tcx and shapers from nft.
#[test]
fn a_comparison_tells_what_the_third_path_says() {
    lab!("socat", "tc", "nft");
    for family in Family::ALL {
        let scene = Scene::new(family);
        acquaint(&scene.pair, family);
        let drop = programs::classifier("lab_drop", TC_ACT_SHOT);
        programs::attach_clsact(&drop, &scene.pair.host, "eth0", Direction::Egress, 1);
        let output = scene.compare("-w 900ms");
        assert_eq!(output.code(), Some(11), "{output}");
        let words = "past tc, tcx and the queueing discipline, one of which drops\n";
        assert!(output.text().contains(words), "{output}");

        let scene = Scene::new(family);
        acquaint(&scene.pair, family);
        drop_all(&scene.pair);
        let output = scene.compare("-w 900ms --json=-");
        assert!(output.text().contains("\"past_egress\":\"done\""), "{output}");

        let scene = Scene::new(family);
        acquaint(&scene.pair, family);
        nft(
            &scene.pair.host,
            "table netdev lab { chain c { type filter hook egress device \"eth0\" priority 0; meta l4proto tcp drop; }; }",
        );
        let output = scene.compare("-w 900ms --json=-");
        assert!(output.text().contains("\"past_egress\":\"egress_dropped\""), "{output}");
    }
}
