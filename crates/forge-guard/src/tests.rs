//! Tests of the command policy, line by line.

use super::command::{CommandRefusal, check_command};
use forge_types::CommandRules;
use proptest::prelude::*;

fn rules(allowed: &[&str]) -> CommandRules {
    CommandRules { allowed: allowed.iter().map(|&name| name.to_owned()).collect() }
}

/// Checks one line per row: `+` runs, `-` is refused; `\n` is a newline.
fn table(allowed: &[&str], rows: &str) {
    let rules = rules(allowed);
    let mut wrong = Vec::new();
    for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (wanted, line) = row.split_at(1);
        let line = line.trim().replace("\\n", "\n");
        let verdict = check_command(&line, &rules);
        if verdict.is_ok() != (wanted == "+") {
            wrong.push(format!("{wanted} {line:?}: {verdict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cases with a list of `cargo`, `git`, `grep`, `find` and `cat`.
const LISTED: &str = r#"
+ cargo test
+ cargo test --workspace 2>&1 | grep -v warning
+ cd sub && cargo build; echo "done: $?"
+ RUST_BACKTRACE=1 cargo test
+ git commit -m "rm -rf / is only text here; really | so"
+ git commit -m 'it; rm -rf .'
+ /usr/bin/git status
+ if cargo check; then echo ok; else echo bad; fi
+ for f in *.rs; do grep -n x "$f"; done
+ while true; do cargo check && break; done
+ case "$1" in a|b) cargo a;; *) git b;; esac
+ ( cd x; cargo test ) > log.txt 2>&1
+ { cargo a; cargo b; } | grep c
+ t() { cargo test "$@"; }; t --all
+ cat <<EOF\nrm -rf .\nEOF
+ cat <<'EOF' | grep x\n$(rm -rf .)\nEOF
+ cat > notes.md <<'EOF'\n`rm` and $(rm)\nEOF
+ echo $((1 + 2)) && cargo test
+ sh -c 'cargo test && git diff'
+ bash -lc "cargo test"
+ env RUST_LOG=debug cargo run
+ timeout 60 cargo test
+ timeout -k 5 60 cargo test
+ nice -n 5 nohup cargo build &
+ git ls-files | xargs -n 1 grep -n TODO
+ git ls-files -z | xargs -0 -I {} grep -n TODO {}
+ find . -name '*.rs' -exec grep -l x {} +
+ eval "cargo test"
+ [[ -f Cargo.toml && $x == a ]] && cargo test
+ [ -f Cargo.toml ] || git status
+ command -v cargo
+ time cargo build
+ ! grep -q x y
+ cargo test # rm -rf .
+ cargo build \\n --release
+ grep "${HOME:-x}" y
+ diff=1; cargo test
+ cat <(git log) | grep x
- cargo; rm -rf .
- cargo && rm -rf .
- cargo || rm x
- cargo | tee out
- cargo & rm x
- cargo\nrm x
- cargo "$(rm x)"
- cargo "`rm x`"
- cargo $(echo $(rm x))
- cargo `echo \`rm x\``
- cargo <(rm x)
- cargo > >(rm x)
- cargo "${x:-$(rm x)}"
- echo $(( $(rm x) + 1 ))
- echo $((1+2)); rm x
- echo $((rm x) ; (rm y))
- ((rm x))
- ((\nrm x\n))#
- sh -c '((rm x))'
- if ((i > 3)); then cargo test; fi
- (rm x)
- { rm x; }
- ( ( ( rm x ) ) )
- if rm x; then :; fi
- if :; then rm x; fi
- if :; then :; elif rm x; then :; else rm x; fi
- while :; do rm x; done
- until rm x; do :; done
- for i in $(rm x); do :; done
- case x in x) rm x;; esac
- case $(rm x) in x) :;; esac
- t() { rm x; }; t
- function t { rm x; }; t
- cat <<EOF\n$(rm x)\nEOF
- cat <<EOF\ntext\nEOF\nrm x
- cat <<E\\nOF\n$(rm x)\nEOF
- cat <<< "$(rm x)"
- eval "rm x"
- eval rm x
- eval "$CMD"
- sh -c 'rm x'
- sh -c "cargo; rm x"
- bash -lc "rm x"
- bash -c "bash -c 'rm x'"
- bash --norc -o pipefail -c 'rm x'
- sh -c "$CMD"
- sh script.sh
- echo 'rm x' | sh
- . ./env.sh
- source env.sh
- env rm x
- env X=1 rm x
- env -i -u HOME rm x
- env -S "rm x"
- env --split-string="rm x"
- sudo cargo build
- nohup rm x
- timeout 5 rm x
- timeout --foreground -s KILL 5 rm x
- timeout --frobnicate cargo rm x
- timeout $T cargo
- nice rm x
- time -p rm x
- exec rm x
- command rm x
- builtin eval 'rm x'
- git ls-files | xargs rm
- git ls-files | xargs -0 -n 1 rm -f
- find . -exec rm {} \;
- find . -name x -exec cargo {} \; -execdir rm {} +
- find . $X
- $CMD x
- "$(echo rm)" x
- ${CMD} x
- r\m x
- 'rm' x
- "r"'m' x
- $'\x72m' x
- /bin/rm x
- /tmp/evil/cargo test
- ./cargo test
- /bin/c?rgo x
- {rm,x}
- ~/cargo
- PATH=. cargo test
- export PATH=/tmp; cargo test
- export "$X"
- LD_PRELOAD=./x.so cargo test
- env LD_PRELOAD=./x.so cargo test
- env "PA"TH=. cargo test
- GIT_SSH_COMMAND='rm x' git fetch
- for PATH in /tmp; do cargo; done
- trap 'rm x' EXIT
- (rm() { :; }); rm x
- if false; then rm() { :; }; fi; rm x
- rm x; rm() { :; }
- rm() { :; }; command rm x
- rm() { :; }; env rm x
- rm() { :; }; sh -c 'rm x'
- echo rm | xargs env
- echo rm | xargs nice
- echo rm | xargs timeout 5
- set -a; cargo test
- set -k; cargo test
- set -o allexport; cargo test
- test -v 'a[$(rm x)]'
- [ -v 'a[$(rm x)]' ]
- printf '-v' 'a[$(rm x)]' x
- wait -n -p 'a[$(rm x)]'
- ./env cargo
- ./sh -c cargo
- ./eval cargo
- ./cd x
- ./printf x
- ./trap cargo
+ function t { cargo test; }; t
+ a() { b; }; b() { cargo test; }; a
+ f() { cargo a; }; eval f
+ set -eu; cargo test
+ set -o pipefail; cargo test | cat
- alias cargo=rm
- coproc rm x
- [[ $(rm x) ]]
- x='a[$(rm x)]'; echo $((x))
- echo "${x#'}"'} "; rm x; echo '"'
- echo 'unfinished
- echo "unfinished
- if cargo
- cargo )
- cargo (
- cargo <<
- ; cargo
- cargo | | cargo
- echo ${ rm x; }
- `
- $(
- a=(x $(rm x))
- a[$(rm x)]=1
- X=$(rm x)
- X=`rm x` cargo
- > $(rm x)
"#;

/// Cases without a list.
const ANYTHING: &str = r#"
+ rm -rf target
+ rm -rf ./build /tmp/x
+ rm -rf /workspace/target
+ rm -f /
+ $CMD
+ echo 'unfinished
+ make && ./configure | tee log
+ echo rm -rf /
+ git commit -m 'rm -rf /'
+ grep -r 'mkfs' .
+ dd if=/dev/zero of=out.bin bs=1M count=1
+ dd if=x of=/dev/null
+ cargo test > /dev/null 2>&1
+ echo x > /dev/stderr
+ echo x >/dev/fd/2
+ cat <<EOF > x\nrm -rf /\nEOF
+ f() { for x in *; do f $x; done; }; f
+ echo shutdown
+ init 3
+ ((i++)); for ((i = 0; i < 3; i++)); do ((x[i] += i)) || echo $i; done
+ while (( $(wc -l < a) > (1 << 2) )); do :; done
+ systemctl status
- rm -rf /
- rm -fr /
- rm -r -f /
- rm -Rf /
- rm / -rf
- rm -rf -- /
- rm -rf //
- rm -rf /.
- rm -rf /./
- rm -rf /../
- rm -rf /tmp/..
- rm -rf /*
- rm -rf //*
- rm -rf /.*
- rm -fr /{*,.*}
- rm --recursive --force /
- rm --recurs --force /
- rm -rf --no-preserve-root /x
- rm -rf '/'
- 'rm' -rf /
- \rm -rf /
- /bin/rm -rf /
- sudo rm -rf /
- sudo -u root -- rm -rf /
- sudo --weird x rm -rf /
- env X=1 rm -rf /
- env -S 'rm -rf /'
- nohup timeout 5 nice -n 3 rm -rf /
- busybox rm -rf /
- command rm -rf /
- exec rm -rf /
- cargo test; rm -rf /
- cargo test && (cd x; rm -rf /)
- echo $(rm -rf /)
- echo `rm -rf /`
- cat <(rm -rf /)
- sh -c 'rm -rf /'
- bash -lc 'bash -c "rm -rf /"'
- sh -c '((rm -rf /))'
- if ((cd x; rm -rf /)); then :; fi
- eval 'rm -rf /'
- trap 'rm -rf /' EXIT
- find . -exec rm -rf / \;
- echo / | xargs rm -rf
- echo 'rm -rf /' | sh
- bash <<EOF\nrm -rf /\nEOF
- bash <<< 'rm -rf /'
- {rm,-rf,/}
- rm${IFS}-rf${IFS}/
- X=/; rm -rf $X
- C=rm; $C -rf /
- C='rm -rf /'; $C
- C='rm -rf /'; eval $C
- cd / && rm -rf *
- cd /; rm -rf .
- if true; then rm -rf /; fi
- f() { rm -rf /; }; f
- rm -rf /\n)
- rm -rf / 'unfinished
- :(){ :|:& };:
- :() { : | : & } ; :
- bomb() { bomb | bomb & }; bomb
- function b { b & b & }; b
- f(){ f|f; }; f
- a() { b & }; b() { a & }; a
- mkfs /dev/sda1
- mkfs.ext4 -F /dev/sda1
- sudo /sbin/mkfs.xfs /dev/sda
- dd if=/dev/zero of=/dev/sda bs=1M
- dd of=//dev/./nvme0n1
- cat x > /dev/sda
- cat x >>/dev/sda1
- : > /dev/disk/by-id/x
- echo x | tee /dev/sda
- shutdown -h now
- sudo reboot
- /sbin/halt
- poweroff
- init 0
- systemctl poweroff
"#;

#[test]
fn every_simple_command_must_be_on_the_list() {
    table(&["cargo", "git", "grep", "find", "cat"], LISTED);
}

#[test]
fn without_a_list_anything_runs_but_what_wrecks_the_machine() {
    table(&[], ANYTHING);
}

#[test]
fn a_refusal_says_what_why_and_what_is_allowed() {
    let text = |line: &str, allowed: &[&str]| check_command(line, &rules(allowed)).unwrap_err().to_string();
    assert_eq!(
        text("cargo test; rm -rf .", &["cargo", "git"]),
        "refused: `rm` is not in runtime.allowed_shell_commands. Allowed: cargo, git, and the shell's own cd, echo, test and the \
         like. Every program in the line must be on this list"
    );
    assert!(text("$CMD", &["cargo"]).contains("programs it runs can't be determined"));
    assert!(text("cargo 'x", &["cargo"]).contains("an unterminated quote"));
    assert!(text("rm -rf /", &[]).contains("removes the whole file system"));
    assert!(text("a\0b", &[]).contains("NUL"));
    assert!(matches!(check_command("rm -rf /", &rules(&["rm"])), Err(CommandRefusal::Forbidden { .. })));
}

#[test]
fn deep_and_long_lines_end_soon() {
    let lists = [rules(&[]), rules(&["cargo"])];
    let repeat = |text: &str, n: usize| text.repeat(n);
    for line in [
        repeat("(", 100_000),
        repeat("$(", 100_000),
        repeat("((", 50_000),
        repeat("$((", 50_000),
        repeat("`", 100_001),
        repeat("${x:-", 50_000),
        repeat("{ ", 50_000),
        repeat("if ", 50_000),
        repeat("sudo ", 20_000) + "rm -rf /",
        repeat("env -Z ", 20_000),
        repeat("eval ", 20_000),
        repeat("{a,b}", 20_000),
        repeat("cat <<A\n", 5_000),
        repeat("\"", 100_001),
        repeat("f() { ", 20_000),
        repeat("f(){ f & };", 300),
        repeat("f(){ g & };", 20_000),
        repeat("a|", 50_000),
        repeat("[[ ", 50_000),
        repeat("\\\n", 50_000),
        "x".repeat(3 << 20),
    ] {
        for rules in &lists {
            let _ = check_command(&line, rules);
        }
    }
}

