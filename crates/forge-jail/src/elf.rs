//! Headers of ELF binaries, as in elf(5).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Program header type of the path to the loader (`PT_INTERP`).
const PT_INTERP: u32 = 3;

/// Returns the path of the loader that a binary names, unless it is static.
pub(crate) fn read_interpreter(file: &File) -> io::Result<Option<PathBuf>> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "not a 64-bit ELF binary of this machine");
    let mut head = [0u8; 64];
    file.read_exact_at(&mut head, 0)?;
    if !head.starts_with(&[0x7f, b'E', b'L', b'F', 2]) {
        return Err(odd());
    }
    let half = |at: usize| Some(u16::from_ne_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let table = head.get(32..40).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes).ok_or_else(odd)?;
    let (size, count) = (half(54).ok_or_else(odd)?, half(56).ok_or_else(odd)?);
    for number in 0..count {
        let mut entry = [0u8; 56];
        file.read_exact_at(&mut entry, table + u64::from(number) * u64::from(size))?;
        let kind = entry.get(0..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        let word = |at: usize| entry.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
        if kind == Some(PT_INTERP) {
            let (offset, length) = (word(8).ok_or_else(odd)?, word(32).ok_or_else(odd)?);
            let mut path = vec![0u8; usize::try_from(length.min(4096)).map_err(io::Error::other)?];
            file.read_exact_at(&mut path, offset)?;
            let text = path.split(|b| *b == 0).next().unwrap_or_default();
            return Ok(Some(PathBuf::from(OsStr::from_bytes(text))));
        }
    }
    Ok(None)
}

/// Returns the machine a program is built for (`e_machine`); `None` for a file that is not a program.
pub(crate) fn read_elf_machine(file: &File) -> Option<u16> {
    let mut head = [0u8; 20];
    file.read_exact_at(&mut head, 0).ok()?;
    let bytes = [*head.get(18)?, *head.get(19)?];
    match (head.starts_with(b"\x7fELF"), head.get(5)?) {
        (true, 1) => Some(u16::from_le_bytes(bytes)),
        (true, _) => Some(u16::from_be_bytes(bytes)),
        (false, _) => None,
    }
}
