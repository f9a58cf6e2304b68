//! Private files: those that record a connection's data are readable for their owner alone.
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Mode of new files, whatever the umask allows: netkat's privileges show it data that other users must not
/// see.
const OWNER_ONLY: u32 = 0o600;

/// The permissions of group and others.
const NOT_OWNER: u32 = 0o077;

/// Opens a file for writing, at its end if `append`, else emptied. A new file has mode 0600 from its
/// creation; an existing file keeps its owner and mode. `flags` are added to open(2)'s.
///
/// # Errors
/// Those of open(2).
pub(crate) fn open(path: &Path, append: bool, flags: i32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(append).write(true).truncate(!append).mode(OWNER_ONLY).custom_flags(flags);
    let file = options.open(path)?;
    let found = file.metadata()?;
    let mode = found.permissions().mode() & 0o7777;
    if found.is_file() && mode & NOT_OWNER != 0 {
        log::info!("{} existed before and keeps its mode {mode:04o}", path.display());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, io::Write, process};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_its_owners_and_an_old_one_keeps_its_mode() {
        let folder = env::temp_dir().join(format!("netkat-private-file-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("file");
        for append in [false, true] {
            open(&path, append, 0).expect("new").write_all(b"one").expect("written");
            assert_eq!(mode(&path), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
            open(&path, append, 0).expect("old").write_all(b"two").expect("written");
            assert_eq!(mode(&path), 0o640);
            let expected: &[u8] = if append { b"onetwo" } else { b"two" };
            assert_eq!(fs::read(&path).expect("readable"), expected);
            fs::remove_file(&path).expect("removed");
        }
        fs::remove_dir(&folder).expect("removed");
        // A device is written to as it is.
        open(Path::new("/dev/null"), false, 0).expect("a device");
    }
}
