//! Network namespaces: work on a thread that has entered one.
use nix::sched::{CloneFlags, setns};
use std::{fs::File, io, thread};

/// Runs `work` on a thread of its own inside a network namespace, whose sockets stay there; without one, on
/// the calling thread.
///
/// # Errors
/// Those of setns(2), EPERM without CAP_SYS_ADMIN among them.
pub fn inside<T: Send>(namespace: Option<&File>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
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
