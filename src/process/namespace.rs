//! Network namespaces: work on a thread that has entered one.
use nix::sched::{CloneFlags, setns};
use std::{fs::File, io, os::unix::fs::MetadataExt, path::Path, thread};

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Enters a network namespace with the calling thread. Returns the one that it leaves; `None` if it was there
/// already.
///
/// # Errors
/// Those of open(2) and setns(2), EPERM without CAP_SYS_ADMIN among them.
pub(crate) fn enter(path: &Path) -> io::Result<Option<File>> {
    let (own, other) = (File::open(OWN)?, File::open(path)?);
    if own.metadata()?.ino() == other.metadata()?.ino() {
        return Ok(None);
    }
    setns(&other, CloneFlags::CLONE_NEWNET)?;
    Ok(Some(own))
}

/// Returns the number of the calling thread's network namespace, as /proc shows it.
pub(crate) fn number() -> u64 {
    File::open(OWN).and_then(|file| file.metadata()).map_or(0, |metadata| metadata.ino())
}

/// Runs `work` on a thread of its own inside a network namespace, whose sockets stay there; without one, on
/// the calling thread.
///
/// # Errors
/// Those of setns(2), EPERM without CAP_SYS_ADMIN among them.
pub(crate) fn inside<T: Send>(namespace: Option<&File>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(file) = namespace else { return Ok(work()) };
    let result = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Ok::<T, io::Error>(work())
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
