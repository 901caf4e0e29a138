//! Execution of unlisted programs by means that no command line offers.

use super::controls::program_output;
use crate::attempts::{AttemptOutcome, execute_at};
use crate::host_facts::{HostFacts, probe_failed, probe_passed, probe_untested};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// Executes a program from a memory file, which is not in any file system.
pub(crate) fn memory_file(_: &HostFacts) -> AttemptOutcome {
    let Some(id) = ["/usr/bin/id", "/bin/id"].map(Path::new).into_iter().find(|id| id.exists()) else {
        return AttemptOutcome::NotApplicable("the sandbox has no `id`".to_owned());
    };
    let made = rustix::fs::memfd_create("program", rustix::fs::MemfdFlags::empty());
    let mut file = match made {
        Ok(file) => std::fs::File::from(file),
        Err(errno) => return probe_passed(format!("no memory file: {errno}")),
    };
    if let Err(error) = std::fs::read(id).and_then(|bytes| file.write_all(&bytes)) {
        return probe_untested(error);
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match program_output(&path) {
        Ok(text) if text.contains("uid=") => probe_failed("it was executed"),
        Ok(text) => probe_passed(format!("it printed {text:?}")),
        Err(error) => probe_passed(error),
    }
}

/// Executes a program through an open descriptor.
pub(crate) fn by_descriptor(_: &HostFacts) -> AttemptOutcome {
    let Some(id) = [c"/usr/bin/id", c"/bin/id"]
        .into_iter()
        .find(|id| rustix::fs::access(*id, rustix::fs::Access::EXISTS).is_ok())
    else {
        return AttemptOutcome::NotApplicable("the sandbox has no `id`".to_owned());
    };
    execute_at(id)
}
