//! Rules as the kernel lists them, beside the text that nft and iptables print (testdata/rules).
use super::{
    Headers, RuleText, Ruleset, Translation, legacy, render,
    set::{SetDescription, SetElement},
};
use crate::host::nfnetlink::Attributes;
use std::collections::HashMap;

type Named = (u8, Vec<u8>, Vec<u8>);

/// The sets of a recording, for the rules of one table.
#[derive(Default)]
struct Recorded {
    table: (u8, Vec<u8>),
    sets: HashMap<Named, SetDescription>,
    elements: HashMap<Named, Vec<SetElement>>,
}

impl Recorded {
    fn key(&self, name: &[u8]) -> Named {
        (self.table.0, self.table.1.clone(), name.to_vec())
    }
}

impl Ruleset for Recorded {
    fn set(&mut self, name: &[u8]) -> Option<SetDescription> {
        self.sets.get(&self.key(name)).cloned()
    }

    fn elements(&mut self, name: &[u8]) -> Vec<SetElement> {
        self.elements.get(&self.key(name)).cloned().unwrap_or_default()
    }

    fn elements_at(&mut self, name: &[u8], _key: &[u8]) -> Vec<SetElement> {
        self.elements(name)
    }

    fn interface(&mut self, index: u32) -> Option<String> {
        (index == 1).then(|| "lo".into())
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(pair).collect()
}

fn named(family: u8, attributes: &[u8]) -> Named {
    let attributes = Attributes(attributes);
    (family, attributes.name(1).expect("a table").to_vec(), attributes.name(2).expect("a name").to_vec())
}

/// Returns our text and the tool's text of each rule of a recording.
fn rendered(dump: &str, headers: Option<Headers>) -> Vec<(RuleText, String)> {
    let mut recorded = Recorded::default();
    let mut all = Vec::new();
    for line in dump.lines() {
        let fields: Vec<_> = line.splitn(4, ' ').collect();
        let (family, data) = (fields[1].parse().expect("a family"), bytes(fields[2]));
        match fields[0] {
            "set" => {
                recorded.sets.insert(named(family, &data), SetDescription::parse(&data));
            }
            "elements" => {
                let elements = SetElement::parse_all(&data);
                recorded.elements.entry(named(family, &data)).or_default().extend(elements);
            }
            _ => {
                recorded.table = (family, Attributes(&data).name(1).expect("a table").to_vec());
                all.push((render(family, &data, &mut recorded, headers), fields[3].into()));
            }
        }
    }
    all
}

/// Compares all rules of a recording with nft's texts; those that differ are the snapshot.
fn differing(dump: &str) -> String {
    let all = rendered(dump, None);
    assert!(
        all.len() > 10 && all.iter().all(|(ours, nfts)| !ours.text.contains('[') || nfts.contains('[')),
        "all are known"
    );
    let comment = |ours: &RuleText| match &ours.comment {
        Some(comment) if !ours.text.contains("--comment") => format!(" comment \"{comment}\""),
        _ => String::new(),
    };
    let pairs = all.iter().map(|(ours, nfts)| (format!("{}{}", ours.text, comment(ours)), nfts));
    let lines =
        pairs.filter(|(ours, nfts)| ours != *nfts).map(|(ours, nfts)| format!("{ours}\n    nft: {nfts}\n"));
    lines.collect()
}

#[test]
fn rules_of_nft_have_nfts_words() {
    insta::assert_snapshot!(differing(include_str!("../../../testdata/rules/generic.dump")));
}

#[test]
fn rules_of_kube_proxy_have_nfts_words() {
    insta::assert_snapshot!(differing(include_str!("../../../testdata/rules/nodeport-nftables.dump")));
}

#[test]
fn rules_of_iptables_nft_have_the_words_of_both() {
    insta::assert_snapshot!(differing(include_str!("../../../testdata/rules/iptables-nft.dump")));
}

#[test]
fn rules_of_iptables_legacy_have_iptables_words() {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for line in include_str!("../../../testdata/rules/iptables-legacy.dump").lines() {
        match line.split_once(' ').expect("a kind") {
            ("iptables", rule) => theirs.push(rule.to_string()),
            (_, table) => ours.extend(legacy_rules(table)),
        }
    }
    let pairs = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs);
    let lines: String = pairs.map(|(ours, theirs)| format!("{ours}\n    iptables: {theirs}\n")).collect();
    assert_eq!(ours.len(), theirs.len(), "{ours:#?}\n{theirs:#?}");
    insta::assert_snapshot!(lines);
}

