//! Completions of flags and values for bash, zsh and fish, from the parser's definitions. Interfaces and hosts are looked
//! up by the shell as it completes; their names are data to it and never words to expand.
use crate::recovery::Algorithm;
use clap::{Arg, Command};
use std::fmt::Write;

/// Lists the interfaces of this host, in all three shells.
const INTERFACES: &str = "ls /sys/class/net 2>/dev/null";
/// Lists the names in /etc/hosts.
const HOSTS: &str = r#"awk '{ sub(/#.*/, ""); for (i = 2; i <= NF; i++) print $i }' /etc/hosts 2>/dev/null"#;

/// The values of a flag.
enum Values {
    /// The flag takes none.
    None,
    /// Any text.
    Free,
    Files,
    Interfaces,
    Hosts,
    Words(Vec<String>),
}

impl Values {
    fn of(arg: &Arg) -> Values {
        if !arg.get_action().takes_values() {
            return Values::None;
        }
        let words: Vec<_> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        match (arg.get_id().as_str(), arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str()))
        {
            _ if !words.is_empty() => Values::Words(words),
            ("interface", _) => Values::Interfaces,
            ("congestion", _) => Values::Words(Algorithm::ALL.iter().map(ToString::to_string).collect()),
            ("dns", _) => Values::Words(["host", "relay"].map(str::to_owned).to_vec()),
            ("via" | "allow" | "deny" | "target", _) => Values::Hosts,
            (_, Some("FILE" | "DIR" | "PID|NAME|FILE")) => Values::Files,
            _ => Values::Free,
        }
    }
}

/// Returns the flags that users see.
fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional())
}

/// Returns a flag's names with their hyphens.
fn names(arg: &Arg) -> Vec<String> {
    let short = arg.get_short().map(|short| format!("-{short}"));
    short.into_iter().chain(arg.get_long().map(|long| format!("--{long}"))).collect()
}

fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

/// Returns the script for bash 4.4 and newer.
pub(super) fn bash(command: &Command) -> String {
    let mut cases = String::new();
    for arg in flags(command) {
        let action = match Values::of(arg) {
            Values::None => continue,
            Values::Free => "return".to_owned(),
            Values::Files => "compopt -o default 2>/dev/null; return".to_owned(),
            Values::Interfaces => "_netkat_offer \"$cur\" < <(_netkat_interfaces); return".to_owned(),
            Values::Hosts => "_netkat_offer \"$cur\" < <(_netkat_hosts); return".to_owned(),
            Values::Words(words) => {
                format!("_netkat_offer \"$cur\" < <(printf '%s\\n' {}); return", words.join(" "))
            }
        };
        // A value behind an equals sign only is no next word.
        let names = match arg.is_require_equals_set() {
            true => names(arg).iter().map(|name| format!("{name}=")).collect(),
            false => {
                names(arg).iter().flat_map(|name| [name.clone(), format!("{name}=")]).collect::<Vec<_>>()
            }
        };
        let _ = writeln!(cases, "        {}) {action} ;;", names.join("|"));
    }
    let all = flags(command).flat_map(names).collect::<Vec<_>>().join(" ");
    format!(
        r#"# bash completion for netkat
_netkat_interfaces() {{ {INTERFACES}; }}
_netkat_hosts() {{ {HOSTS}; }}

# Offers the lines of standard input that begin with $1.
_netkat_offer() {{
    local word
    while IFS= read -r word; do
        [[ $word == "$1"* ]] && COMPREPLY+=("$(printf %q "$word")")
    done
}}

_netkat() {{
    local cur=$2 flag=$3 word
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        # Behind it stands a command.
        [[ $word == -- ]] && {{ compopt -o default 2>/dev/null; return; }}
    done
    # An equals sign is a word of its own.
    if [[ $cur == = ]]; then
        cur='' flag=$flag=
    elif [[ $flag == = ]]; then
        flag=${{COMP_WORDS[COMP_CWORD - 2]}}=
    fi
    case $flag in
{cases}    esac
    case $cur in
        -*) _netkat_offer "$cur" < <(printf '%s\n' {all}) ;;
        *) _netkat_offer "$cur" < <(_netkat_hosts) ;;
    esac
}}

complete -F _netkat netkat
"#
    )
}

/// Returns the script for zsh.
pub(super) fn zsh(command: &Command) -> String {
    let mut specs = String::new();
    for arg in flags(command) {
        let value =
            arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str()).unwrap_or_default();
        let value = value.replace('|', " or ");
        let action = match Values::of(arg) {
            Values::None => String::new(),
            Values::Free => format!(":{value}: "),
            Values::Files => format!(":{value}:_files"),
            Values::Interfaces => format!(":{value}:_netkat_interfaces"),
            Values::Hosts => format!(":{value}:_netkat_hosts"),
            Values::Words(words) => format!(":{value}:({})", words.join(" ")),
        };
        let help =
            help(arg).replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace('\'', "'\\''");
        for name in names(arg) {
            // Values of a short flag may be in its word or the next; those of a long one follow an equals sign, too.
            let _ = match (action.is_empty(), arg.is_require_equals_set(), name.starts_with("--")) {
                (true, ..) => writeln!(specs, "        '*{name}[{help}]' \\"),
                (_, true, _) => writeln!(specs, "        '*{name}=-[{help}]:{action}' \\"),
                (_, _, true) => writeln!(specs, "        '*{name}=[{help}]{action}' \\"),
                _ => writeln!(specs, "        '*{name}+[{help}]{action}' \\"),
            };
        }
    }
    format!(
        r#"#compdef netkat

_netkat_interfaces() {{
    local -a names=("${{(@f)$({INTERFACES})}}")
    compadd -a names
}}

_netkat_hosts() {{
    local -a names=("${{(@f)$({HOSTS})}}")
    compadd -a names
}}

_netkat() {{
    _arguments -s -S \
{specs}        '*:HOST or PORT:_netkat_hosts'
}}

if [ "$funcstack[1]" = "_netkat" ]; then
    _netkat "$@"
else
    compdef _netkat netkat
fi
"#
    )
}

/// Returns the script for fish.
pub(super) fn fish(command: &Command) -> String {
    let mut script = format!(
        "function __netkat_interfaces\n    {INTERFACES}\nend\n\nfunction __netkat_hosts\n    {HOSTS}\nend\n\n\
         complete -c netkat -f -a '(__netkat_hosts)'\n"
    );
    for arg in flags(command) {
        let short = arg.get_short().map(|short| format!(" -s {short}")).unwrap_or_default();
        let long = arg.get_long().map(|long| format!(" -l {long}")).unwrap_or_default();
        let help = help(arg).replace('\\', "\\\\").replace('\'', "\\'");
        let values = match Values::of(arg) {
            Values::None => String::new(),
            Values::Free => " -x".to_owned(),
            Values::Files if arg.is_require_equals_set() => " -F".to_owned(),
            Values::Files => " -r -F".to_owned(),
            Values::Interfaces => " -x -a '(__netkat_interfaces)'".to_owned(),
            Values::Hosts => " -x -a '(__netkat_hosts)'".to_owned(),
            Values::Words(words) => format!(" -x -a '{}'", words.join(" ")),
        };
        let _ = writeln!(script, "complete -c netkat{short}{long}{values} -d '{help}'");
    }
    script
}
