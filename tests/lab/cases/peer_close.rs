//! --quit-on-peer-close: the peer's end ends netkat, even with standard input left.
use crate::support::{
    netkat::{listening, netkat},
    payload::Payload,
    peers::Netcat,
    process::DEADLINE,
    requirements::lab,
    topology::{Family, Pair},
};

#[test]
fn a_client_ends_with_its_peer_although_its_input_is_open() {
    lab!("socat");
    let pair = Pair::new();
    let back = Payload::short();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()));
        let mut client = netkat(&pair.host, &format!("--quit-on-peer-close {at} 5000"))
            .input(crate::support::process::Input::Open)
            .expect(&back)
            .spawn();
        client.write(b"something\n");
        let client = client.wait(DEADLINE);
        assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{client}");
        client.check(&back);
        assert_eq!(server.wait(DEADLINE).text(), "something\n");
    }
}

#[test]
fn a_listener_ends_with_its_client_and_without_the_flag_it_does_not() {
    lab!("socat");
    let pair = Pair::new();
    let out = Payload::short();
    let at = pair.host_address(Family::V4);
    let open = crate::support::process::Input::Open;
    let server = listening(&pair.host, &format!("--quit-on-peer-close {at} 5000"), |c| {
        c.input(open.clone()).expect(&out)
    });
    Netcat::Socat.connect(&pair.peer, at, 5000).input(out.input()).run();
    let server = server.wait(DEADLINE);
    assert_eq!(server.code(), Some(0), "{server}");
    server.check(&out);

    let mut server = listening(&pair.host, &format!("{at} 5001"), |c| c.input(open).expect(&out));
    let _client = Netcat::Socat.connect(&pair.peer, at, 5001).input(out.input()).spawn();
    server.wait_until("the data", |server| server.received() > 0);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(server.is_running());
    server.close_stdin();
    server.wait(DEADLINE);
}
