//! The promise itself: netkat connects and listens past every kind of rule, on IPv4 and IPv6, with
//! a line and with 64 MiB each way at once. Each rule really stops the kernel's netcat, and the
//! host's kernel neither answers nor tracks the connection.
use crate::support::{
    namespace::Namespace,
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::{Netcat, kernel_connects},
    process::{DEADLINE, Input},
    requirements::lab,
    rules::{Role, Rule},
    topology::{Family, Pair},
    witness::Witness,
};

/// Runs one cell: the rule stops the kernel, and netkat exchanges payloads of both sizes, by programs and by rules of
/// nftables.
fn cell(role: Role, family: Family, rule: Rule) {
    let pair = Pair::new();
    rule.apply(&pair.host, family, "tcp");
    kernel_is_stopped(&pair, role, family, rule);
    let witness = Witness::of_resets_and_errors(&pair.peer, 5000);
    // The peers take turns: the short payload and the large one go to different ones.
    let turn = rule as usize + family as usize;
    let large = (Payload::large(), Payload::new(2, 64 * MIB));
    let mut runs = vec![
        ("auto", Payload::short(), Payload::short()),
        ("auto", large.0, large.1),
        ("nft", Payload::short(), Payload::new(3, MIB)),
    ];
    if role == Role::Connect {
        // By itself netkat guards one connection at netfilter.
        runs.push(("tcx", Payload::new(4, MIB), Payload::short()));
    }
    for (number, (guard, out, back)) in runs.iter().enumerate() {
        let netcat = Netcat::ALL[(turn + number) % 3];
        if role == Role::Connect && netcat.leaves_early() {
            one_way_each(&pair, family, netcat, guard, (out, back));
        } else {
            exchange(&pair, role, family, rule, netcat, guard, (out, back));
        }
    }
    witness.saw_nothing();
    assert_untracked(&pair.host);
}

fn kernel_is_stopped(pair: &Pair, role: Role, family: Family, rule: Rule) {
    let (server, client, at) = match role {
        Role::Connect => (&pair.peer, &pair.host, pair.peer_address(family)),
        Role::Listen => (&pair.host, &pair.peer, pair.host_address(family)),
    };
    let _server = Netcat::OpenBsd.listen(server, at, 4000, |c| c);
    assert_eq!(
        kernel_connects(client, at, 4000),
        rule == Rule::Nothing,
        "the kernel's netcat against {rule:?}"
    );
}

/// Sends `out` from netkat and checks that `back` arrives.
fn exchange(
    pair: &Pair,
    role: Role,
    family: Family,
    rule: Rule,
    netcat: Netcat,
    guard: &str,
    (out, back): (&Payload, &Payload),
) {
    match role {
        Role::Connect => {
            let at = pair.peer_address(family);
            let server = netcat.listen(&pair.peer, at, 5000, |c| c.input(back.input()).expect(out));
            let client = netkat(&pair.host, &format!("--guard {guard} {at} 5000"))
                .input(out.input())
                .expect(back)
                .run();
            client.check(back);
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{client}");
            server.wait(DEADLINE).check(out);
        }
        Role::Listen => {
            let at = pair.host_address(family);
            let line = format!("--guard {guard} {} {at} 5000", rule.demanded());
            let server = listening(&pair.host, &line, |c| c.input(out.input()).expect(back));
            let client = netcat.connect(&pair.peer, at, 5000).input(back.input()).expect(out).run();
            client.check(out);
            let server = server.wait(DEADLINE);
            server.check(back);
            assert_eq!(server.code(), Some(0), "{server}");
        }
    }
}

/// Transfers the payloads one direction after the other, against a listener that [leaves early](Netcat::leaves_early).
fn one_way_each(pair: &Pair, family: Family, netcat: Netcat, guard: &str, (out, back): (&Payload, &Payload)) {
    let at = pair.peer_address(family);
    let server = netcat.listen(&pair.peer, at, 5000, |c| c.expect(out));
    let client = netkat(&pair.host, &format!("--guard {guard} {at} 5000")).input(out.input()).run();
    assert_eq!((client.code(), client.length, client.stderr.as_str()), (Some(0), 0, ""), "{client}");
    server.wait(DEADLINE).check(out);

    let server = netcat.listen(&pair.peer, at, 5000, |c| c.input(back.input()));
    let mut client =
        netkat(&pair.host, &format!("--guard {guard} {at} 5000")).input(Input::Open).expect(back).spawn();
    client.wait_until("whole payload", |c| c.received() == back.length());
    client.close_stdin();
    let client = client.wait(DEADLINE);
    client.check(back);
    assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{client}");
    server.wait(DEADLINE);
}

/// Panics if the host's connection tracking knows port 5000.
fn assert_untracked(host: &Namespace) {
    let table = host.run("conntrack -L").text();
    assert!(!table.contains("port=5000"), "{table}");
}

macro_rules! matrix {
    ($($module:ident: $role:ident $family:ident;)*) => {$(
        mod $module {
            use super::*;
            matrix!(@ no_rule $role $family Nothing);
            matrix!(@ input $role $family Input);
            matrix!(@ output $role $family Output);
            matrix!(@ both $role $family Both);
            matrix!(@ raw_prerouting $role $family RawPrerouting);
            matrix!(@ nft_inet $role $family NftInet);
            matrix!(@ nft_netdev_ingress $role $family NftNetdevIngress);
            matrix!(@ redirect $role $family Redirect);
        }
    )*};
    (@ $name:ident $role:ident $family:ident $rule:ident) => {
        #[test]
        fn $name() {
            lab!(
                "nc.openbsd", "ncat", "socat", "nft", "conntrack", "iptables-legacy", "ip6tables-legacy",
                "iptables-nft", "ip6tables-nft"
            );
            cell(Role::$role, Family::$family, Rule::$rule);
        }
    };
}

matrix! {
    connect_v4: Connect V4;
    connect_v6: Connect V6;
    listen_v4: Listen V4;
    listen_v6: Listen V6;
}
