//! Compiles the eBPF programs' matcher for the host, with libFuzzer's coverage counters.

fn main() {
    println!("cargo:rerun-if-changed=matcher");
    println!("cargo:rerun-if-changed=../bpf");
    cc::Build::new()
        .compiler("clang")
        .file("matcher/matcher.c")
        .include("matcher/include")
        .include("../bpf")
        .flag("-fsanitize=fuzzer-no-link")
        .opt_level(2)
        .warnings(true)
        .extra_warnings(false)
        .warnings_into_errors(true)
        .compile("matcher");
}
