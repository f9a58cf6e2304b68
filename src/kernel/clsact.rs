//! Filters at an interface's clsact qdisc, for kernels without tcx.
//!
//! A clsact filter outlives its process, so its name tells a later netkat what to do with it:
//! `netkat_guard/OWNER`, and `/qdisc` after it if netkat made the qdisc. Each start removes the filters
//! whose owner is dead; until then the programs' heartbeat check keeps them inert.
//!
//! A qdisc that netkat made is removed with its last filter. Any netkat that finds such a qdisc with a
//! filter so marked marks its own filter, too, so the netkats may end in any order. A qdisc of others is
//! never removed.
//!
//! Making the qdisc and marking it are two steps, as are finding it unused and removing it. A
//! [lock](ClsactLock) keeps netkats from interleaving them. The last filter goes together with the qdisc,
//! in one step, so that no end of the process leaves a qdisc without its mark.

use super::{bpf::TcHook, clsact_lock::ClsactLock, liveness::LivenessSocket};
use crate::host::netlink::Netlink;
use libbpf_rs::libbpf_sys::BPF_OBJ_NAME_LEN;
use log::{debug, info, warn};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    rc::Rc,
};

/// Priorities to try. The lowest runs first, but a filter of another kind may have it.
const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=16;
/// Mark in the name of a filter whose qdisc netkat made.
const QDISC_MARK: &str = "qdisc";

/// A filter of ours; dropping it removes it.
#[derive(Debug)]
pub(super) struct ClsactFilter {
    interface: u32,
    hook: TcHook,
    name: String,
    owns_qdisc: bool,
    /// Taken for the removal.
    lock: ClsactLock,
    _owner: Rc<LivenessSocket>,
}

/// A filter on an interface, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedFilter {
    /// The filter's name, else its kind ("flower").
    pub name: String,
    message: TcMessage,
}

impl ListedFilter {
    /// Returns the kernel's id of the filter's program, if it is one.
    pub(super) fn program_id(&self) -> Option<u32> {
        let options = self.message.attributes.iter().filter_map(|a| match a {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        options.flatten().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        })
    }
}

impl ClsactFilter {
    /// Attaches a program, whose name is `label`, in front of other clsact filters, and makes the qdisc
    /// where it is missing.
    ///
    /// # Errors
    /// The kernel's: EPERM without CAP_NET_ADMIN, ENODEV without the interface.
    pub(super) fn attach(
        program: BorrowedFd,
        label: &str,
        owner: Rc<LivenessSocket>,
        interface: u32,
        hook: TcHook,
    ) -> io::Result<ClsactFilter> {
        let mut lock = ClsactLock::new(interface)?;
        lock.lock();
        let owns_qdisc = create_qdisc(interface, hook)?;
        let mut name = format!("{label}/{}", owner.id());
        if owns_qdisc {
            name.push('/');
            name.push_str(QDISC_MARK);
        }
        // Made before the kernel's filter: if that fails, dropping the value removes the qdisc.
        let mut filter = ClsactFilter { interface, hook, name, owns_qdisc, lock, _owner: owner };
        filter.add(program)?;
        // Released, and taken again for the removal.
        filter.lock = ClsactLock::new(interface)?;
        Ok(filter)
    }

    fn add(&self, program: BorrowedFd) -> io::Result<()> {
        add(program, &self.name, self.interface, self.hook)
    }

    /// Returns the filters that run before this one.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn earlier_programs(&self) -> io::Result<Vec<ListedFilter>> {
        let mut filters = list(self.interface, self.hook)?;
        let ours = filters.iter().position(|f| f.name == self.name).unwrap_or(filters.len());
        filters.truncate(ours);
        Ok(filters)
    }

    fn remove(&mut self) -> io::Result<()> {
        self.lock.lock();
        // Two filters of this name are the same program twice: either will do.
        let ours = list(self.interface, self.hook)?.into_iter().find(|f| f.name == self.name);
        remove(self.interface, ours.into_iter().collect(), self.owns_qdisc)
    }
}

impl Drop for ClsactFilter {
    fn drop(&mut self) {
        match self.remove() {
            Ok(()) => debug!("removed {} from clsact of interface {}", self.name, self.interface),
            Err(e) if is_gone(&e) => debug!("interface {} took {} with it", self.interface, self.name),
            Err(e) => warn!(
                "cannot remove {} from clsact of interface {}: {e}; it is inert now, and the next netkat \
                 on that interface removes it",
                self.name, self.interface
            ),
        }
    }
}

