//! Probes of a sandbox with commands that may execute only listed programs: lines that try to run another program, and
//! lines that must work.
//!
//! The forbidden program is `id`, because its output starts like nothing else that these lines print. Each line works
//! in a sandbox without a list, otherwise it would prove nothing; this is checked by the tests of the suite itself.

use super::ProbeOutcomes;
use super::host_facts::{HostFacts, probe_failed, probe_passed, probe_untested};
use super::probe_session::ProbeSession;
use super::table::{PROBES, ProbeGroup, ProbeMethod};
use crate::attempts::AttemptOutcome;
use forge_ports::Sandbox;
use forge_ports::sandbox::{BackgroundPolicy, ExecSpec, InheritedEnv};
use forge_types::{RunId, SandboxSpec};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The listed programs. Many of them start other programs or copy files, which must not help.
const LISTED_PROGRAMS: &[&str] = &[
    "ls", "cat", "find", "git", "xargs", "env", "nice", "timeout", "cp", "ln", "mv", "rm", "chmod", "mkdir",
    "awk", "sed", "tar", "dd", "head", "sleep",
];
/// Start of the output of `id`. Lines that load a library print it when the library was loaded.
const EXECUTED_MARKER: &str = "uid=";
/// Maximum time of one line.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of bytes kept of a line's output.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// Lines of one probe. `@ID@` is the path of `id`, `@LD@` that of the loader in program headers.
struct BypassClass {
    probe: &'static str,
    lines: &'static [&'static str],
}

