//! Programs of others on a packet's way, as the kernel lists them: at tc and tcx, XDP, control groups. Nothing
//! is run or changed.
use super::{
    bpf::{self, CgroupHook, TcHook},
    clsact,
};
use crate::{host::interface, text};
use std::{fmt, fs::File, io, os::fd::AsFd, path::Path};

/// Maximum length of a program's name, in characters.
const NAME: usize = 64;

/// The kind of a program at tcx that packets pass as they come in.
const TCX_INGRESS: &str = "tcx ingress program";
/// The beginning of the guards' names.
pub(super) const GUARD: &str = "netkat_guard";

/// A program, or a filter of tc, that a packet passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedProgram {
    /// The kind and place: "tcx egress program".
    pub kind: &'static str,
    /// The name, made safe for a terminal; by an id alone the kernel tells it only with CAP_SYS_ADMIN.
    pub name: Option<String>,
    /// The kernel's id of the program.
    pub id: Option<u32>,
}

impl ListedProgram {
    /// Returns whether this is the guard of a netkat that lives: one at clsact may be left by a dead one.
    pub(super) fn is_living_guard(&self) -> bool {
        self.kind == TCX_INGRESS && self.name.as_deref().is_some_and(|name| name.starts_with(GUARD))
    }
}

impl fmt::Display for ListedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        match (&self.name, self.id) {
            (Some(name), Some(id)) => write!(f, " {name} (id {id})"),
            (Some(name), None) => write!(f, " {name}"),
            (None, Some(id)) => write!(f, ", id {id}"),
            (None, None) => Ok(()),
        }
    }
}

/// Returns what packets pass that leave by an interface, behind netfilter, in its order.
pub(crate) fn egress_programs(interface: u32) -> Vec<ListedProgram> {
    traffic_control(interface, TcHook::Egress, "tcx egress program", "clsact egress program")
}

/// Returns what packets pass that come in by an interface, behind the packet sockets, in its order.
pub(crate) fn ingress_programs(interface: u32) -> Vec<ListedProgram> {
    traffic_control(interface, TcHook::Ingress, TCX_INGRESS, "clsact ingress program")
}

/// Returns the XDP programs of an interface, which packets pass before all else.
pub(crate) fn xdp_programs(interface: u32) -> Vec<ListedProgram> {
    let ids = interface::xdp_programs(interface).unwrap_or_else(|error| {
        log::debug!("cannot list XDP programs: {error}");
        Vec::new()
    });
    ids.into_iter().map(|id| of_id("XDP program", id)).collect()
}

/// Returns the programs that a control group's sockets pass at a hook, those of its ancestors included.
pub(crate) fn cgroup_programs(group: &Path, hook: CgroupHook) -> Vec<ListedProgram> {
    let kind = match hook {
        CgroupHook::Connect4 => "cgroup/connect4 program",
        CgroupHook::Connect6 => "cgroup/connect6 program",
        CgroupHook::Egress => "cgroup_skb egress program",
        CgroupHook::Ingress => "cgroup_skb ingress program",
    };
    let ids = File::open(group).and_then(|folder| bpf::attached_to_cgroup(folder.as_fd(), hook));
    listed(ids, "the programs of a control group").into_iter().map(|id| of_id(kind, id)).collect()
}

fn traffic_control(
    interface: u32,
    hook: TcHook,
    tcx: &'static str,
    classic: &'static str,
) -> Vec<ListedProgram> {
    let ids = listed(bpf::attached_tcx(interface, hook), "tcx programs");
    let mut programs: Vec<_> = ids.into_iter().map(|id| of_id(tcx, id)).collect();
    let filters = listed(clsact::list(interface, hook), "filters of tc");
    programs.extend(filters.into_iter().map(|filter| {
        let id = filter.program_id();
        // A filter's own name is what its maker chose: often a file.
        let name = id.and_then(|id| of_id(classic, id).name);
        ListedProgram { kind: classic, name: name.or(Some(text::beginning(&filter.name, NAME))), id }
    }));
    programs
}

fn of_id(kind: &'static str, id: u32) -> ListedProgram {
    let info = bpf::program_by_id(id).and_then(|program| bpf::program_info(program.as_fd()));
    let name = info.ok().map(|info| text::beginning(&info.name, NAME)).filter(|name| !name.is_empty());
    ListedProgram { kind, name, id: Some(id) }
}

/// Returns a list, or logs why there is none.
fn listed<T>(list: io::Result<Vec<T>>, what: &str) -> Vec<T> {
    list.unwrap_or_else(|error| {
        log::debug!("cannot list {what}: {error}");
        Vec::new()
    })
}