/// Attaches a program at ingress of an interface of ours, with which it goes.
///
/// # Errors
/// The kernel's: EPERM without CAP_NET_ADMIN, ENOENT where it has no clsact.
pub(super) fn attach_for_good(program: BorrowedFd, label: &str, interface: u32) -> io::Result<()> {
    change(Message::NewQueueDiscipline(qdisc(interface, "clsact")), NLM_F_CREATE | NLM_F_EXCL)?;
    add(program, label, interface, TcHook::Ingress)
}

/// Adds a filter, in front of the others where its priority is free.
fn add(program: BorrowedFd, name: &str, interface: u32, hook: TcHook) -> io::Result<()> {
    let fd = u32::try_from(program.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut result = Ok(());
    for priority in PRIORITIES {
        let mut message = request(interface, parent(hook), "bpf");
        // tcm_info: priority and protocol, in network order (man 8 tc-bpf; net/sched/cls_api.c).
        message.header.info = priority << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(fd)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        result = change(Message::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_EXCL);
        match &result {
            // A filter of another kind or protocol has this priority.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EEXIST | libc::ENOENT)) => {
                debug!("clsact priority {priority} of interface {interface} is taken: {e}");
            }
            _ => return result,
        }
    }
    result
}

/// Removes what dead netkats left on an interface.
///
/// # Errors
/// The kernel's.
pub(super) fn remove_leftovers(interface: u32) -> io::Result<()> {
    if leftovers(interface)?.is_empty() {
        return Ok(());
    }
    let mut lock = ClsactLock::new(interface)?;
    lock.lock();
    let (marks, filters): (Vec<_>, Vec<_>) = leftovers(interface)?.into_iter().unzip();
    for filter in &filters {
        info!("removing {} that a dead netkat left on interface {interface}", filter.name);
    }
    remove(interface, filters, marks.iter().any(|mark| mark.owns_qdisc))
}

fn leftovers(interface: u32) -> io::Result<Vec<(Mark, ListedFilter)>> {
    let filters = all(interface)?.into_iter().filter_map(|filter| Some((Mark::parse(&filter.name)?, filter)));
    Ok(filters.filter(|(mark, _)| !LivenessSocket::is_alive(mark.owner)).collect())
}

/// The parts of the name of a netkat's filter.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    owner: u32,
    owns_qdisc: bool,
}

impl Mark {
    fn parse(name: &str) -> Option<Mark> {
        let mut parts = name.split('/');
        let program = parts.next()?;
        if !program.starts_with("netkat_") || program.len() >= BPF_OBJ_NAME_LEN as usize {
            return None;
        }
        let owner = parts.next()?.parse().ok()?;
        let owns_qdisc = match parts.next() {
            None => false,
            Some(QDISC_MARK) => true,
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Mark { owner, owns_qdisc })
    }
}

/// Sends the kernel a request for a change.
fn change(request: Message, flags: u16) -> io::Result<()> {
    Netlink::open()?.request(request, flags)?;
    Ok(())
}

/// Returns all objects of a kind.
fn dump(request: Message) -> io::Result<Vec<Message>> {
    Ok(Netlink::open()?.dump(request)?)
}

/// Makes the clsact qdisc if there is none. Returns whether netkat has to remove it.
fn create_qdisc(interface: u32, hook: TcHook) -> io::Result<bool> {
    let message = Message::NewQueueDiscipline(qdisc(interface, "clsact"));
    match change(message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) => {}
    }
    // The older ingress qdisc takes the same place and has no egress side.
    if hook == TcHook::Egress && has_ingress_qdisc(interface)? {
        return Err(io::Error::other(
            "an ingress qdisc is in the place of clsact; replace it (tc qdisc replace dev … clsact)",
        ));
    }
    Ok(all(interface)?.iter().any(|f| Mark::parse(&f.name).is_some_and(|m| m.owns_qdisc)))
}

fn has_ingress_qdisc(interface: u32) -> io::Result<bool> {
    let request = Message::GetQueueDiscipline(TcMessage::default());
    Ok(dump(request)?.into_iter().any(|answer| {
        matches!(answer, Message::NewQueueDiscipline(m)
            if is_index(&m, interface) && m.attributes.contains(&TcAttribute::Kind("ingress".to_owned())))
    }))
}

