//! Whose process this is: with sudo, the user who called it, as soon as root is no longer needed.
use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{Gid, Uid, User, geteuid, initgroups, setgroups, setresgid, setresuid},
};
use std::{env, ffi::CString};

/// Why this process could not become the invoking user's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{name} is \"{value}\", not a number: unset it or start netkat by sudo(8)")]
    Malformed { name: &'static str, value: String },
    #[error("cannot {step} to become user {uid}, who called sudo: {source}")]
    Refused { step: &'static str, uid: Uid, source: Errno },
}

/// Takes on the identity of the user who called sudo (SUDO_UID, SUDO_GID; sudo(8)), with that user's groups.
/// Capabilities that are permitted stay so; [`super::capability::drop_all`] comes next. Without sudo, or when
/// this process is not root's, nothing changes.
///
/// # Errors
/// Malformed variables, or a refusal of the kernel's.
pub fn become_invoker() -> Result<(), IdentityError> {
    let (Some(uid), Some(gid)) = (id("SUDO_UID")?, id("SUDO_GID")?) else { return Ok(()) };
    if !geteuid().is_root() || uid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let refused = |step| move |source| IdentityError::Refused { step, uid, source };
    prctl::set_keepcaps(true).map_err(refused("keep capabilities"))?;
    match user_name(uid) {
        Some(name) => initgroups(&name, gid),
        None => setgroups(&[gid]),
    }
    .map_err(refused("set supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(refused("set the group"))?;
    setresuid(uid, uid, uid).map_err(refused("set the user"))?;
    log::info!("going on as user {uid}, group {gid}");
    Ok(())
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
