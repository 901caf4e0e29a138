//! Keys in encrypted stores: set, shown, used by runs, and seen nowhere.

use crate::harness::{KEY, World};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

const PHRASE: &str = "correct horse battery staple";
const OTHER: &str = "sk-other-9876543210fedcba";

/// Runs a command with this text on stdin; gives exit code, stdout and stderr.
fn piped(world: &World, words: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = world.command(words);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("the program starts");
    // A command that does not read its input has ended before.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let done = child.wait_with_output().expect("its output");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn keep(world: &World, words: &[&str], value: &str) {
    let (code, out, err) = piped(world, &[&["secret", "set"], words].concat(), value);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(!out.contains(value.trim()) && !err.contains(value.trim()), "{out}{err}");
}

/// A world with a passphrase.
fn world() -> World {
    let mut world = World::new();
    world.set("FORGE_PASSPHRASE", PHRASE);
    world
}

/// A provider that answers, without a key in the environment.
fn serve(world: &mut World, script: ReplyScript) -> ModelServer {
    let server = ModelServer::start(script);
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi));
    server
}

const FLAGS: [&str; 4] = ["--provider", "openai", "--model", "tiny"];

#[test]
fn a_secret_is_set_listed_got_and_deleted() {
    let world = world();
    world.forge(&["secret", "list"]).exits(0).says(&["There are no secrets"]);
    keep(&world, &["OPENAI_API_KEY"], &format!("{KEY}\n"));
    keep(&world, &["OTHER_KEY", "--local"], OTHER);
    let list = world.forge(&["secret", "list"]).exits(0).shows(&[
        "OPENAI_API_KEY",
        "user store",
        "project store",
        "sk-…cdef",
    ]);
    assert!(!list.out.contains(OTHER));
    let rows = world.forge(&["secret", "list", "--local", "--json"]).exits(0).json();
    assert_eq!(
        rows,
        serde_json::json!([
        {"name": "OTHER_KEY", "from": "project store", "masked": "sk-…dcba", "used": true}])
    );
    assert_eq!(world.forge(&["secret", "get", "OPENAI_API_KEY"]).out, format!("{KEY}\n"));
    assert_eq!(world.forge(&["secret", "get", "OPENAI_API_KEY", "--masked"]).exits(0).out, "sk-…cdef\n");
    world.forge(&["secret", "get", "OPENAI_API_KEY", "--json"]).exits(0).shows(&["sk-…cdef"]);
    world.forge(&["secret", "get", "OPENAI_API_KEY", "--local"]).exits(1).says(&["is not in"]);
    world.forge(&["secret", "delete", "OPENAI_API_KEY"]).exits(0).shows(&["deleted"]);
    world.forge(&["secret", "get", "OPENAI_API_KEY"]).exits(1).says(&["forge secret set OPENAI_API_KEY"]);
    world.forge(&["secret", "delete", "OPENAI_API_KEY"]).exits(1).says(&["forge secret list"]);
    for path in [world.path("data").join("forge/secrets.enc"), world.repo().join(".forge/secrets.enc")] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn runs_use_keys_from_stores_and_every_command_says_where_they_came_from() {
    let mut world = world();
    let server = serve(&mut world, ReplyScript::always(|_| MockReply::text("Done.")));
    keep(&world, &["OPENAI_API_KEY"], KEY);
    world.run(&FLAGS, "Say it").exits(0);
    world.forge(&["doctor"]).shows(&["key OPENAI_API_KEY (user store)", "secrets: user store: 1 secret"]);
    world.forge(&["config", "show"]).exits(0).shows(&["sk-…cdef", "user store"]);
    // The project's store wins, and the environment loses against both.
    keep(&world, &["OPENAI_API_KEY", "--local"], OTHER);
    world.set("OPENAI_API_KEY", "sk-from-the-environment");
    world.run(&FLAGS, "Say it").exits(0);
    world.forge(&["secret", "list"]).shows(&["environment (not used)", "user store (not used)"]);
    world.set("FORGE_SECRETS_PROVIDERS", "env");
    world.run(&FLAGS, "Say it").exits(0);
    let sent: Vec<_> = server
        .recorded_requests()
        .iter()
        .map(|r| r.header("authorization").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(sent, [KEY, OTHER, "sk-from-the-environment"].map(|key| format!("Bearer {key}")));
}

#[test]
fn a_store_that_can_not_be_opened_stops_the_run_with_the_way_out() {
    let mut world = world();
    let server = serve(&mut world, ReplyScript::always(|_| MockReply::text("Done.")));
    keep(&world, &["OPENAI_API_KEY"], KEY);
    let path = world.path("data").join("forge/secrets.enc");
    let whole = std::fs::read(&path).unwrap();
    world.set("FORGE_PASSPHRASE", "wrong");
    world.run(&FLAGS, "Say it").exits(2).says(&["the passphrase is wrong", "FORGE_PASSPHRASE"]);
    world.forge(&["secret", "list"]).exits(2).says(&["the passphrase is wrong"]);
    world.forge(&["doctor"]).exits(1).shows(&["the passphrase is wrong"]);
    world.set("FORGE_PASSPHRASE", "");
    world.run(&FLAGS, "Say it").exits(2).says(&["there is no passphrase", "FORGE_PASSPHRASE"]);
    world.forge(&["secret", "get", "OPENAI_API_KEY"]).exits(2).says(&["there is no passphrase"]);
    // A key from elsewhere is as good, and it is said that it is one.
    world.set("OPENAI_API_KEY", OTHER);
    world.run(&FLAGS, "Say it").exits(0).says(&["was not opened"]);
    world.set("FORGE_PASSPHRASE", PHRASE);
    for (bytes, words) in [
        (whole[..30].to_vec(), "is truncated"),
        (b"OPENAI_API_KEY=something-in-clear-that-is-long-enough\n".to_vec(), "is not a secret store"),
        ([&whole[..whole.len() - 1], &[!whole[whole.len() - 1]]].concat(), "the passphrase is wrong"),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        world.run(&FLAGS, "Say it").exits(2).says(&[words]);
        let (code, _, err) = piped(&world, &["secret", "set", "NEW_KEY"], OTHER);
        assert_eq!(code, Some(2), "{err}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is written over");
    }
    std::fs::write(&path, &whole).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    world.run(&FLAGS, "Say it").exits(2).says(&["chmod 600"]);
    assert_eq!(server.request_count(), 1);
}

#[test]
fn a_run_that_needs_no_key_opens_no_store() {
    let mut world = world();
    let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("Done.")));
    let flags = world.uses(&server, VendorFormat::Ollama);
    keep(&world, &["OPENAI_API_KEY"], KEY);
    world.set("FORGE_PASSPHRASE", "wrong");
    world.run(&flags, "Say it").exits(0);
}

