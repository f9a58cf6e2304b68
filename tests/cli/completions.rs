//! Completions, in the shells that run them.
use super::{available, printed};
use std::{path::PathBuf, process::Command};

/// Flags that users do not see.
const HIDDEN: [&str; 2] = ["--guard", "--without"];

/// A folder with a shell's script and a file that no completion of a name should offer.
struct Folder(PathBuf);

impl Folder {
    fn new(shell: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("netkat-completions-{shell}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("script"), printed(&["--generate", shell])).expect("the script");
        std::fs::write(folder.join("a-file"), "").expect("a file");
        Folder(folder)
    }

    /// Runs a shell's line in the folder, and returns what it prints.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).current_dir(&self.0).output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Checks a shell's offers behind words.
fn check(offered: impl Fn(&[&str]) -> Vec<String>) {
    let has = |words: &[&str], wanted: &str| {
        let words_offered = offered(words);
        assert!(words_offered.iter().any(|word| word == wanted), "{words:?}: {words_offered:?}");
        assert!(!words_offered.iter().any(|word| word == "a-file"), "{words:?}: {words_offered:?}");
    };
    has(&["-i", ""], "lo");
    has(&["--interface", "l"], "lo");
    has(&["--congestion", ""], "bbr");
    has(&["--dump", ""], "xx");
    has(&["--exit-v"], "--exit-verdict");
    has(&["--via", "localh"], "localhost");
    has(&["localh"], "localhost");
    for flag in HIDDEN {
        assert_eq!(offered(&[flag]), Vec::<String>::new(), "{flag}");
    }
    assert!(offered(&["--pcap", "a-f"]).iter().any(|word| word == "a-file"));
}

#[test]
fn bash_completes_names_and_no_hidden_flag() {
    if !available("bash") {
        return;
    }
    let folder = Folder::new("bash");
    // As readline calls the function; files are bash's own where the function asks for them.
    let line = r#"compopt() { COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); }
        . ./script; COMP_WORDS=(netkat "$@"); COMP_CWORD=$#
        _netkat netkat "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        ((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}""#;
    let offered = |words: &[&str]| {
        let text = folder.run("bash", &[&["-c", line, "bash"], words].concat());
        text.lines().map(str::to_owned).collect()
    };
    check(offered);
    // Readline parts a word at its equals sign.
    assert!(offered(&["--interface", "=", "l"]).contains(&"lo".to_owned()));
    assert_eq!(offered(&["--json", "=", "a-f"]), ["a-file"]);
}

#[test]
fn fish_completes_names_and_no_hidden_flag() {
    if !available("fish") {
        return;
    }
    let folder = Folder::new("fish");
    check(|words| {
        let line = format!("source script; complete -C 'netkat {}'", words.join(" "));
        let text = folder.run("fish", &["--no-config", "-c", &line]);
        text.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
    });
}

/// zsh completes on a terminal of its own alone, so its words come from there.
#[test]
fn zsh_completes_names_and_no_hidden_flag() {
    if !available("zsh") {
        return;
    }
    let folder = Folder::new("zsh");
    let driver = r#"zmodload zsh/zpty
        zpty -b shell zsh -f -i
        zpty -w shell "PS1=; stty -echo; autoload -U compinit; compinit -u -D; source ./script; cd $PWD"
        zpty -w shell "compadd() { builtin compadd -A found \"\$@\"; print -l '' begin \$found end; builtin compadd \"\$@\" }"
        zpty -w shell "print -r -- set-''up"
        zpty -r -m shell seen '*set-up*'
        zpty -w -n shell "netkat $*"$'\t'
        zpty -w shell $'\x15'"print -r -- al-''over"
        zpty -r -m shell seen '*al-over*'
        print -r -- "$seen"
        zpty -d shell"#;
    check(|words| {
        let text = folder.run("zsh", &[&["-f", "-c", driver, "zsh"], words].concat());
        let mut inside = false;
        let lines = text.lines().map(|line| line.trim_matches(|c: char| c.is_control()));
        lines
            .filter(|line| {
                match *line {
                    "begin" => inside = true,
                    "end" => inside = false,
                    _ => return inside,
                }
                false
            })
            .map(str::to_owned)
            .collect()
    });
}
