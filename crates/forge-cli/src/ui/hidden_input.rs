//! Asking for something that nobody may see, not even on the screen.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

/// Ctrl-C, Ctrl-D, Ctrl-U and the keys that rub out.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const ERASE_KEYS: [u8; 2] = [8, 127];
/// More than anybody types or pastes.
const MAX_INPUT_BYTES: usize = 64 << 10;

/// The terminal as it was, put back when this goes away.
struct NoEchoGuard<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> NoEchoGuard<'a> {
    /// Shows nothing that is typed and gives every key at once; Ctrl-C is read like any other, so that the terminal is
    /// put back first.
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
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Asks for a line on the controlling terminal, wherever stdin and stdout go. `None` without one, or when the person
/// gives up.
pub(super) fn read_hidden_line(question: &str) -> Option<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    let reading = terminal.try_clone().ok()?;
    let quiet = NoEchoGuard::new(&reading)?;
    terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()).ok()?;
    let answer = read_until_enter(&reading);
    drop(quiet);
    // The person's own line end was not shown.
    let _ = terminal.write_all(b"\n");
    String::from_utf8(answer?).ok()
}

/// Keys up to the end of the line.
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
                // All bytes of the last character.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            key if line.len() < MAX_INPUT_BYTES => line.push(key),
            _ => return None,
        }
    }
}