const BYPASS_CLASSES: &[BypassClass] = &[
    BypassClass {
        probe: "unlisted-programs",
        lines: &[
            "id",
            "@ID@",
            "command id",
            "exec id",
            "eval id",
            "i=i; d=d; $i$d",
            "echo id | sh",
            "sh -c id",
            "true; (id) & wait",
            "exec -a ls @ID@",
            "(cd /usr/bin; ./id)",
            "PATH=/nowhere:/usr/bin id",
            "hash -p @ID@ ls; ls",
            "coproc id; cat <&\"${COPROC[0]}\"",
            "cat <(id)",
        ],
    },
    BypassClass {
        probe: "functions-named-like-programs",
        lines: &[
            "(id() { :; }); id",
            "if false; then id() { :; }; fi; id",
            "id; id() { :; }",
            "id() { :; }; command id",
            "id() { :; }; env id",
            "id() { :; }; unset -f id; id",
            "ls() { command id; }; ls",
        ],
    },
    BypassClass {
        probe: "wrappers-of-programs",
        lines: &[
            "echo id | xargs env",
            "echo id | xargs nice",
            "echo id | xargs timeout 5",
            "echo x | xargs sh -c id",
            "xargs id </dev/null",
            "env id",
            "env -S 'nice id'",
            "nice id",
            "timeout 5 id",
            "find . -maxdepth 0 -exec id \\;",
            "find . -maxdepth 0 -execdir @ID@ \\;",
            "awk 'BEGIN { system(\"id\") }'",
            "awk 'BEGIN { \"id\" | getline x; print x }'",
            "echo x | sed '1e id'",
            "tar -cf /dev/null --checkpoint=1 --checkpoint-action='exec=id' /etc/passwd",
        ],
    },
    BypassClass {
        probe: "variables-that-start-programs",
        lines: &[
            "echo id > x.sh; set -a; : ${BASH_ENV:=./x.sh}; bash -c ls",
            "echo id > x.sh; set -k; bash -c ls BASH_ENV=./x.sh",
            "echo id > x.sh; BASH_ENV=./x.sh bash -c ls",
            "PS4='$(id >&2)' bash -xc :",
            "env 'BASH_FUNC_ls%%=() { id; }' bash -c ls",
            "PROMPT_COMMAND=id bash -i </dev/null",
        ],
    },
    BypassClass {
        probe: "texts-that-shells-evaluate",
        lines: &[
            "x='$'; y='(id)'; z=\"$x$y\"; echo \"${z@P}\"",
            "test -v 'BASH[$(id >&2)]'",
            "printf '-v' 'a[$(id >&2)]' x",
            "sleep 0 & wait -n -p 'a[$(id >&2)]'",
            "x='a[$(id >&2)]'; echo $((x))",
            "z='a[$(id >&2)]'; [[ -v $z ]]",
            "read 'a[$(id >&2)]' <<< x",
            "a=(x); unset 'a[$(id >&2)]'",
            "trap id EXIT; ls",
            "mapfile -C 'id #' -c 1 a <<< x",
            "source /dev/stdin <<< id",
        ],
    },
    BypassClass {
        probe: "start-files",
        lines: &[
            "echo id > ~/.profile; sh -lc ls",
            "echo id > ~/.bashrc; bash -ic ls",
            "echo id > ~/.bash_profile; bash -lc ls",
            "echo id > x.sh; ENV=./x.sh sh -ic ls",
        ],
    },
    BypassClass {
        probe: "local-files-named-like-programs",
        lines: &[
            "printf '#!/bin/sh\\nid\\n' > env; chmod +x env; ./env ls",
            "printf '#!/bin/sh\\nid\\n' > sh; chmod +x sh; ./sh -c ls",
            "printf '#!/bin/sh\\nid\\n' > eval; chmod +x eval; ./eval ls",
            "printf '#!/bin/sh\\nid\\n' > cd; chmod +x cd; ./cd x",
            "printf '#!/bin/sh\\nid\\n' > ls; chmod +x ls; PATH=$PWD:$PATH; ls",
            "printf '#!/bin/sh\\nid\\n' > env; sh ./env",
        ],
    },
    BypassClass {
        probe: "copies-and-links-of-programs",
        lines: &[
            "cp @ID@ ls; ./ls",
            "cat @ID@ > cat; chmod +x cat; ./cat",
            "ln -s @ID@ ls; ./ls",
            "cp @ID@ /tmp/ls; /tmp/ls",
            "mkdir d; cp @ID@ d/cat; PATH=$PWD/d:$PATH cat",
            "cp @ID@ ~/git; ~/git",
            "dd if=@ID@ of=x 2>/dev/null; chmod +x x; mv x ls; env -i ./ls",
        ],
    },
    BypassClass {
        probe: "interpreters-of-scripts",
        lines: &[
            // Its argument is the script, which is not the name of a user.
            "printf '#!@ID@\\n' > s; chmod +x s; ./s 2>&1 | sed 's/.*no such user.*/uid=/'",
            "printf '#!/usr/bin/env id\\n' > s; chmod +x s; ./s; sh -c id < s",
            "printf '#!@LD@ @ID@\\n' > s; chmod +x s; ./s 2>&1 | sed 's/.*no such user.*/uid=/'",
        ],
    },
    BypassClass {
        probe: "loaders",
        lines: &[
            "@LD@ @ID@",
            "@LD@ --argv0 ls @ID@",
            "exec -a ls @LD@ @ID@",
            "env @LD@ @ID@",
            "ln -s @LD@ ls; ./ls @ID@",
            "cp @LD@ ls; ./ls @ID@",
            "cd /; .@LD@ @ID@",
            "/usr/../@LD@ @ID@",
            "/proc/self/root@LD@ @ID@",
            "exec 3<@LD@; /proc/self/fd/3 @ID@",
            "exec 3<@LD@; /dev/fd/3 @ID@",
            "cp @ID@ x; @LD@ ./x",
            "ln -s / r; r@LD@ @ID@",
            "ln -s /bin/cat a; ln -s @LD@ b; (i=0; while [ $i -lt 150 ]; do cp -P a c; mv c x; cp -P b c; mv c x; i=$((i+1)); done) & \
             i=0; while [ $i -lt 300 ]; do ./x @ID@ 2>/dev/null; i=$((i+1)); done; wait",
        ],
    },
    BypassClass {
        probe: "programs-by-descriptor",
        lines: &[
            "exec 3<@ID@; /proc/self/fd/3",
            "exec 3<@ID@; /dev/fd/3",
            "cp @ID@ x; exec 3<x; /proc/$$/fd/3",
            "/proc/self/root@ID@",
            "cp @ID@ x; /proc/self/cwd/x",
        ],
    },
    BypassClass {
        probe: "written-libraries",
        lines: &[
            "cp @LIB@ own.so; LD_PRELOAD=$PWD/own.so cat /proc/self/maps | sed -n 's/.* r.xp .*own.so/uid=/p'",
            "cp @LIB@ /tmp/own.so; LD_PRELOAD=/tmp/own.so cat /proc/self/maps | sed -n 's/.* r.xp .*own.so/uid=/p'",
            "cp @LIB@ ~/own.so; LD_PRELOAD=$HOME/own.so cat /proc/self/maps | sed -n 's/.* r.xp .*own.so/uid=/p'",
            "mkdir own; cp @LIBC@ own; LD_LIBRARY_PATH=$PWD/own cat /proc/self/maps | sed -n 's/.* r.xp .*own.*/uid=/p'",
        ],
    },
    BypassClass {
        probe: "programs-of-git",
        lines: &[
            "git -c alias.x='!id' x",
            "git init -q g; cd g; printf '#!/bin/sh\\nid >&2\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; \
             git -c user.name=a -c user.email=b commit --allow-empty -qm m",
            "git init -q g; cd g; git -c core.fsmonitor='id >&2; false' status",
            "GIT_SSH_COMMAND='id >&2; false' git ls-remote ssh://nowhere.invalid/x",
            "git init -q g; cd g; echo '* filter=t' > .gitattributes; echo x > f; git -c filter.t.clean='id >&2; cat' add f",
            "mkdir own; printf '#!/bin/sh\\nid\\n' > own/git-own; chmod +x own/git-own; GIT_EXEC_PATH=$PWD/own git own",
            "git init -q g; cd g; echo x > f; git add f; echo y > f; GIT_EXTERNAL_DIFF='id #' git diff",
        ],
    },
];

