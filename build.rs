//! Compiles the eBPF programs and writes their skeletons to `OUT_DIR`, as `netkat.skel.rs`.
use libbpf_cargo::SkeletonBuilder;
use std::{env, path::PathBuf, process::Command};

/// The objects: `bpf/NAME.bpf.c`. Each run loads only the ones that it needs.
const OBJECTS: [&str; 2] = ["netkat", "drops"];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // The kernel's headers include <asm/types.h>. Debian keeps it in the multiarch folder, which
    // clang does not search when it compiles for another target, such as bpf.
    let mut args = vec!["-Wall".to_owned(), "-Werror".to_owned()];
    // The programs' line information goes into the binary, which must not contain this folder's
    // name.
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    args.push(format!("-ffile-prefix-map={here}=."));
    if let Some(triple) = multiarch() {
        args.extend(["-idirafter".to_owned(), format!("/usr/include/{triple}")]);
    }
    for name in OBJECTS {
        let (source, skeleton) = (format!("bpf/{name}.bpf.c"), out.join(format!("{name}.skel.rs")));
        SkeletonBuilder::new().source(&source).clang_args(&args).build_and_generate(skeleton).unwrap_or_else(
            |e| panic!("cannot compile {source} (scripts/setup installs clang and the headers): {e:#}"),
        );
    }
}

/// Returns the C compiler's multiarch triple ("x86_64-linux-gnu"), or `None` without multiarch.
fn multiarch() -> Option<String> {
    let out = Command::new("gcc").arg("-print-multiarch").output().ok()?;
    let triple = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (!triple.is_empty()).then_some(triple)
}
