//! `create_pr` against a GitHub that is scripted, over real HTTP.

use crate::{Bench, said};
use forge_ports::ToolRegistry;
use forge_tools::{GitHubOptions, GitHubToken, ToolOptions};
use forge_types::{ErrorKind, PullRequestRules, RemoteRepository, ToolOutput};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

const SECRET: &str = "ghp_averysecrettoken";

/// A request as it came.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: String,
    body: Value,
}

/// Answers requests in order, each on a connection of its own.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers are status, further header lines and a body. One of status 0 closes the connection.
    fn start(answers: Vec<(u16, &'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (status, headers, body) in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while reader.read_line(&mut head).unwrap() > 2 {}
                let lower = head.to_lowercase();
                let length = lower
                    .split("content-length: ")
                    .nth(1)
                    .map_or(0, |rest| rest.split("\r\n").next().unwrap_or_default().parse().unwrap());
                let mut sent = vec![0; length];
                reader.read_exact(&mut sent).unwrap();
                let line = head.lines().next().unwrap_or_default().to_owned();
                let body_sent = serde_json::from_slice(&sent).unwrap_or(Value::Null);
                kept.lock().unwrap().push(Seen { line, headers: head, body: body_sent });
                if status > 0 {
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    fn tools(&self) -> ToolRegistry {
        tools(&self.address, Some(SECRET), &["127.0.0.1"])
    }
}

fn tools(api: &str, token: Option<&str>, allow: &[&str]) -> ToolRegistry {
    let github = GitHubOptions {
        api: api.to_owned(),
        token: token.map(GitHubToken::new),
        allow: allow.iter().map(|&host| host.to_owned()).collect(),
        proxy: None,
    };
    forge_tools::builtin_tools_with(&ToolOptions { github, ..ToolOptions::default() })
}

fn open(tools: &ToolRegistry, bench: &Bench, more: Value) -> ToolOutput {
    let mut arguments = json!({"title": "Mend it", "body": "It was broken."});
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let output = bench.call_of(tools, "create_pr", arguments).unwrap();
    assert!(!said(&output).contains(SECRET), "{output:?}");
    output
}

/// A bench whose repository came from `host` as `repository`; the user permits `more`.
fn bench(host: &str, repository: &str, more: &[&str]) -> Bench {
    let origin = RemoteRepository { host: host.to_owned(), repository: repository.to_owned() };
    let repositories = more.iter().map(|&name| name.to_owned()).collect();
    Bench { pull_requests: PullRequestRules { origin: Some(origin), repositories }, ..Bench::new() }
}

/// A bench whose repository is `o/n` of the scripted server.
fn usual() -> Bench {
    bench("127.0.0.1", "o/n", &[])
}

fn pull() -> String {
    json!({"number": 7, "html_url": "https://github.com/o/n/pull/7"}).to_string()
}

fn given() -> Value {
    json!({"repo": "o/n", "head": "mend", "base": "main"})
}

#[test]
fn a_pull_request_is_opened() {
    let server = Server::start(vec![(201, "", pull())]);
    let output = open(&server.tools(), &usual(), given());
    assert_eq!(said(&output), "Opened pull request #7: https://github.com/o/n/pull/7");
    let seen = &server.seen()[0];
    assert_eq!(seen.line, "POST /repos/o/n/pulls HTTP/1.1");
    assert_eq!(
        seen.body,
        json!({"title": "Mend it", "body": "It was broken.", "head": "mend", "base": "main"})
    );
    let headers = seen.headers.to_lowercase();
    assert!(headers.contains(&format!("authorization: bearer {SECRET}")), "{headers}");
    assert!(
        headers.contains("accept: application/vnd.github+json") && headers.contains("user-agent: forge/")
    );
    assert!(headers.contains("idempotency-key: key-of-this-call"), "{headers}");
}

#[test]
fn what_is_left_out_comes_from_the_repository() {
    let server =
        Server::start(vec![(200, "", json!({"default_branch": "trunk"}).to_string()), (201, "", pull())]);
    let bench = usual();
    // What a run writes into the configuration changes nothing.
    bench.host("git init -q -b mend . && git remote add origin https://127.0.0.1/stranger/public.git");
    assert!(open(&server.tools(), &bench, json!({})).is_ok());
    assert_eq!(server.lines(), ["GET /repos/o/n HTTP/1.1", "POST /repos/o/n/pulls HTTP/1.1"]);
    assert_eq!(
        (&server.seen()[1].body["head"], &server.seen()[1].body["base"]),
        (&json!("mend"), &json!("trunk"))
    );
    // The token never was in the box.
    assert!(bench.workspace.requested_commands().iter().all(|spec| !format!("{spec:?}").contains(SECRET)));
}

#[test]
fn a_remote_elsewhere_gets_no_request() {
    let server = Server::start(vec![]);
    let bench = bench("gitlab.example", "o/n", &[]);
    let output = open(&server.tools(), &bench, json!({}));
    assert_eq!(output.error, Some(ErrorKind::BadArguments));
    assert!(said(&output).contains("is on gitlab.example, not on GitHub"));
    // A repository of the same name on the other server is another one.
    assert_eq!(open(&server.tools(), &bench, given()).error, Some(ErrorKind::Denied));
    let bench = usual();
    let output = open(&server.tools(), &bench, json!({"repo": "o/n", "head": "x", "base": "x"}));
    assert!(said(&output).contains("head and base are both `x`"));
    for bad in [
        json!({"title": " "}),
        json!({"repo": "o"}),
        json!({"head": "a b", "base": "c"}),
        json!({"head": "a", "base": "x:c"}),
    ] {
        assert_eq!(open(&server.tools(), &bench, bad).error, Some(ErrorKind::BadArguments));
    }
    assert!(server.lines().is_empty());
}

#[test]
fn what_github_refuses_is_said_clearly() {
    let head = json!({"message": "Validation Failed", "errors": [{"resource": "PullRequest", "field": "head", "code": "invalid"}]});
    let none =
        json!({"message": "Validation Failed", "errors": [{"message": "No commits between main and mend"}]});
    let echo = json!({"message": format!("bad token {SECRET}")});
    for (status, headers, body, kind, wanted) in [
        (
            401,
            "",
            json!({"message": "Bad credentials"}),
            ErrorKind::Auth,
            "rejected the token (401: Bad credentials)",
        ),
        (
            404,
            "",
            json!({"message": "Not Found"}),
            ErrorKind::NotFound,
            "GitHub has no repository `o/n`, or the token can't access it",
        ),
        (
            403,
            "",
            json!({"message": "Resource not accessible"}),
            ErrorKind::Denied,
            "the token lacks permission for this (403: Resource",
        ),
        (
            403,
            "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1800000000\r\n",
            json!({}),
            ErrorKind::RateLimit,
            "Try again after 2027-01-15T08:00:00",
        ),
        (429, "retry-after: 60\r\n", json!({}), ErrorKind::RateLimit, "Try again after 60 s"),
        (422, "", head, ErrorKind::Execution, "Is the branch `mend` on GitHub?"),
        (
            422,
            "",
            none,
            ErrorKind::Execution,
            "GitHub refused the request: Validation Failed; No commits between main and mend",
        ),
        (422, "", echo, ErrorKind::Execution, "bad token ***"),
        (
            307,
            "location: https://elsewhere.example/x\r\n",
            json!({}),
            ErrorKind::Denied,
            "redirects to another host",
        ),
    ] {
        let server = Server::start(vec![(status, headers, body.to_string())]);
        let output = open(&server.tools(), &usual(), given());
        assert_eq!(output.error, Some(kind), "{output:?}");
        assert!(said(&output).contains(wanted), "{output:?}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[test]
fn nothing_is_opened_twice() {
    let exists = json!({"message": "Validation Failed", "errors": [{"message": "A pull request already exists for o:mend."}]});
    let list = format!("[{}]", pull());
    for first in [(422, "", exists.to_string()), (502, "", String::new()), (0, "", String::new())] {
        let server = Server::start(vec![first, (200, "", list.clone())]);
        let output = open(&server.tools(), &usual(), given());
        assert!(
            output.is_ok()
                && said(&output).contains("One already exists for these branches: pull request #7"),
            "{output:?}"
        );
        assert_eq!(server.lines()[1], "GET /repos/o/n/pulls?state=open&head=o%3Amend&base=main HTTP/1.1");
    }
    let server = Server::start(vec![(502, "", String::new()), (200, "", "[]".to_owned())]);
    let output = open(&server.tools(), &usual(), given());
    assert_eq!(output.error, Some(ErrorKind::Unavailable));
    assert!(said(&output).contains("is unknown whether"), "{output:?}");
}

#[test]
fn a_renamed_repository_is_followed_on_the_same_host() {
    let server =
        Server::start(vec![(307, "location: /repositories/1/pulls\r\n", String::new()), (201, "", pull())]);
    assert!(open(&server.tools(), &usual(), given()).is_ok());
    assert_eq!(server.lines()[1], "POST /repositories/1/pulls HTTP/1.1");
    assert_eq!(server.seen()[1].body["head"], "mend");
}

#[test]
fn without_a_token_or_a_permitted_host_nothing_is_sent() {
    let bench = bench("git.example", "o/n", &["o/n"]);
    for (api, token, allow, kind, wanted) in [
        ("https://api.github.com", None, &[][..], ErrorKind::Auth, "there is no GitHub token"),
        (
            "https://git.example/api/v3",
            Some(SECRET),
            &[],
            ErrorKind::Denied,
            "egress blocked: domain git.example not in allowlist (mode=allowlist)",
        ),
        (
            "https://git.example/api/v3",
            Some(SECRET),
            &["*.other", "example"],
            ErrorKind::Denied,
            "egress blocked",
        ),
        ("http://git.example", Some(SECRET), &["*.example"], ErrorKind::ConfigInvalid, "over https only"),
        ("nonsense", Some(SECRET), &[], ErrorKind::ConfigInvalid, "is not a URL"),
    ] {
        let output = open(&tools(api, token, allow), &bench, given());
        assert_eq!(output.error, Some(kind), "{output:?}");
        assert!(said(&output).contains(wanted), "{output:?}");
    }
    assert!(
        !format!(
            "{:?}",
            ToolOptions {
                github: GitHubOptions { token: Some(GitHubToken::new(SECRET)), ..GitHubOptions::default() },
                ..ToolOptions::default()
            }
        )
        .contains(SECRET)
    );
}

#[test]
fn a_model_sends_a_pull_request_to_no_stranger() {
    let server = Server::start(vec![]);
    let bench = bench("127.0.0.1", "o/n", &["me/fork"]);
    for wanted in [
        json!({"repo": "stranger/public", "head": "stranger:b", "base": "main"}),
        json!({"repo": "stranger/public", "head": "mend", "base": "main"}),
        json!({"repo": "stranger/public"}),
        json!({"repo": "o/other", "head": "mend", "base": "main"}),
        json!({"repo": "o/n/", "head": "stranger:b", "base": "main"}),
        json!({"head": "stranger:b", "base": "main"}),
    ] {
        let output = open(&server.tools(), &bench, wanted.clone());
        assert_eq!(output.error, Some(ErrorKind::Denied), "{wanted}: {output:?}");
        assert!(said(&output).contains("tools.create_pr.repositories"), "{output:?}");
    }
    for wanted in [json!({"head": "me:fork:b", "base": "main"}), json!({"head": "me:", "base": "main"})] {
        assert_eq!(open(&server.tools(), &bench, wanted).error, Some(ErrorKind::BadArguments));
    }
    assert!(server.lines().is_empty());
}

#[test]
fn what_the_user_permits_is_done() {
    let answers = (0..4).map(|_| (201, "", pull())).collect();
    let server = Server::start(answers);
    let bench = bench("127.0.0.1", "o/n", &["me/fork"]);
    for (wanted, line) in [
        (json!({"repo": "O/N", "head": "mend", "base": "main"}), "POST /repos/O/N/pulls HTTP/1.1"),
        (json!({"repo": "o/n", "head": "me:mend", "base": "main"}), "POST /repos/o/n/pulls HTTP/1.1"),
        (json!({"repo": "me/fork", "head": "o:mend", "base": "main"}), "POST /repos/me/fork/pulls HTTP/1.1"),
        (json!({"repo": "me/fork", "head": "mend", "base": "main"}), "POST /repos/me/fork/pulls HTTP/1.1"),
    ] {
        assert!(open(&server.tools(), &bench, wanted).is_ok());
        assert_eq!(server.lines().last().unwrap(), line);
    }
}

#[test]
fn without_an_origin_nothing_is_sent() {
    let server = Server::start(vec![]);
    let bench = Bench::new();
    bench.host("git init -q -b mend . && git remote add origin https://127.0.0.1/o/n.git");
    let output = open(&server.tools(), &bench, json!({}));
    assert_eq!(output.error, Some(ErrorKind::BadArguments));
    assert!(said(&output).contains("when the run began"), "{output:?}");
    assert_eq!(open(&server.tools(), &bench, given()).error, Some(ErrorKind::Denied));
    assert!(server.lines().is_empty());
}
