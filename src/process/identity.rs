//! Whose process this is: root's until everything is open, then nobody's, or with sudo the user's who called it.
use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{Gid, Uid, User, geteuid, initgroups, setgroups, setresgid, setresuid},
};
use std::{env, ffi::CString};

/// The user and group that own nothing, in every user namespace (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65_534;

/// Why this process could not become another user's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{name} is \"{value}\", not a number: unset it or start netkat by sudo(8)")]
    Malformed { name: &'static str, value: String },
    #[error("cannot {step} to become user {uid}: {source}")]
    Refused { step: &'static str, uid: Uid, source: Errno },
}

/// Takes on the identity of the user who called sudo (SUDO_UID, SUDO_GID; sudo(8)), with that user's groups.
/// Capabilities that are permitted stay so; [`super::capability::drop_all`] comes next. Without sudo, or when
/// this process is not root's, nothing changes.
///
/// # Errors
/// Malformed variables, or a refusal of the kernel's.
pub fn become_invoker() -> Result<(), IdentityError> {
    let invoker = invoker()?;
    let Some((uid, gid)) = invoker.filter(|_| geteuid().is_root()) else { return Ok(()) };
    let groups = match user_name(uid) {
        Some(name) => initgroups(&name, gid),
        None => setgroups(&[gid]),
    };
    groups.map_err(|source| IdentityError::Refused { step: "set supplementary groups", uid, source })?;
    change(uid, gid)?;
    log::info!("going on as user {uid}, group {gid}");
    Ok(())
}

/// Stops being root: takes on the user and group who called sudo, else those of nobody, without any supplementary
/// group. Where this process may not (no CAP_SETUID, a user namespace without such a user), it goes on as it
/// is; so it does when it is not root's.
///
/// # Errors
/// Malformed variables.
pub fn renounce_root() -> Result<(), IdentityError> {
    let invoker = invoker()?;
    if !geteuid().is_root() {
        return Ok(());
    }
    if let Err(error) = setgroups(&[]) {
        log::debug!("sandbox: keeps its supplementary groups: {error}");
    }
    let (uid, gid) = invoker.unwrap_or((Uid::from_raw(NOBODY), Gid::from_raw(NOBODY)));
    match change(uid, gid) {
        Ok(()) => log::debug!("sandbox: going on as user {uid}, group {gid}"),
        Err(error) => log::debug!("sandbox: {error}"),
    }
    Ok(())
}

/// The user who called sudo, unless that was root.
fn invoker() -> Result<Option<(Uid, Gid)>, IdentityError> {
    Ok(match (id("SUDO_UID")?, id("SUDO_GID")?) {
        (Some(uid @ 1..), Some(gid)) => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => None,
    })
}

fn change(uid: Uid, gid: Gid) -> Result<(), IdentityError> {
    let refused = |step| move |source| IdentityError::Refused { step, uid, source };
    prctl::set_keepcaps(true).map_err(refused("keep capabilities"))?;
    setresgid(gid, gid, gid).map_err(refused("set the group"))?;
    setresuid(uid, uid, uid).map_err(refused("set the user"))
}

fn id(name: &'static str) -> Result<Option<u32>, IdentityError> {
    let Some(value) = env::var_os(name) else { return Ok(None) };
    let value = value.to_string_lossy().into_owned();
    match value.parse() {
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(IdentityError::Malformed { name, value }),
    }
}

fn user_name(uid: Uid) -> Option<CString> {
    let user = User::from_uid(uid).ok()??;
    CString::new(user.name).ok()
}