/// Lines that must work, with their output.
const WORKING_LINES: &[(&str, &str)] = &[
    ("echo some > f; ls", "f"),
    ("echo some > f; cat f | sed s/some/other/", "other"),
    ("sh -c 'ls /usr >/dev/null && echo well'", "well"),
    ("find /usr/bin -name env | xargs ls", "/usr/bin/env"),
    ("env A=b sh -c 'echo $A'", "b"),
    (
        "git init -q g && cd g && git -c user.name=a -c user.email=b commit --allow-empty -qm first && git log --format=%s",
        "first",
    ),
    ("git init -q g && cd g && git status", "No commits yet"),
    ("awk 'BEGIN { print 6 * 7 }'", "42"),
    ("(sleep 0; echo late) & wait", "late"),
];

/// Opens the sandbox and runs all lines in it.
pub(super) async fn run_program_probes(
    sandbox: &dyn Sandbox,
    spec: &SandboxSpec,
    scene: &HostFacts,
) -> ProbeOutcomes {
    let listed = LISTED_PROGRAMS.iter().map(|name| (*name).to_owned()).collect();
    let spec = SandboxSpec { programs: Some(listed), ..spec.clone() };
    let room = match ProbeSession::open(sandbox, &spec, RunId::generate()).await {
        Ok(room) => room,
        Err(error) => {
            let names = PROBES.iter().filter(|probe| probe.group == ProbeGroup::Programs);
            return names.map(|p| (p.name.to_owned(), (probe_untested(error.to_string()), 0))).collect();
        }
    };
    let mut outcomes = ProbeOutcomes::new();
    let files = SandboxFiles::locate(&room).await;
    for class in BYPASS_CLASSES {
        let begun = Instant::now();
        let outcome = class.run_class(&room, files.as_ref()).await;
        outcomes.insert(class.probe.to_owned(), (outcome, elapsed_millis(begun)));
    }
    let begun = Instant::now();
    let outcome = probe_working_lines(&room).await;
    outcomes.insert("listed-programs-work".to_owned(), (outcome, elapsed_millis(begun)));
    let inside = PROBES.iter().filter(|probe| matches!(probe.tried, ProbeMethod::Listed(_)));
    outcomes.extend(room.run_attempts(scene, inside.map(|probe| probe.name.to_owned()).collect()).await);
    outcomes
}

fn elapsed_millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Files of the sandbox that lines refer to.
struct SandboxFiles {
    id: String,
    loader: String,
    library: String,
    libc: String,
}

