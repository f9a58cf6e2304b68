//! The MTU of a flow's path (--mtu), and the same numbers in the object of a connection.
use crate::support::{
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Output},
    requirements::lab,
    routers::Row,
    rules::nft,
    topology::Family,
};
use serde_json::{Value, json};

/// Four routers in a row; between the third and the fourth the links carry 1400 bytes.
fn narrow() -> Row {
    let row = Row::new(4);
    row.router(3).ip("link set dev east mtu 1400");
    row.router(4).ip("link set dev west mtu 1400");
    row
}

/// Silences the errors of the router before the narrow link.
fn silence(row: &Row) {
    nft(
        row.router(3),
        "table inet lab { chain c { type filter hook output priority 0; icmp type destination-unreachable drop; \
         icmpv6 type packet-too-big drop; }; }",
    );
}

/// Returns the last object on standard output.
fn object(output: &Output) -> Value {
    let text = output.text();
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {output}"))
}

fn measured(row: &Row, arguments: &str) -> (Output, Value) {
    let output = netkat(&row.host, &format!("--mtu --exit-verdict --json=- {arguments}")).run();
    let object = object(&output);
    (output, object)
}

#[test]
fn a_router_that_says_too_big_is_named() {
    lab!("nc.openbsd");
    for family in Family::ALL {
        let row = narrow();
        let (to, router) = (row.peer_address(family), row.hop(family, 3).to_string());
        let mss = if family == Family::V4 { 1460 } else { 1440 };
        let server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
        let (output, object) = measured(&row, &format!("{to} 5000"));
        assert_eq!((output.code(), output.stderr.as_str()), (Some(0), ""), "{output}");
        assert_eq!(object["told"][0], json!({"address": router, "mtu_bytes": 1400, "packet_bytes": 1500}));
        for (field, expected) in [
            ("link_mtu_bytes", json!(1500)),
            ("path_mtu_bytes", json!(1400)),
            ("peer_mss_bytes", json!(mss)),
            ("own_mss_bytes", json!(mss)),
            ("lost_bytes", Value::Null),
            ("black_hole", json!(false)),
        ] {
            assert_eq!(object[field], expected, "{field}: {object:#}");
        }
        let words = format!("1500 here, 1400 at {router} (told), MSS {mss} announced by the peer");
        assert_eq!(object["summary"], words.as_str(), "{object:#}");
        // No probe's bytes reach an application.
        assert_eq!(server.wait(DEADLINE).text(), "");
        let (output, object) = measured(&row, &format!("-u {to} 4999"));
        assert_eq!((output.code(), &object["path_mtu_bytes"]), (Some(0), &1400.into()), "{object:#}");
        assert_eq!(object["told"][0]["address"], router.as_str(), "{object:#}");
    }
}

#[test]
fn a_black_hole_is_measured_and_placed() {
    lab!("nc.openbsd", "nft");
    let row = narrow();
    silence(&row);
    for family in Family::ALL {
        let to = row.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
        let (output, object) = measured(&row, &format!("{to} 5000"));
        assert_eq!((output.code(), &object["verdict"]), (Some(3), &"timed_out".into()), "{output}");
        for (field, expected) in [
            ("path_mtu_bytes", json!(1400)),
            ("told", json!([])),
            ("lost_bytes", json!(1401)),
            ("black_hole", json!(true)),
            ("lost_after_hop", json!(3)),
            ("lost_after_address", json!(row.hop(family, 3).to_string())),
        ] {
            assert_eq!(object[field], expected, "{field}: {object:#}");
        }
    }
}

/// Where the MSS is clamped, the flow's own segments fit, and what is lost beyond them harms nothing.
#[test]
fn a_clamped_flow_has_no_black_hole() {
    lab!("nc.openbsd", "nft");
    let row = narrow();
    silence(&row);
    nft(
        row.router(2),
        "table inet clamp { chain c { type filter hook forward priority 0; tcp flags & syn == syn tcp option maxseg size \
         set 1340; }; }",
    );
    for family in Family::ALL {
        let to = row.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
        let (output, object) = measured(&row, &format!("{to} 5000"));
        assert_eq!((output.code(), &object["black_hole"]), (Some(0), &false.into()), "{object:#}");
        assert_eq!(
            (&object["path_mtu_bytes"], &object["peer_mss_bytes"], &object["lost_bytes"]),
            (&1400.into(), &1340.into(), &1401.into()),
            "{object:#}"
        );
    }
}

#[test]
fn a_path_as_wide_as_the_link_takes_one_packet() {
    lab!("nc.openbsd");
    let row = Row::new(1);
    for family in Family::ALL {
        let to = row.peer_address(family);
        let _server = Netcat::OpenBsd.listen(&row.peer, to, 5000, |c| c);
        let (output, object) = measured(&row, &format!("{to} 5000"));
        assert_eq!((output.code(), &object["path_mtu_bytes"]), (Some(0), &1500.into()), "{output}");
        assert_eq!((&object["told"], &object["lost_bytes"]), (&json!([]), &Value::Null), "{object:#}");
        let refused = netkat(&row.host, &format!("--mtu --exit-verdict {to} 4999")).run();
        assert_eq!(refused.code(), Some(4), "{refused}");
    }
}

/// The object of an ordinary connection has what its segments met.
#[test]
fn a_connection_reports_the_sizes_of_its_path() {
    lab!("socat");
    for family in Family::ALL {
        let row = narrow();
        let (to, payload) = (row.peer_address(family), Payload::new(25, MIB));
        let server = Netcat::Socat.listen(&row.peer, to, 5000, |c| c.expect(&payload));
        let output =
            netkat(&row.host, &format!("--json=- --send-only {to} 5000")).input(payload.input()).run();
        server.wait(DEADLINE).check(&payload);
        let mss = if family == Family::V4 { 1460 } else { 1440 };
        let expected = json!({
            "link_mtu_bytes": 1500, "path_mtu_bytes": 1400, "peer_mss_bytes": mss, "own_mss_bytes": mss,
            "too_big_from": row.hop(family, 3).to_string(), "too_big_mtu_bytes": 1400, "black_hole": false
        });
        assert_eq!(object(&output)["path"], expected, "{output}");
        let listener = listening(&row.host, "--json -k --recv-only 5000", |c| c);
        Netcat::Socat.connect(&row.peer, row.host_address(family), 5000).text("x").succeed();
        let client = listener.terminate().stderr;
        assert!(client.contains("\"path\":{\"link_mtu_bytes\":1500,\"path_mtu_bytes\":1500,"), "{client}");
    }
}
