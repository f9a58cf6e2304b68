//! The user and groups of this process: root's until everything is open, then those of sudo's caller or of
//! nobody.
use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{
        Gid, Uid, User, getegid, geteuid, getgid, getgrouplist, getgroups, getresgid, getresuid, getuid,
        setgroups, setresgid, setresuid,
    },
};
use std::{
    env,
    ffi::{CString, OsString},
};

/// User and group that own nothing in every user namespace (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65_534;

/// (uid_t) -1, which is no user or group: setresuid(2) and setresgid(2) leave an id unchanged for it.
const UNCHANGED: u32 = u32::MAX;

/// The reason why the identity cannot change.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A variable of sudo's holds no id.
    #[error("{name} is {value:?}, not an id from 0 to 4294967294: unset it or start netkat by sudo(8)")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// One of sudo's variables is missing.
    #[error("{present} is set and {missing} is not: unset it or start netkat by sudo(8)")]
    Incomplete {
        /// The variable that is set.
        present: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// The kernel refused a step.
    #[error("cannot {step} to become user {uid}: {source}")]
    Refused {
        /// The step, as a verb phrase.
        step: &'static str,
        /// The wanted user.
        uid: Uid,
        /// The kernel's error.
        source: Errno,
    },
    /// The kernel refused nothing, and the identity is still another.
    #[error(
        "cannot become user {uid}: the kernel reported success, but {what} is {found}; a seccomp filter may pretend it"
    )]
    Pretended {
        /// The wanted user.
        uid: Uid,
        /// The part of the identity that is wrong.
        what: &'static str,
        /// The value found instead.
        found: String,
    },
}

/// Becomes the user who called sudo (SUDO_UID, SUDO_GID; sudo(8)), with that user's groups. Permitted
/// capabilities stay; call [`super::capability::drop_all`] next. Changes nothing without sudo, or if this
/// process is not root's.
///
/// # Errors
/// [`IdentityError`]: malformed variables, the kernel's refusal, or an identity that has not changed.
pub(crate) fn become_invoker() -> Result<(), IdentityError> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let Some((uid, gid)) = invoker()? else { return Ok(()) };
    let groups = groups_of(uid, gid);
    setgroups(&groups).map_err(|source| IdentityError::Refused {
        step: "set supplementary groups",
        uid,
        source,
    })?;
    change(uid, gid)?;
    verify_groups(uid, &groups)?;
    log::info!("going on as user {uid}, group {gid}");
    Ok(())
}

/// Becomes the user and group who called sudo, else nobody, without supplementary groups. Changes nothing
/// if this process is not root's, or where the kernel refuses (no CAP_SETUID, a user namespace without such
/// a user).
///
/// # Errors
/// Malformed variables, or [`IdentityError::Pretended`].
pub(crate) fn renounce_root() -> Result<(), IdentityError> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = invoker()?.unwrap_or((Uid::from_raw(NOBODY), Gid::from_raw(NOBODY)));
    match setgroups(&[]) {
        Ok(()) => verify_groups(uid, &[])?,
        Err(error) => log::debug!("sandbox: keeps its supplementary groups: {error}"),
    }
    match change(uid, gid) {
        Ok(()) => log::debug!("sandbox: going on as user {uid}, group {gid}"),
        Err(error @ IdentityError::Refused { .. }) => log::debug!("sandbox: {error}"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Returns the user who started this process, unless that was root. The kernel knows who runs a set-user-ID
/// file, so the variables, which that user may choose, do not count there.
fn invoker() -> Result<Option<(Uid, Gid)>, IdentityError> {
    if !getuid().is_root() {
        return Ok(Some((getuid(), getgid())));
    }
    caller(env::var_os("SUDO_UID"), env::var_os("SUDO_GID"))
}

/// Returns the user and group that sudo's variables name; `None` for root and without sudo.
fn caller(uid: Option<OsString>, gid: Option<OsString>) -> Result<Option<(Uid, Gid)>, IdentityError> {
    let uid = uid.map(|value| id("SUDO_UID", value)).transpose()?;
    let gid = gid.map(|value| id("SUDO_GID", value)).transpose()?;
    let incomplete = |present, missing| Err(IdentityError::Incomplete { present, missing });
    match (uid, gid) {
        (None, None) | (Some(0), Some(_)) => Ok(None),
        (Some(uid), Some(gid)) => Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid)))),
        (Some(_), None) => incomplete("SUDO_UID", "SUDO_GID"),
        (None, Some(_)) => incomplete("SUDO_GID", "SUDO_UID"),
    }
}

/// Parses an id as sudo writes it: decimal digits and nothing else.
fn id(name: &'static str, value: OsString) -> Result<u32, IdentityError> {
    let digits = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .filter(|id| *id != UNCHANGED)
        .ok_or_else(|| IdentityError::Malformed { name, value: value.to_string_lossy().into_owned() })
}