/// Returns the rules of a recorded table, without its policies.
fn legacy_rules(table: &str) -> Vec<String> {
    const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let (info, entries) =
        table.split_once(' ').map(|(info, entries)| (bytes(info), bytes(entries))).expect("both");
    let number =
        |at: usize| u32::from_ne_bytes(*info[at..].first_chunk().expect("in struct ipt_getinfo")) as usize;
    let half = |at: usize| usize::from(u16::from_ne_bytes(*entries[at..].first_chunk().expect("an entry")));
    let hooks = (0..5).filter(|hook| number(32) >> hook & 1 != 0);
    let starts: HashMap<_, _> = hooks.clone().map(|hook| (number(36 + 4 * hook), HOOKS[hook])).collect();
    let policies: Vec<_> = hooks.map(|hook| number(56 + 4 * hook)).collect();
    let (mut at, mut heads) = (0, HashMap::new());
    while at < entries.len() {
        let (target, next) = (at + half(at + 88), at + half(at + 90));
        if entries[target + 2..].starts_with(b"ERROR\0") {
            heads.insert(next, super::datatype::name(&entries[target + 32..next]));
        }
        at = next;
    }
    let (mut at, mut chain, mut rules) = (0, String::new(), Vec::new());
    while at < entries.len() {
        let (target, next) = (at + half(at + 88), at + half(at + 90));
        chain = starts.get(&at).map_or(chain, |hook| (*hook).to_string());
        chain = heads.get(&at).cloned().unwrap_or(chain);
        let is_head = entries[target + 2..].starts_with(b"ERROR\0");
        // iptables ends each user's chain with an unconditional RETURN.
        let ends = heads.contains_key(&(next + entries.get(next + 90).map_or(0, |_| half(next + 90))));
        if !is_head && !policies.contains(&at) && !ends {
            let (text, _) =
                legacy::legacy_rule(&entries[at..next], &chain, false, |to| heads.get(&to).cloned())
                    .expect("whole");
            rules.push(text);
        }
        at = next;
    }
    rules
}

/// Headers of a TCP SYN from 10.81.0.1 port 40000.
fn syn(destination: [u8; 4], port: u16) -> ([u8; 20], [u8; 20]) {
    let (mut network, mut transport) = ([0; 20], [0; 20]);
    (network[0], network[9]) = (0x45, 6);
    network[12..16].copy_from_slice(&[10, 81, 0, 1]);
    network[16..].copy_from_slice(&destination);
    transport[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    transport[2..4].copy_from_slice(&port.to_be_bytes());
    (network, transport)
}

#[test]
fn the_element_that_a_packet_meets_is_found() {
    let dump = include_str!("../../../testdata/rules/generic.dump");
    let elements = |destination, port, rule: &str| {
        let (network, transport) = syn(destination, port);
        let all = rendered(dump, Some(Headers { network: &network, transport: &transport }));
        let (ours, _) = all.into_iter().find(|(ours, _)| ours.text.starts_with(rule)).expect(rule);
        ours.elements.into_iter().map(|e| (e.set, e.element)).collect::<Vec<_>>()
    };
    let own = |element: &str| vec![(None, element.to_string())];
    assert_eq!(elements([10, 81, 0, 2], 7000, "tcp dport vmap"), own("7000 : drop"));
    assert_eq!(elements([10, 81, 0, 2], 8005, "tcp dport vmap"), own("8000-8010 : accept"));
    assert_eq!(elements([10, 81, 0, 2], 9, "tcp dport vmap"), []);
    let concatenated = "ip daddr . tcp dport vmap";
    assert_eq!(elements([10, 0, 0, 2], 443, concatenated), own("10.0.0.2 . 443 : drop"));
    let named = elements([10, 1, 2, 3], 85, "ip daddr . tcp dport @nets");
    assert_eq!(named, [(Some("nets".to_string()), "10.1.0.0/16 . 80-90".to_string())]);
}

#[test]
fn facts_stand_beside_the_text() {
    let all = rendered(include_str!("../../../testdata/rules/generic.dump"), None);
    let texts: Vec<_> = all.iter().map(|(ours, _)| &ours.text).collect();
    let find = |text: &str| {
        let found = all.iter().map(|(ours, _)| ours).find(|ours| ours.text == text);
        found.unwrap_or_else(|| panic!("{text}: {texts:#?}"))
    };
    assert!(find("tcp dport 22 ct count over 3 reject with tcp reset").rejects);
    assert_eq!(find("tcp dport 81 redirect to :8081").translates, Some(Translation::Destination));
    assert_eq!(find("masquerade fully-random").translates, Some(Translation::Source));
    assert_eq!(find("meta mark set 0x00000007").mark, Some(7));
    assert!(find("meta skuid 1000 drop").by_identity);
    assert!(find("icmp type echo-request limit rate 1/minute accept").varies);
    assert_eq!(find("tcp dport 7000 counter drop").comment.as_deref(), Some("blk seven"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_reach_the_terminal(
        which in 0_usize..1000,
        at in 0_usize..400,
        with in proptest::collection::vec(proptest::num::u8::ANY, 1..12),
        cut in 0_usize..400,
    ) {
        for dump in [include_str!("../../../testdata/rules/generic.dump"), include_str!("../../../testdata/rules/iptables-nft.dump")] {
            let rules: Vec<_> = dump.lines().filter(|line| line.starts_with("rule")).collect();
            let fields: Vec<_> = rules[which % rules.len()].splitn(4, ' ').collect();
            let mut data = bytes(fields[2]);
            let length = data.len();
            for (nth, byte) in with.iter().enumerate() {
                data[(at + nth) % length] = *byte;
            }
            data.truncate(length.saturating_sub(cut % length));
            let (network, transport) = syn([10, 0, 0, 1], 80);
            let headers = Headers { network: &network, transport: &transport };
            let ours = render(fields[1].parse().expect("a family"), &data, &mut Recorded::default(), Some(headers));
            proptest::prop_assert!(!ours.text.contains(char::is_control), "{:?}", ours.text);
        }
    }
}
