//! One-shot programs, each in its own sandbox.

use crate::as_both;
use crate::rig::{backends, folder};
use forge_sandbox::{OneShotSpec, ProgramLanguage};
use std::time::Duration;

as_both! {
    async fn a_program_runs_once_and_is_gone() {
        let data = folder();
        let backends = backends(data.path());
        let code = "
import os, socket, sys
print(open('/code/main.py').read()[:7].strip(), os.getcwd(), os.listdir('.'), file=sys.stderr)
open('made', 'w').write('x')
for path in ['/code/x', '/usr/x']:
    try:
        open(path, 'w')
        print('written')
    except OSError as e:
        print('no', path)
try:
    socket.create_connection(('1.1.1.1', 53), 1)
except OSError:
    print('no network')
big = b'x' * (64 << 20)
sys.exit(3)";
        let ran = backends.run_one_shot(OneShotSpec::new(ProgramLanguage::Python, code)).await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout.bytes).into_owned(), String::from_utf8_lossy(&ran.stderr.bytes).into_owned());
        assert_eq!(out, "no /code/x\nno /usr/x\nno network\n", "{err}");
        assert_eq!(err, "import /workspace []\n");
        assert_eq!((ran.exit_code, ran.timed_out), (3, false));
        assert!((64..200).contains(&ran.memory_mb), "{} MB", ran.memory_mb);
        let mut spin = OneShotSpec::new(ProgramLanguage::Python, "while True: pass");
        spin.timeout = Duration::from_millis(300);
        let ran = backends.run_one_shot(spin).await.unwrap();
        assert_eq!((ran.exit_code, ran.timed_out), (124, true));
        let mut hungry = OneShotSpec::new(ProgramLanguage::Python, "x = bytearray(600 << 20)\nprint(len(x))");
        hungry.memory_bytes = 128 << 20;
        let ran = backends.run_one_shot(hungry).await.unwrap();
        assert!(ran.exit_code != 0 && ran.stdout.bytes.is_empty(), "{ran:?}");
        let loud = backends.run_one_shot(OneShotSpec::new(ProgramLanguage::Python, "print('x' * (2 << 20))")).await.unwrap();
        assert!(loud.stdout.is_truncated() && loud.stdout.bytes.len() < (512 << 10) + 100);
        let left: Vec<_> = std::fs::read_dir(data.path().join("tmp")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