/// Changes all three ids of user and group, and reads them back: a seccomp filter that pretends system
/// calls, as tools that build images without root install, would leave root's privileges in place.
fn change(uid: Uid, gid: Gid) -> Result<(), IdentityError> {
    let refused = |step| move |source| IdentityError::Refused { step, uid, source };
    prctl::set_keepcaps(true).map_err(refused("keep capabilities"))?;
    setresgid(gid, gid, gid).map_err(refused("set the group"))?;
    setresuid(uid, uid, uid).map_err(refused("set the user"))?;
    let group = getresgid().map_err(refused("read the group"))?;
    let user = getresuid().map_err(refused("read the user"))?;
    let pretended = |what, found| Err(IdentityError::Pretended { uid, what, found });
    if [group.real, group.effective, group.saved] != [gid; 3] {
        return pretended("the group", getegid().to_string());
    }
    if [user.real, user.effective, user.saved] != [uid; 3] {
        return pretended("the user", geteuid().to_string());
    }
    Ok(())
}

/// Checks that the supplementary groups are these, in any order.
fn verify_groups(uid: Uid, expected: &[Gid]) -> Result<(), IdentityError> {
    let found = getgroups().map_err(|source| IdentityError::Refused {
        step: "read supplementary groups",
        uid,
        source,
    })?;
    let sorted = |groups: &[Gid]| {
        let mut groups: Vec<u32> = groups.iter().map(|group| group.as_raw()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    };
    let found = sorted(&found);
    if found == sorted(expected) {
        return Ok(());
    }
    Err(IdentityError::Pretended { uid, what: "the list of groups", found: format!("{found:?}") })
}

/// Returns the groups of a user, `gid` among them; only `gid` where the user data base knows no such user
/// or cannot be read.
fn groups_of(uid: Uid, gid: Gid) -> Vec<Gid> {
    let groups = User::from_uid(uid).and_then(|user| {
        let name = user.and_then(|user| CString::new(user.name).ok());
        name.map(|name| getgrouplist(&name, gid)).transpose()
    });
    match groups {
        Ok(Some(groups)) => groups,
        Ok(None) => vec![gid],
        Err(error) => {
            log::debug!("cannot look up the groups of user {uid}: {error}");
            vec![gid]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn text(value: &str) -> Option<OsString> {
        Some(value.into())
    }

    #[test]
    fn sudo_names_a_user_and_a_group() {
        let named = |uid, gid| caller(text(uid), text(gid)).expect("well formed");
        let user = |uid, gid| Some((Uid::from_raw(uid), Gid::from_raw(gid)));
        assert_eq!(named("1000", "1001"), user(1000, 1001));
        // A user's own group may be root's.
        assert_eq!(named("1000", "0"), user(1000, 0));
        assert_eq!(named("4294967294", "4294967294"), user(u32::MAX - 1, u32::MAX - 1));
        assert_eq!(named("0", "0"), None);
        assert_eq!(named("0", "1000"), None);
        assert_eq!(caller(None, None).expect("no sudo"), None);
    }

    /// Neither a no-change id, nor anything that merely begins with an id, nor half of a pair is anybody's.
    #[test]
    fn what_is_no_id_is_refused() {
        let wrong = [
            "4294967295",
            "-1",
            "",
            " ",
            "+1000",
            "-0",
            "1000 ",
            " 1000",
            "1000\n",
            "0x3e8",
            "1e3",
            "1000,1000",
            "nobody",
            "4294967296",
            "18446744073709551615",
            "18446744073709552616",
            "99999999999999999999999",
            "١٠٠٠",
        ];
        for value in wrong {
            for (uid, gid, name) in
                [(value, "1000", "SUDO_UID"), ("1000", value, "SUDO_GID"), ("0", value, "SUDO_GID")]
            {
                let error = caller(text(uid), text(gid)).expect_err(value).to_string();
                assert!(error.starts_with(&format!("{name} is {value:?}, not an id")), "{error}");
            }
        }
        let bytes = Some(OsString::from_vec(vec![b'1', 0xff]));
        assert!(caller(bytes, text("1000")).is_err());
        for (uid, gid) in [(text("1000"), None), (None, text("1000")), (text("0"), None)] {
            assert!(matches!(caller(uid, gid), Err(IdentityError::Incomplete { .. })));
        }
    }

    #[test]
    fn a_user_that_nobody_knows_has_the_one_group() {
        let unknown = Uid::from_raw(u32::MAX - 7);
        assert_eq!(groups_of(unknown, Gid::from_raw(54_322)), [Gid::from_raw(54_322)]);
    }

    #[test]
    fn groups_are_compared_as_sets() {
        let mut groups = getgroups().expect("readable");
        groups.reverse();
        groups.extend_from_within(..);
        verify_groups(getuid(), &groups).expect("the same set");
        groups.push(Gid::from_raw(54_323));
        let error = verify_groups(getuid(), &groups).expect_err("one more").to_string();
        assert!(error.contains("the list of groups is ["), "{error}");
    }
}
