//! Tests of programs and the warnings about them.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use super::*;
use proptest::prelude::*;

/// Returns `line rule` of each warning.
fn rules(language: CodeLanguage, code: &str) -> String {
    let found: Vec<String> = collect_warnings(language, code)
        .iter()
        .map(|warning| format!("{} {}", warning.line, warning.rule))
        .collect();
    found.join(", ")
}

fn table(language: CodeLanguage, cases: &[(&str, &str)]) {
    for (code, wanted) in cases {
        assert_eq!(rules(language, code), *wanted, "{code}");
    }
}

#[test]
fn python_is_read_as_tokens() {
    table(
        CodeLanguage::Python,
        &[
            ("import subprocess\n", "1 process"),
            ("import os, subprocess as sp\nsp.run(['ls'])\n", "1 process, 2 process"),
            ("from subprocess import run as go\n\ngo('ls')", "1 process, 3 process"),
            ("from os import (\n  path,\n  system as s,\n)\ns('ls')", "3 process, 5 process"),
            (
                "import os\nos.system('ls')\nos.popen('x')\nos.execvp('x', [])\nos.spawnl(0)",
                "2 process, 3 process, 4 process, 5 process",
            ),
            ("import os\nf = os.system", "2 process"),
            ("getattr(os, 'system')('ls')", "1 process"),
            ("eval('1')\nexec(x)\ncompile(a, b, c)", "1 eval, 2 eval, 3 eval"),
            ("x = [eval(y) for y in z]", "1 eval"),
            (
                "__import__('os').system('x')\nimportlib.import_module(n)",
                "1 dynamic-import, 2 dynamic-import",
            ),
            ("import ctypes\nfrom ctypes import CDLL\nctypes.CDLL(None)", "1 native, 2 native, 3 native"),
            (
                "open('/etc/passwd')\nopen(\"/proc/self/environ\")\nopen(r'/sys/kernel')",
                "1 system-files, 2 system-files, 3 system-files",
            ),
            ("open('''/etc/shadow''')", "1 system-files"),
            (
                "import socket\nimport urllib.request\nfrom urllib import request\nimport requests",
                "1 network, 2 network, 3 network, 4 network",
            ),
            ("import pickle\npickle.loads(b)\nfrom pickle import load", "2 unpickle, 3 unpickle"),
            ("f\"{eval('x')}\"", "1 eval"),
            ("f'''\n{\n os.system('x')\n}'''", "3 process"),
            // Code that only resembles risky operations.
            ("# os.system('x')\nx = 1 # eval(y)", ""),
            ("'os.system(1)'\n\"\"\"\nimport subprocess\neval(x)\n\"\"\"", ""),
            ("import re\nre.compile('x')\nmodel.eval()\nself.exec(x)", ""),
            ("def eval(x): pass\nevaluate(x)\ncompile = 1", ""),
            ("x = '/etcetera'\ny = 'see /etc/passwd'", ""),
            ("from urllib.parse import quote\nimport http", ""),
            ("x = 'a\\'b' # 'c\nimport json", ""),
            ("f'{{eval(x)}}'", ""),
            ("print('import os')\nyield_from = 1", ""),
        ],
    );
}

#[test]
fn javascript_is_read_as_tokens() {
    table(
        CodeLanguage::JavaScript,
        &[
            ("const cp = require('child_process');", "1 process"),
            ("import { exec } from \"node:child_process\"\nimport 'net'", "1 process, 2 network"),
            ("const m = await import('https')\nrequire(name)", "1 network, 2 dynamic-import"),
            (
                "eval(x)\nnew Function('return 1')\nglobalThis.eval('x')\nFunction('x')()",
                "1 eval, 2 eval, 3 eval, 4 eval",
            ),
            ("fs.readFileSync('/etc/passwd')\nopen(`/proc/self/environ`)", "1 system-files, 2 system-files"),
            ("fetch(url)\nnew WebSocket(u)\nrequire('http2')", "1 network, 2 network, 3 network"),
            ("process.binding('fs')\nprocess?.dlopen(m)", "1 native, 2 native"),
            ("`a ${eval(\"}\")} b`", "1 eval"),
            ("`\n${`${fetch(x)}`}`", "2 network"),
            ("return /a'/.test(x) ? eval(x) : 1", "1 eval"),
            ("import a from 'fs/promises'\nimport b from 'http'", "2 network"),
            // Code that only resembles risky operations.
            ("// eval(x)\n/* require('net')\n fetch(x) */", ""),
            ("const s = 'eval(x)'; const t = `fetch(${u})`", ""),
            ("x.eval(y); obj.fetch(z); function fetch(a) {}", ""),
            ("const re = /eval(x)'/; let y = a / b; // '\nz = 1", ""),
            ("import x from './http'\nrequire('./net')", ""),
            ("const fetch_all = 1; let require_ = 2", ""),
        ],
    );
}

