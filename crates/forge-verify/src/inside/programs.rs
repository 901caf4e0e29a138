//! Programs that a list does not name, executed by ways that no command line has.

use super::controls::program_output;
use crate::attempts::{AttemptOutcome, execute_at};
use crate::host_facts::{HostFacts, probe_failed, probe_passed, probe_untested};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// A program is executed out of a memory file, which lies in no file system.
pub(crate) fn memory_file(_: &HostFacts) -> AttemptOutcome {
    let Some(id) = ["/usr/bin/id", "/bin/id"].map(Path::new).into_iter().find(|id| id.exists()) else {
        return AttemptOutcome::NotApplicable("there is no `id` in the box".to_owned());
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
        Ok(text) => probe_passed(format!("it said {text:?}")),
        Err(error) => probe_passed(error),
    }
}

/// A program is executed by the descriptor that it is open on.
pub(crate) fn by_descriptor(_: &HostFacts) -> AttemptOutcome {
    let Some(id) = [c"/usr/bin/id", c"/bin/id"]
        .into_iter()
        .find(|id| rustix::fs::access(*id, rustix::fs::Access::EXISTS).is_ok())
    else {
        return AttemptOutcome::NotApplicable("there is no `id` in the box".to_owned());
    };
    execute_at(id)
}
