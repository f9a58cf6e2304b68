//! No byte is lost: input arrives as output, for every kind of stdin and stdout, and ends are told
//! apart.
use crate::support::{
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Input},
    requirements::lab,
    topology::{Family, Pair},
};
use std::{fs::OpenOptions, time::Duration};

#[test]
fn an_http_server_answers() {
    lab!("python3");
    let pair = Pair::new();
    pair.host.run("iptables-nft -w -A OUTPUT -p tcp -j DROP");
    let folder = std::env::temp_dir().join(format!("netkat-lab-www-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("page.txt"), "a page of its own\n").expect("a page");
    let at = pair.peer_address(Family::V4);
    let mut server = pair
        .peer
        .command("python3")
        .args([
            "-m",
            "http.server",
            "--bind",
            &at.to_string(),
            "--directory",
            &folder.to_string_lossy(),
            "8000",
        ])
        .spawn();
    server.wait_listening(8000);
    let answer =
        netkat(&pair.host, &format!("{at} 8000")).text("GET /page.txt HTTP/1.0\r\n\r\n").succeed().text();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\na page of its own\n"), "{answer}");
    std::fs::remove_dir_all(&folder).expect("removing the folder");
}

#[test]
fn a_quarter_gibibyte_goes_each_way_at_once() {
    lab!("socat");
    let pair = Pair::new();
    let (out, back) = (Payload::new(3, 256 * MIB), Payload::new(4, 256 * MIB));
    let at = pair.peer_address(Family::V4);
    let server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()).expect(&out));
    let client = netkat(&pair.host, &format!("{at} 5000"))
        .input(out.input())
        .expect(&back)
        .deadline(Duration::from_secs(60))
        .run();
    client.check(&back);
    assert_eq!(client.code(), Some(0), "{client}");
    server.wait(DEADLINE).check(&out);
}

/// The end of each kind of stdin ends the outgoing half, and the peer's data still arrives.
#[test]
fn stdin_may_be_closed_empty_a_pipe_or_a_file() {
    lab!("socat");
    let pair = Pair::new();
    let back = Payload::new(5, 3 * MIB);
    let nothing = Payload::new(6, 0);
    let short = Payload::short();
    let inputs = [
        (Input::Closed, &nothing),
        (Input::Null, &nothing),
        (Input::Bytes(Vec::new()), &nothing),
        (Input::Bytes(b"The quick brown fox jumps over the lazy dog.\n".to_vec()), &short),
        (short.input(), &short),
    ];
    for (input, out) in inputs {
        for role in ["connect", "listen"] {
            let what = format!("{input:?}, {role}");
            let (client, server) = if role == "connect" {
                let at = pair.peer_address(Family::V4);
                let server =
                    Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()).expect(out));
                (netkat(&pair.host, &format!("{at} 5000")).input(input.clone()).expect(&back).run(), server)
            } else {
                let at = pair.host_address(Family::V4);
                let server = listening(&pair.host, "5000", |c| c.input(input.clone()).expect(&back));
                let client =
                    Netcat::Socat.connect(&pair.peer, at, 5000).input(back.input()).expect(out).run();
                (client, server)
            };
            let server = server.wait(DEADLINE);
            let (ours, theirs) = if role == "connect" { (client, server) } else { (server, client) };
            assert_eq!(ours.code(), Some(0), "{what}: {ours}");
            ours.check(&back);
            theirs.check(out);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_resets_the_peer() {
    lab!("socat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let back = Payload::new(5, 3 * MIB);
    let _server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()));
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let client = netkat(&pair.host, &format!("{at} 5000")).stdout(full).run();
    assert_eq!(client.code(), Some(1), "{client}");
    assert!(client.stderr.contains("standard output") && client.stderr.contains("No space left"), "{client}");
}