#[test]
fn a_store_that_came_with_a_clone_is_not_used_and_asks_for_nothing() {
    let mut world = world();
    let server = serve(&mut world, ReplyScript::always(|_| MockReply::text("Done.")));
    keep(&world, &["OPENAI_API_KEY"], KEY);
    let foreign = World::new();
    std::fs::create_dir(world.repo().join(".forge")).unwrap();
    std::fs::write(world.repo().join(".forge/secrets.enc"), [7; 80]).unwrap();
    drop(foreign);
    world.run(&FLAGS, "Say it").exits(0).says(&["was not created by you", "forge secret list --local"]);
    assert_eq!(server.recorded_requests()[0].header("authorization"), Some(&*format!("Bearer {KEY}")));
    std::os::unix::fs::symlink("/etc/passwd", world.repo().join(".forge/link")).unwrap();
    std::fs::remove_file(world.repo().join(".forge/secrets.enc")).unwrap();
    std::fs::rename(world.repo().join(".forge/link"), world.repo().join(".forge/secrets.enc")).unwrap();
    world.forge(&["secret", "list", "--local"]).exits(2).says(&["is a symbolic link"]);
}

#[test]
fn what_is_typed_wrongly_is_said_without_the_value() {
    let world = world();
    let done = world.forge(&["secret", "set", KEY]).exits(2);
    assert!(!done.err.to_lowercase().contains("0123456789"), "{}", done.err);
    world.forge(&["secret", "set", "A KEY"]).exits(2).says(&["A_KEY"]);
    world.forge(&["secret", "set", "EMPTY"]).exits(2).says(&["the value is empty"]);
    world.forge(&["secret", "set", "TYPED_KEY", OTHER]).exits(0).says(&["omit it"]);
    let (code, _, err) = piped(&world, &["secret", "set", "BINARY"], "\0\0\0");
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn no_key_is_seen_in_arguments_logs_events_or_errors() {
    let mut world = world();
    // The command puts the key together, so that its output is the first place where it stands.
    let command = format!(
        "k=sk-test-; echo ${{k}}0123456789abcdef; printf %s ${{k}}0123456789abcdef | base64; echo {OTHER} > note; cat note"
    );
    let server = serve(
        &mut world,
        ReplyScript::from_replies([
            MockReply::call("run_command", serde_json::json!({"command": command})),
            MockReply::status(500),
            MockReply::text(format!("The key is {KEY}, and another is {OTHER}.")),
        ]),
    );
    keep(&world, &["OPENAI_API_KEY"], KEY);
    world.set("FORGE_LOGGING_LEVEL", "trace");
    // Somebody put it into a prompt as well.
    world.set("FORGE_AGENT_SYSTEM_PROMPT", &format!("The key is {KEY}."));
    let running = world.start(&[&["run", "Show the key", "-vv"], &FLAGS[..]].concat());
    // Everything that any process was started with or has in its environment while the run goes on.
    let mut seen = String::new();
    while !server.wait_for_requests(2, std::time::Duration::from_millis(1)) {
        seen.push_str(&command_lines());
    }
    let done = running.wait().exits(0);
    assert!(!seen.contains(KEY), "a key among the arguments");
    for text in [&done.out, &done.err] {
        assert!(!text.contains(OTHER) && !text.contains("c2stdGVzdC0wMTIz"), "{text}");
    }
    assert!(done.err.contains("***REDACTED***"), "{}", done.err);
    let run = world.only_run();
    for words in
        [&["logs", &run, "--json"][..], &["logs", &run], &["status", &run, "--json"], &["status", &run]]
    {
        let shown = world.forge(words).exits(0);
        assert!(!shown.out.contains(OTHER), "{}", shown.out);
    }
    // In the data folder, too, nothing of the loaded key; what only looks like one stays, so that files stay right.
    let mut found = Vec::new();
    holding(&world.path("data"), KEY.as_bytes(), &mut found);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(world.read("note"), format!("{OTHER}\n"));
}

/// What all processes were started with, but for the shells of other tests.
fn command_lines() -> String {
    let entries = std::fs::read_dir("/proc").expect("a list of processes").flatten();
    let numbers =
        entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    let ours = |path: &std::path::Path| {
        std::fs::read_link(path.join("exe"))
            .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "forge"))
    };
    let lines = numbers.filter(|entry| ours(&entry.path())).map(|entry| {
        let bytes = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    lines.collect()
}

/// The files below a folder that hold these bytes.
fn holding(folder: &std::path::Path, needle: &[u8], found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            holding(&path, needle, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(path);
            }
        }
    }
}

