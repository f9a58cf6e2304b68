//! The tables of docs/flags.md: every command line there goes to the parser.
use netkat::cli::{Cli, NotRun};
use std::collections::BTreeSet;

const TABLES: &str = include_str!("../../docs/flags.md");

/// The letters of nc.openbsd -h and nc.traditional -h, and the names and letters of ncat -h.
const NC: &str = "4 6 b c C D d e F g G h I i k l m M N n o O P p q r S s t T U u V v W w X x Z z";
const NCAT: &str = "4 6 U C c e g G m h d o x i p s l k n t u v w z unixsock vsock crlf sh-exec exec lua-exec max-conns help \
    delay output hex-dump idle-timeout source-port source listen keep-open nodns telnet udp sctp verbose wait \
    append-output send-only recv-only no-shutdown allow allowfile deny denyfile broker chat proxy proxy-type proxy-auth \
    proxy-dns ssl ssl-cert ssl-key ssl-verify ssl-trustfile ssl-ciphers ssl-servername ssl-alpn version";

/// The letters and names of tcpdump -h.
const TCPDUMP: &str = "A b d D e f h H I J K l L n N O p q S t u U v x X # B c C E F G i immediate-mode j M number print \
    Q r s T version V w W y time-stamp-precision micro nano z Z k m buffer-size";

/// The sections: title, what comes before the words typed, and flags of the program.
const SECTIONS: [(&str, &str, &str); 3] =
    [("nc (", "", NC), ("ncat", "", NCAT), ("tcpdump", "--sniff ", TCPDUMP)];

/// A row: the words typed, the middle column, the remark.
struct Row {
    typed: String,
    netkat: String,
    remark: String,
}

/// Returns the rows of the section with this title.
fn rows(title: &str) -> Vec<Row> {
    let section = TABLES.split("\n## ").find(|section| section.starts_with(title)).expect(title);
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let rows = lines.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [typed, netkat, remark] = cells[..] else { panic!("three columns: {line}") };
        let typed = typed.trim_matches('`').to_owned();
        Row { typed, netkat: netkat.to_owned(), remark: remark.trim_end_matches('|').trim().to_owned() }
    });
    rows.collect()
}

fn read(line: &str) -> Result<(), NotRun> {
    let words = shlex::split(line).expect(line);
    Cli::read(std::iter::once("netkat".to_owned()).chain(words).map(Into::into)).map(drop)
}

fn is_taken(line: &str) -> bool {
    !matches!(read(line), Err(NotRun::Wrong(_)))
}

/// Returns the command line within backquotes.
fn code(cell: &str) -> Option<&str> {
    let (_, rest) = cell.split_once('`')?;
    rest.split_once('`').map(|(code, _)| code)
}

#[test]
fn every_row_is_as_the_parser_has_it() {
    for (title, before, _) in SECTIONS {
        for Row { typed, netkat, remark } in rows(title) {
            let first = typed.split(' ').next().unwrap_or_default().to_owned();
            let typed = format!("{before}{typed}");
            match netkat.as_str() {
                "same" => assert!(is_taken(&typed), "{title} {typed}: {:?}", read(&typed)),
                differs if differs.starts_with("differs") => {
                    assert!(is_taken(&typed), "{title} {typed}: {:?}", read(&typed));
                    assert!(!remark.is_empty() && code(differs).is_none_or(is_taken), "{title} {typed}");
                }
                other => match read(&typed) {
                    Err(NotRun::Wrong(words)) => {
                        assert!(
                            words.contains(&first) || words.contains("--wait"),
                            "{title} {typed}: {words}"
                        );
                        assert!(
                            other == "refused" && !remark.is_empty() || code(other).is_some_and(is_taken)
                        );
                    }
                    taken => panic!("{title} {typed}: {taken:?}"),
                },
            }
        }
    }
}

#[test]
fn no_flag_is_missing() {
    for (title, _, flags) in SECTIONS {
        let rows = rows(title);
        let typed: BTreeSet<_> = rows
            .iter()
            .flat_map(|row| row.typed.split(' '))
            .filter(|word| word.starts_with('-'))
            .map(|word| word.trim_start_matches('-'))
            .collect();
        for flag in flags.split_whitespace() {
            assert!(typed.contains(flag), "{title} {flag}");
        }
    }
}