#[test]
fn shell_is_read_as_words() {
    table(
        CodeLanguage::Shell,
        &[
            ("curl http://x | sh\n/usr/bin/wget y", "1 network, 2 network"),
            ("cat /etc/passwd </proc/self/environ", "1 system-files"),
            ("eval \"$x\"\nif sudo true; then nc a 1; fi", "1 eval, 2 network, 2 privilege"),
            ("x=$(curl y)\ny=\"a $(ssh z) b\"\nz=`nc q`", "1 network, 2 network, 3 network"),
            ("exec 3<>/dev/tcp/host/80", "1 network"),
            ("A=1 B=2 curl x", "1 network"),
            // Code that only resembles risky operations.
            ("echo curl; # wget x\necho 'eval x' \"/etcetera\"", ""),
            ("grep eval file\nmy-curl x\ncurlie x", ""),
            ("cat <<'EOF'\ncurl x\nEOF\nls", ""),
        ],
    );
}

#[test]
fn what_is_done_with_warnings_is_chosen() {
    let code = "import os\nos.system('x')";
    assert_eq!(StaticCheckPolicy::default().check_code(CodeLanguage::Python, code).unwrap().len(), 1);
    assert_eq!(StaticCheckPolicy::Off.check_code(CodeLanguage::Python, code), Ok(Vec::new()));
    assert_eq!(StaticCheckPolicy::Deny.check_code(CodeLanguage::Python, "print(1)"), Ok(Vec::new()));
    let denied = StaticCheckPolicy::Deny.check_code(CodeLanguage::Python, code).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "the program was not run (sandbox.static_check = deny): line 2: `os.system` starts programs (process)"
    );
    assert_eq!(denied.class(), ErrorClass::Denied);
    for name in ["warn", "deny", "off"] {
        assert_eq!(name.parse::<StaticCheckPolicy>().unwrap().name(), name);
    }
    assert_eq!(
        "x".parse::<StaticCheckPolicy>().unwrap_err().to_string(),
        "`x` is not one of warn, deny and off"
    );
    assert_eq!(CodeLanguage::from_name("Bash"), Some(CodeLanguage::Shell));
}

#[test]
fn long_programs_are_looked_at_in_part_and_in_linear_time() {
    let long = "x = 1\n".repeat(MAX_CODE_BYTES / 6 + 10);
    assert_eq!(
        collect_warnings(CodeLanguage::Python, &long).last().map(|warning| warning.rule),
        Some("length")
    );
    for language in [CodeLanguage::Python, CodeLanguage::JavaScript, CodeLanguage::Shell] {
        for part in ["f'{", "`${", "$(", "(", "\"", "eval(x)\n", "<<a\n"] {
            assert!(collect_warnings(language, &part.repeat(20_000)).len() <= MAX_WARNINGS + 1);
        }
    }
}

proptest! {
    #[test]
    fn no_program_makes_the_check_panic(code in "([a-z.]|\\PC|[\"'`\\\\{}$()#/*\n<>]|import |from |eval){0,80}") {
        for language in [CodeLanguage::Python, CodeLanguage::JavaScript, CodeLanguage::Shell] {
            let lines = code.lines().count().max(1);
            for warning in collect_warnings(language, &code) {
                prop_assert!(warning.line >= 1 && warning.line as usize <= lines, "{warning} {code:?}");
            }
        }
    }
}
