//! Memory of an idle netkat.
use crate::support::{
    netkat::listening,
    requirements::lab,
    topology::{Family, Pair},
};
use std::fs;

/// Maximum memory, in KiB.
const LIMIT: u64 = 12 << 10;

#[test]
fn an_idle_listener_stays_within_twelve_mebibytes() {
    lab!();
    for arguments in ["", "-k", "-u"] {
        let pair = Pair::new();
        let at = pair.host_address(Family::V4);
        let listener = listening(&pair.host, &format!("{at} 5000 {arguments}"), |c| c);
        let status = fs::read_to_string(format!("/proc/{}/status", listener.id())).expect("its status");
        // VmHWM, the maximum so far, which includes the start.
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let peak: u64 = peak.and_then(|kib| kib.parse().ok()).expect("a number");
        assert!(peak <= LIMIT, "-l {arguments}: {peak} KiB");
    }
}