#[test]
fn a_stdout_that_closes_is_an_error() {
    lab!("socat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let back = Payload::new(5, 3 * MIB);
    let _server = Netcat::Socat.listen(&pair.peer, at, 5000, |c| c.input(back.input()));
    let line = format!(
        "({} {at} 5000; echo status $? >&2) | head -c 10 >/dev/null",
        crate::support::netkat::PROGRAM
    );
    let shell = pair.host.command("sh").args(["-c", &line]).run();
    assert!(shell.stderr.contains("status 1") && shell.stderr.contains("standard output"), "{shell}");
}

/// Connects netkat to a Python program that gets the accepted socket as `s`.
fn against(pair: &Pair, program: &str, input: Input) -> crate::support::process::Output {
    let at = pair.peer_address(Family::V4);
    let script = format!(
        "import socket, struct, time\n\
         l = socket.create_server(('{at}', 5000))\n\
         s, _ = l.accept()\n\
         {program}"
    );
    let mut server = pair.peer.command("python3").args(["-c", &script]).spawn();
    server.wait_listening(5000);
    netkat(&pair.host, &format!("{at} 5000")).input(input).run()
}

#[test]
fn a_peer_that_resets_is_an_error_after_its_bytes_were_taken() {
    lab!("python3");
    let pair = Pair::new();
    let reset = "s.sendall(b'last words'); time.sleep(0.2)\n\
                 s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()";
    let client = against(&pair, reset, Input::Open);
    assert_eq!(client.code(), Some(1), "{client}");
    assert_eq!(client.text(), "last words");
    assert!(client.stderr.contains("reset"), "{client}");
}

#[test]
fn a_peer_that_ends_first_still_gets_the_rest() {
    lab!("python3");
    let pair = Pair::new();
    let out = Payload::new(7, 2 * MIB);
    let half_close = "s.shutdown(socket.SHUT_WR)\nn = 0\n\
                      while True:\n    b = s.recv(65536)\n    if not b: break\n    n += len(b)\n    time.sleep(0.001)\n\
                      assert n == 2097152, n\n\
                      open('/proc/self/comm', 'w').write('complete'); time.sleep(30)";
    let at = pair.peer_address(Family::V4);
    let client = against(&pair, half_close, out.input());
    assert_eq!((client.code(), client.text().as_str()), (Some(0), ""), "{client} {at}");
}

#[test]
fn the_quit_timer_ends_a_connection_that_the_peer_keeps_open() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let script = format!(
        "import socket, time\nl = socket.create_server(('{at}', 5000))\n\
         while True: s, _ = l.accept(); s.sendall(b'here'); keep = s"
    );
    let mut server = pair.peer.command("python3").args(["-c", &script]).spawn();
    server.wait_listening(5000);
    let client = netkat(&pair.host, &format!("-q 300ms {at} 5000")).text("x").run();
    assert_eq!((client.code(), client.text().as_str()), (Some(0), "here"), "{client}");
    assert!(
        client.elapsed >= Duration::from_millis(300) && client.elapsed < Duration::from_secs(10),
        "{client}"
    );

    // Without the flag, netkat stays until the peer ends.
    let mut patient = netkat(&pair.host, &format!("{at} 5000")).text("x").spawn();
    patient.wait_for_stdout("here");
    std::thread::sleep(Duration::from_millis(700));
    assert!(patient.is_running());
    drop(server);
}

#[test]
fn without_shutdown_the_peer_sees_no_end() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    // The peer tells whether an end came within a second and a half.
    let script = format!(
        "import socket\nl = socket.create_server(('{at}', 5000))\n\
         while True:\n    s, _ = l.accept()\n    s.settimeout(1.5)\n    data = b''\n    \
         try:\n        while True:\n            b = s.recv(100)\n            if not b: break\n            data += b\n        \
         s.sendall(b'end')\n    except TimeoutError: s.sendall(b'open')\n    s.close()"
    );
    let mut server = pair.peer.command("python3").args(["-c", &script]).spawn();
    server.wait_listening(5000);
    for (flags, word) in [("", "end"), ("-N", "end"), ("--no-shutdown", "open")] {
        let client = netkat(&pair.host, &format!("{flags} {at} 5000")).text("x").run();
        assert_eq!((client.code(), client.text().as_str()), (Some(0), word), "{flags}: {client}");
    }
}