#[test]
fn tools_see_neither_the_store_nor_the_passphrase() {
    let mut world = world();
    let command = serde_json::json!({"command": "wc -c < .forge/secrets.enc; env | grep -c PASSPHRASE"});
    let server = serve(
        &mut world,
        ReplyScript::from_replies([MockReply::call("run_command", command), MockReply::text("Seen.")]),
    );
    keep(&world, &["OPENAI_API_KEY", "--local"], KEY);
    let before = std::fs::read(world.repo().join(".forge/secrets.enc")).unwrap();
    world.run(&FLAGS, "Look").exits(0);
    let result = server.model_calls()[1].last_tool_result().unwrap_or_default().to_owned();
    let counts: Vec<&str> = result.lines().filter(|line| line.trim().parse::<u32>().is_ok()).collect();
    assert!(!counts.is_empty() && counts.iter().all(|count| count.trim() == "0"), "{result}");
    assert_eq!(std::fs::read(world.repo().join(".forge/secrets.enc")).unwrap(), before);
}

/// Runs forge on a terminal of its own, made by `script` of util-linux, with a person who answers each question. Gives all
/// that the terminal showed, and the exit code.
#[allow(clippy::disallowed_methods, reason = "the test makes a terminal")]
pub(crate) fn on_a_terminal(world: &World, line: &str, answers: &[(&str, &str)]) -> Option<(i32, String)> {
    let inner = world.command(&[]);
    let mut script = std::process::Command::new("script");
    let program = inner.get_program().to_string_lossy();
    script
        .args(["-qec", &line.replace("forge", &program), "/dev/null"])
        .current_dir(world.repo())
        .env_clear();
    for (name, value) in inner.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match script.spawn() {
        Ok(child) => child,
        Err(error) => {
            crate::harness::skip("questions on a terminal", &format!("script: {error}"));
            return None;
        }
    };
    let (mut keys, mut screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let (mut shown, mut from) = (String::new(), 0);
    let mut answers = answers.iter();
    let mut next = answers.next();
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = std::io::Read::read(&mut screen, &mut piece) {
        shown.push_str(&String::from_utf8_lossy(&piece[..read]));
        if let Some((question, answer)) = next
            && shown[from..].contains(question)
        {
            keys.write_all(answer.as_bytes()).expect("the terminal listens");
            (from, next) = (shown.len(), answers.next());
        }
    }
    assert!(next.is_none(), "nobody asked {next:?}: {shown}");
    let code = child.wait().expect("it ends").code().unwrap_or(-1);
    Some((code, shown))
}

#[test]
fn passphrases_and_values_are_asked_for_on_a_terminal_and_not_shown() {
    let mut world = World::new();
    let line = "forge secret set OPENAI_API_KEY";
    let typed = format!("wrong\u{15}{KEY}x\u{7f}\r");
    let answers = [
        ("Value of", typed.as_str()),
        ("New passphrase", "a b c d e f g\r"),
        ("Repeat passphrase", "a b c d e f g\r"),
    ];
    let Some((code, shown)) = on_a_terminal(&world, line, &answers) else { return };
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("0123456789") && !shown.contains("a b c"), "{shown}");
    let answers = [("Passphrase for", "nonsense\r"), ("Wrong passphrase", "a b c d e f g\r")];
    let (code, shown) =
        on_a_terminal(&world, "forge secret get OPENAI_API_KEY", &answers).expect("a terminal");
    assert!(code == 0 && shown.contains(KEY), "{shown}");
    // The pipe holds the value; the terminal is asked all the same.
    let answers = [("Passphrase for", "a b c d e f g\r")];
    let piped = format!("echo {OTHER} | forge secret set SECOND");
    let (code, shown) = on_a_terminal(&world, &piped, &answers).expect("a terminal");
    assert_eq!(code, 0, "{shown}");
    // Ctrl-C gives up and leaves a terminal that shows again what is typed.
    let answers = [("Passphrase for", "\u{3}")];
    let line = "forge secret list; stty -a | grep -o ' .echo '";
    let (_, shown) = on_a_terminal(&world, line, &answers).expect("a terminal");
    assert!(shown.contains("there is no passphrase") && !shown.contains("-echo "), "{shown}");
    // A run asks as well, once.
    let server = serve(&mut world, ReplyScript::from_replies([MockReply::text("Done.")]));
    let answers = [("Passphrase for", "a b c d e f g\r")];
    let line = "forge run 'Say it' --provider openai --model tiny";
    let (code, shown) = on_a_terminal(&world, line, &answers).expect("a terminal");
    assert_eq!((code, server.request_count()), (0, 1), "{shown}");
}
