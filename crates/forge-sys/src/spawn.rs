//! What a program is given between fork and exec: a session of its own, and an end together with its starter.

use crate::check_result;
use std::io;
use std::os::unix::process::CommandExt;

/// Makes a program start in a session of its own, without a controlling terminal, and unable to gain privileges.
///
/// A program that runs as another user can be controlled by that user's processes. In the caller's session it could
/// open the caller's terminal and type commands into it.
pub fn detach_on_exec(command: &mut impl CommandExt) {
    // SAFETY: the closure runs between fork and exec and calls only setsid and prctl, which are async-signal-safe and
    // touch no memory; it allocates nothing and takes no lock. `last_os_error` reads the thread's errno.
    unsafe {
        command.pre_exec(|| {
            check_result(libc::setsid().into())?;
            check_result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into()).map(drop)
        });
    }
}

/// Makes a program end with the thread that starts it: the kernel kills it as soon as that thread ends, also when the
/// process is killed.
///
/// The starting thread must wait for the program, or outlive it. Programs that the program starts are not included. A
/// later switch of ids would cancel this; `Command` switches ids before.
pub fn kill_on_thread_exit(command: &mut impl CommandExt) {
    let starter = std::process::id();
    // SAFETY: the closure runs between fork and exec and calls only prctl and getppid, which are async-signal-safe and
    // touch no memory; it allocates nothing and takes no lock. `last_os_error` reads the thread's errno.
    unsafe {
        command.pre_exec(move || {
            let signal = libc::SIGKILL as libc::c_ulong;
            check_result(libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0).into())?;
            // A starter that ended before the call sends no signal.
            if u32::try_from(libc::getppid()) == Ok(starter) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests start programs of the system")]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    #[test]
    fn a_detached_program_has_no_terminal_and_gains_nothing() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "cut -d' ' -f1,6,7 /proc/$$/stat; grep NoNewPrivs /proc/$$/status"]);
        detach_on_exec(&mut shell);
        let told = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        let numbers: Vec<&str> = told.lines().next().unwrap().split(' ').collect();
        assert_eq!((numbers[0], numbers[2]), (numbers[1], "0"), "{told}");
        assert!(told.contains("NoNewPrivs:\t1"), "{told}");
    }

    #[test]
    fn a_program_ends_with_the_thread_that_started_it_and_not_before() {
        let mut program = Command::new("sleep");
        program.arg("600");
        detach_on_exec(&mut program);
        kill_on_thread_exit(&mut program);
        let (mut child, was) = std::thread::spawn(move || {
            let mut child = program.spawn().unwrap();
            let was = child.try_wait().unwrap();
            (child, was)
        })
        .join()
        .unwrap();
        assert_eq!(was, None);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
