//! Errors: each names the word at which the expression becomes invalid, and a valid one.
use netkat::{
    host::resolve::{Family, Names},
    sniffer::{
        LinkType,
        filter::{Filter, Frames},
    },
};

fn error(expression: &str) -> String {
    let filter = Filter::parse(expression)
        .and_then(|filter| filter.resolve(Family::Any, Names::Numeric, &|_| Vec::new()));
    let program = filter.and_then(|filter| filter.compile(Frames::Recorded(LinkType::Ethernet)));
    program.map(|_| ()).expect_err(expression).to_string()
}

#[test]
fn an_error_names_the_word_and_what_would_be_right() {
    let cases = [
        ("tcp prot 80", "at \"prot\"", "expected \"and\", \"or\" or the end"),
        ("tcp port", "at its end", "a port"),
        ("host", "at its end", "an address or a name"),
        ("tcp host 10.0.0.1", "at \"10.0.0.1\"", "tcp and host ADDRESS"),
        ("ether host 10.0.0.1", "at \"10.0.0.1\"", "six hexadecimal bytes"),
        ("host 02:00:00:00:00:01", "at \"02:00:00:00:00:01\"", "ether host 02:00:00:00:00:01"),
        ("net 10.0.0.1/24", "at \"10.0.0.1/24\"", "write net 10.0.0.0/24"),
        ("net 2001:db8::1/64", "at \"2001:db8::1/64\"", "write net 2001:db8::/64"),
        ("host 10.0.0.0/8", "at \"10.0.0.0/8\"", "net 192.0.2.0/24"),
        ("net example", "at \"example\"", "not looked up"),
        ("port 65536", "at \"65536\"", "65535"),
        ("port 80-90", "at \"80-90\"", "portrange"),
        ("tcp[13:3] = 1", "at \"3\"", "1, 2 or 4"),
        ("tcp[13] & 2", "at its end", "a comparison"),
        ("tcp[tcpflags & 2 = 0", "at \"=\"", "\"]\""),
        ("(tcp or udp", "at its end", "\")\""),
        ("tcp)", "at \")\"", "or the end"),
        ("TCP", "at \"TCP\"", "lower case"),
        ("80", "at \"80\"", "\"port 80\""),
        ("vlan 4096", "at \"4096\"", "4095"),
        ("1 / 0 = 1", "at \"0\"", "division by zero"),
        ("1 << 32 = 1", "at \"32\"", "31"),
        ("mpls and arp", "at \"arp\"", "behind mpls"),
        ("ifindex 2", "at \"ifindex 2\"", "file"),
        ("host nosuch.invalid", "nosuch.invalid", "not a numeric address"),
        ("tcp \u{1b}[2J", "at ", "no meaning"),
        ("0x123456789 = 1", "at \"0x123456789\"", "32 bits"),
        ("host 10.0.0.256", "at \"10.0.0.256\"", "0 to 255"),
    ];
    for (expression, place, remedy) in cases {
        let error = error(expression);
        assert!(error.contains(place) && error.contains(remedy), "{expression}: {error}");
        assert!(!error.contains(char::is_control), "{expression}: {error:?}");
    }
}

/// Words of tcpdump that netkat lacks are refused by name.
#[test]
fn words_of_tcpdump_are_refused_by_name() {
    for word in [
        "geneve",
        "gateway gw",
        "protochain 6",
        "byte 0 = 1",
        "ifname eth0",
        "on eth0",
        "wlan type mgt",
        "radio[0] = 1",
        "llc",
        "l1",
        "lsp",
        "vci 3",
        "fisu",
        "rnr 1",
        "action pass",
        "oam",
    ] {
        let error = error(word);
        let first = word.split([' ', '[']).next().expect("a word");
        let named = if first == "on" { "ifname" } else { first };
        let named = if word.starts_with("wlan") { "type" } else { named };
        assert!(error.contains(&format!("\"{named}")), "{word}: {error}");
        assert!(error.len() < 400, "{word}: {error}");
    }
}

#[test]
fn long_and_deep_expressions_are_refused_in_few_words() {
    let deep = format!("{}tcp{}", "(".repeat(10_000), ")".repeat(10_000));
    let not = format!("{}tcp", "not ".repeat(10_000));
    let sum = format!("{}1 = 1", "1 + ".repeat(10_000));
    let minus = format!("{}1 = 1", "- ".repeat(10_000));
    let index = format!("{}0{} = 1", "ip[".repeat(10_000), "]".repeat(10_000));
    let wide = format!("tcp{}", " or tcp".repeat(30_000));
    let word = "x".repeat(1_000_000);
    for expression in [deep, not, sum, minus, index, wide, word] {
        let error = error(&expression);
        assert!(error.len() < 700, "{} bytes about {:.20}", error.len(), expression);
    }
}

/// A long chain makes no deep tree.
#[test]
fn a_long_chain_of_connectives_is_taken() {
    let chain = format!("tcp{}", " and ip or tcp".repeat(300));
    let program = Filter::parse(&chain).expect("an expression").compile(Frames::Recorded(LinkType::Ethernet));
    assert!(program.is_ok(), "{program:?}");
}
