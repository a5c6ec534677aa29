//! No core dump of a process that has cards: its memory holds numbers and codes in the clear while they are sealed and opened,
//! and its master keys as long as it runs.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Keeps this process from leaving a core, and its memory from other processes of its user; `Err` with the first of both that
/// did not work. Its children leave no cores, either.
pub(crate) fn forbid() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    // The limit alone is nothing to a program that takes the cores of a whole machine, as that of systemd does.
    let hidden = hide();
    Ok(limited.and(hidden)?)
}

#[cfg(target_os = "linux")]
fn hide() -> rustix::io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

#[cfg(not(target_os = "linux"))]
fn hide() -> rustix::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::getrlimit;

    use super::*;

    #[test]
    fn a_process_that_forbids_cores_has_no_limit_to_raise_and_cannot_be_dumped() {
        forbid().unwrap();
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{DumpableBehavior, dumpable_behavior};
            assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        }
    }
}