/// Removes filters of an interface, and with them the qdisc if it `is_ours` and has no others.
fn remove(interface: u32, filters: Vec<ListedFilter>, is_ours: bool) -> io::Result<()> {
    if is_ours && all(interface)?.len() <= filters.len() {
        let message = Message::DelQueueDiscipline(qdisc(interface, "clsact"));
        return match change(message, 0) {
            // Another netkat has removed it.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
            result => result,
        };
    }
    filters.into_iter().try_for_each(remove_filter)
}

fn remove_filter(filter: ListedFilter) -> io::Result<()> {
    let TcMessage { header, .. } = filter.message;
    let mut message = TcMessage::default();
    message.header = header;
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    match change(Message::DelTrafficFilter(message), 0) {
        // Another netkat has removed it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns the filters of both sides.
fn all(interface: u32) -> io::Result<Vec<ListedFilter>> {
    let mut filters = list(interface, TcHook::Ingress)?;
    filters.extend(list(interface, TcHook::Egress)?);
    Ok(filters)
}

/// Returns the filters of one side of an interface's clsact (or ingress) qdisc, in the order in which they
/// run.
///
/// # Errors
/// The kernel's refusal, or the failure of the netlink socket.
pub(super) fn list(interface: u32, hook: TcHook) -> io::Result<Vec<ListedFilter>> {
    let mut message = TcMessage::default();
    message.header.index = index(interface)?;
    message.header.parent = parent(hook);
    Ok(read(interface, dump(Message::GetTrafficFilter(message))?))
}

/// Returns the names, or else the kinds, of an interface's filters in the kernel's answer to a dump
/// (RTM_GETTFILTER).
pub fn filter_names(interface: u32, answers: Vec<Message>) -> Vec<String> {
    read(interface, answers).into_iter().map(|filter| filter.name).collect()
}

fn read(interface: u32, answers: Vec<Message>) -> Vec<ListedFilter> {
    let filters = answers.into_iter().filter_map(|answer| match answer {
        // The kernel lists a classifier as a whole, with handle 0, before its filters.
        Message::NewTrafficFilter(m) if m.header.handle != TcHandle::UNSPEC && is_index(&m, interface) => {
            Some(ListedFilter { name: name_of(&m), message: m })
        }
        _ => None,
    });
    filters.collect()
}

fn name_of(message: &TcMessage) -> String {
    let options = message.attributes.iter().filter_map(|a| match a {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let name = options.flatten().find_map(|o| match o {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    });
    let kind = || {
        message.attributes.iter().find_map(|a| match a {
            TcAttribute::Kind(kind) => Some(kind.clone()),
            _ => None,
        })
    };
    name.or_else(kind).unwrap_or_else(|| "a filter without a name".to_owned())
}

fn request(interface: u32, parent: TcHandle, kind: &str) -> TcMessage {
    let header = TcHeader { index: interface.cast_signed(), parent, ..TcHeader::default() };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(kind.to_owned())])
}

fn qdisc(interface: u32, kind: &str) -> TcMessage {
    let mut message = request(interface, TcHandle::CLSACT, kind);
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message
}

fn parent(hook: TcHook) -> TcHandle {
    let minor = match hook {
        TcHook::Ingress => TcHandle::MIN_INGRESS,
        TcHook::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

fn is_index(message: &TcMessage, interface: u32) -> bool {
    message.header.index == interface.cast_signed()
}

fn index(interface: u32) -> io::Result<i32> {
    i32::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Returns whether an error means that the interface is gone, and its filters with it.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_marks() {
        assert_eq!(Mark::parse("netkat_guard/7"), Some(Mark { owner: 7, owns_qdisc: false }));
        assert_eq!(Mark::parse("netkat_loopback/7/qdisc"), Some(Mark { owner: 7, owns_qdisc: true }));
        for name in
            ["netkat_guard", "netkat_guard:[7]", "netkat_guard/", "netkat_guard/7/", "netkat_guard/7/qdisc/x"]
        {
            assert_eq!(Mark::parse(name), None, "{name}");
        }
        assert_eq!(Mark::parse("cil_from_netdev/7/qdisc"), None);
    }
}
