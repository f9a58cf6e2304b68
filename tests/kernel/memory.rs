//! Buffers of connections: the C library maps each alone, so pages that nothing uses cost nothing.
use netkat::kernel;
use std::{fs, hint::black_box};

/// Size of a buffer, in bytes: below glibc's initial threshold for mmap(2).
const BUFFER: usize = 64 << 10;
/// Number of buffers: 64 MiB together.
const COUNT: usize = 1024;

/// Returns this process's resident memory, in bytes (proc_pid_statm(5)).
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: usize = statm.split(' ').nth(1).expect("a second field").parse().expect("a number");
    pages * 4096
}

#[test]
fn ended_connections_leave_no_memory_and_new_buffers_take_none() {
    kernel::map_large_buffers();
    let start = resident();
    // Allocations that outlive the buffers lie between them.
    let mut kept = Vec::new();
    let used: Vec<_> = (0..COUNT)
        .map(|_| {
            kept.push(Box::new([1_u8; 100]));
            vec![1_u8; BUFFER]
        })
        .collect();
    assert!(black_box(&used).len() == COUNT && resident() > start + COUNT * BUFFER / 2);
    drop(used);
    let ended = resident().saturating_sub(start);
    let fresh: Vec<_> = (0..COUNT).map(|_| vec![0_u8; BUFFER]).collect();
    let begun = resident().saturating_sub(start);
    assert!(black_box(fresh).len() == black_box(kept).len());
    assert!(ended < COUNT * BUFFER / 4, "{ended} bytes stay");
    assert!(begun < COUNT * BUFFER / 4, "{begun} bytes for buffers that nothing has used");
}
