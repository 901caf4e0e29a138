//! Hidden input: a prompt for text that is not shown on the screen.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

/// Bytes of Ctrl-C, Ctrl-D, Ctrl-U and the erase keys.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const ERASE_KEYS: [u8; 2] = [8, 127];
/// Maximum length of the input, more than a user types or pastes.
const MAX_INPUT_BYTES: usize = 64 << 10;

/// A guard that restores the mode of the terminal when dropped.
struct NoEchoGuard<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> NoEchoGuard<'a> {
    /// Turns off echo, line editing and signal keys. Ctrl-C is read as a key, so that the terminal is restored before
    /// the program ends.
    fn new(terminal: &'a File) -> Option<Self> {
        let before = tcgetattr(terminal).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Drain, &quiet).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for NoEchoGuard<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Asks for a line on the controlling terminal, even if stdin and stdout are redirected. Returns `None` without a
/// terminal, or if the user cancels.
pub(crate) fn read_hidden_line(question: &str) -> Option<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    let reading = terminal.try_clone().ok()?;
    let quiet = NoEchoGuard::new(&reading)?;
    terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()).ok()?;
    let answer = read_until_enter(&reading);
    drop(quiet);
    // The user's own newline was not echoed.
    let _ = terminal.write_all(b"\n");
    String::from_utf8(answer?).ok()
}

/// Reads keys up to the end of the line.
fn read_until_enter(mut terminal: &File) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut key = [0];
    loop {
        if terminal.read(&mut key).ok()? == 0 {
            return None;
        }
        match key[0] {
            b'\r' | b'\n' => return Some(line),
            CTRL_C => return None,
            CTRL_D if line.is_empty() => return None,
            CTRL_D => {}
            CTRL_U => line.clear(),
            key if ERASE_KEYS.contains(&key) => {
                // Remove all bytes of the last character.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            key if line.len() < MAX_INPUT_BYTES => line.push(key),
            _ => return None,
        }
    }
}