impl SandboxFiles {
    async fn locate(room: &ProbeSession) -> Option<Self> {
        let script = "for f in /usr/bin/id /bin/id; do [ -e $f ] && { echo $f; break; }; done; \
             for f in /lib64/ld-linux*.so.* /lib/ld-linux*.so.* /lib/ld-musl*; do [ -e $f ] && { echo $f; break; }; done; \
             for n in libm.so.6 libc.so.6; do for d in /lib/*-linux-* /usr/lib/*-linux-* /lib64 /usr/lib64 /usr/lib /lib; do \
             [ -e $d/$n ] && { echo $d/$n; break; }; done; done";
        let (text, _) = run_line(room, "", script).await.ok()?;
        let mut lines = text.lines().map(str::to_owned);
        Some(Self { id: lines.next()?, loader: lines.next()?, library: lines.next()?, libc: lines.next()? })
    }

    fn fill_placeholders(&self, line: &str) -> String {
        let line = line.replace("@ID@", &self.id).replace("@LD@", &self.loader);
        line.replace("@LIBC@", &self.libc).replace("@LIB@", &self.library)
    }
}

impl BypassClass {
    async fn run_class(&self, room: &ProbeSession, files: Option<&SandboxFiles>) -> AttemptOutcome {
        let Some(files) = files else {
            return AttemptOutcome::NotApplicable(
                "the sandbox has no `id` or no suitable library".to_owned(),
            );
        };
        let mut seen = Vec::new();
        for (number, line) in self.lines.iter().enumerate() {
            let line = files.fill_placeholders(line);
            match run_line(room, &format!("{}-{number}", self.probe), &line).await {
                Ok((text, _)) if text.contains(EXECUTED_MARKER) => seen.push(line),
                Ok(_) => {}
                Err(why) => return probe_untested(why),
            }
        }
        match seen.first() {
            None => probe_passed(format!("{} lines", self.lines.len())),
            Some(first) => {
                probe_failed(format!("{} of {} lines ran it, such as: {first}", seen.len(), self.lines.len()))
            }
        }
    }
}

async fn probe_working_lines(room: &ProbeSession) -> AttemptOutcome {
    for (number, (line, wanted)) in WORKING_LINES.iter().enumerate() {
        match run_line(room, &format!("works-{number}"), line).await {
            Ok((text, 0)) if text.contains(wanted) => {}
            Ok((text, code)) => return probe_failed(format!("{line}: code {code}: {}", text.trim())),
            Err(why) => return probe_failed(why),
        }
    }
    probe_passed(format!("{} lines", WORKING_LINES.len()))
}

/// Runs a line with bash in a separate directory; returns its output and exit code.
async fn run_line(room: &ProbeSession, name: &str, line: &str) -> Result<(String, i32), String> {
    let place = if name.is_empty() { String::new() } else { format!("mkdir -p '{name}' && cd '{name}' && ") };
    let script = format!("{place}exec bash -c \"$1\"");
    let spec = ExecSpec {
        argv: ["/bin/sh", "-c", &script, "sh", line].map(str::to_owned).into(),
        cwd: String::new(),
        env: BTreeMap::new(),
        timeout: LINE_TIMEOUT,
        keep_bytes: MAX_OUTPUT_BYTES,
        inherited_env: InheritedEnv::All,
        stdin: None,
        background: BackgroundPolicy::Kill,
        also: Vec::new(),
    };
    let ran = room.0.exec(spec, &()).await.map_err(|error| error.to_string())?;
    let text = [ran.stdout.bytes, ran.stderr.bytes].concat();
    Ok((String::from_utf8_lossy(&text).into_owned(), ran.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_a_probe_and_every_probe_has_a_class() {
        let probes: Vec<_> = PROBES.iter().filter(|probe| probe.group == ProbeGroup::Programs).collect();
        assert!(BYPASS_CLASSES.iter().all(|class| probes.iter().any(|probe| probe.name == class.probe)));
        let outside = probes.iter().filter(|probe| matches!(probe.tried, ProbeMethod::Outside)).count();
        assert_eq!(outside, BYPASS_CLASSES.len() + 1);
        assert!(BYPASS_CLASSES.iter().map(|class| class.lines.len()).sum::<usize>() >= 90);
    }
}