/// Generates text with many characters that are special to the shell.
fn shellish() -> impl Strategy<Value = String> {
    let parts = vec![
        "rm", "cargo", " ", " ", "-rf", "/", "\n", ";", "&", "|", "&&", "||", "(", ")", "((", "))", "{", "}",
        "$", "$(", "${", "`", "'", "\"", "\\", "<", ">", "<<", "EOF", "<(", "#", "=", "x", "[[", "]]", "if",
        "then", "fi", "do", "done", "for", "in", "case", "esac", ";;", "function", "eval", "sh -c", "!", "*",
        "é", "\0",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_line_breaks_the_guard(line in ".{0,200}") {
        let _ = check_command(&line, &rules(&[]));
        let _ = check_command(&line, &rules(&["cargo"]));
    }

    #[test]
    fn no_shellish_line_breaks_the_guard(line in shellish()) {
        let _ = check_command(&line, &rules(&[]));
        let _ = check_command(&line, &rules(&["cargo"]));
    }

    /// Whatever precedes and follows it, a separate command is seen or the line is refused.
    #[test]
    fn no_context_hides_a_command(before in shellish(), after in shellish()) {
        let line = format!("{before}\nrm x\n{after}");
        if check_command(&line, &rules(&["cargo"])).is_ok() {
            // Otherwise `rm x` is text within a quote, a comment or a here-document.
            let quoted = before.contains(['\'', '"', '\\']) || before.contains("<<");
            prop_assert!(quoted, "{line:?}");
        }
    }

    #[test]
    fn a_quoted_argument_is_only_text(text in "[^'\0]{0,60}") {
        let line = format!("cargo run '{text}'");
        prop_assert_eq!(check_command(&line, &rules(&["cargo"])), Ok(()));
    }
}
