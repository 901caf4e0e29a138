//! Logging in with a browser, against an authorization server that behaves like a real one.

use crate::harness::{Done, World, until};
use forge_testkit::auth_server::{AuthFault, AuthServer, BrowserVisit, CLIENT_ID, visit_url};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;

const FLAGS: [&str; 4] = ["--provider", "openai", "--model", "tiny"];

/// A world whose logins go to this server.
fn world(server: &AuthServer) -> World {
    let mut world = World::new();
    world.set("FORGE_LOGIN_AUTHORIZE_URL", &server.authorize_url());
    world.set("FORGE_LOGIN_TOKEN_URL", &server.token_url());
    world.set("FORGE_LOGIN_CLIENT_ID", CLIENT_ID);
    world.set("FORGE_LOGIN_PORT", "0");
    world
}

/// Logs in, with a browser that opens the address that is printed. Gives exit code, all output, and the last page.
fn log_in(world: &World, words: &[&str]) -> (Option<i32>, String, BrowserVisit) {
    let mut command = world.command(&[&["login", "openai", "--no-browser"], words].concat());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut said = String::new();
    let url = loop {
        let before = said.len();
        assert!(err.read_line(&mut said).expect("text") > 0, "no address in {said}");
        if let Some(url) = said[before..].trim().strip_prefix("http") {
            break format!("http{url}");
        }
    };
    let page = visit_url(&url).expect("somebody answers");
    err.read_to_string(&mut said).expect("text");
    let done = child.wait_with_output().expect("its output");
    said.push_str(&String::from_utf8_lossy(&done.stdout));
    (done.status.code(), said, page)
}

/// A model that answers whoever brings a token that the authorization server accepts.
fn guarded(world: &mut World, logins: &Arc<AuthServer>) -> ModelServer {
    let logins = logins.clone();
    let server = ModelServer::start(ReplyScript::always(move |call| {
        let header = call.http.header("authorization").unwrap_or_default();
        let token = header.strip_prefix("Bearer ").unwrap_or_default();
        if logins.accepts_token(token) { MockReply::text("Done.") } else { MockReply::status(401) }
    }));
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi));
    server
}

fn shows_no_token(logins: &AuthServer, done: &Done) {
    for token in logins.issued_tokens() {
        assert!(!done.out.contains(&token) && !done.err.contains(&token), "{done:?}");
    }
}

#[test]
fn a_login_is_kept_shown_used_renewed_and_forgotten() {
    let logins = Arc::new(AuthServer::start());
    let mut world = world(&logins);
    let server = guarded(&mut world, &logins);
    world.run(&FLAGS, "Say it").exits(1).shows(&["has no API key"]);
    world.forge(&["login", "status"]).exits(0).shows(&["not logged in", "forge login openai"]);
    let (code, said, page) = log_in(&world, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("logged in to openai as ada@example.com"), "{said}");
    assert!(page.text.contains("You are logged in"), "{page:?}");
    let path = world.path("data").join("forge/credentials/openai.json");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    world.forge(&["login", "status"]).exits(0).shows(&["ada@example.com", "token until"]);
    world
        .forge(&["doctor"])
        .shows(&["login: openai: valid as ada@example.com", "logged in; no key is needed"]);
    shows_no_token(&logins, &world.run(&[&FLAGS[..], &["-vv"]].concat(), "Say it").exits(0));
    // Without any provider named, too, and after the token was taken back.
    logins.end_access();
    shows_no_token(&logins, &world.run(&["--model", "tiny", "-vv"], "Say it").exits(0));
    assert_eq!((logins.renewal_count(), server.request_count()), (1, 3));
    world.forge(&["logout", "openai"]).exits(0).shows(&["logged out"]);
    world.forge(&["logout", "openai"]).exits(0).shows(&["not logged in"]);
    world.run(&FLAGS, "Say it").exits(1).shows(&["has no API key"]);
}

#[test]
fn many_runs_that_are_refused_at_once_renew_the_token_once() {
    let logins = Arc::new(AuthServer::start());
    let mut world = world(&logins);
    let _server = guarded(&mut world, &logins);
    assert_eq!(log_in(&world, &[]).0, Some(0));
    logins.end_access();
    let runs: Vec<_> = (0..4).map(|_| world.start(&[&["run", "Say it"], &FLAGS[..]].concat())).collect();
    for run in runs {
        run.wait().exits(0);
    }
    assert_eq!(logins.renewal_count(), 1);
}

#[test]
fn a_token_that_is_about_to_expire_is_renewed_before_it_is_used() {
    let logins = Arc::new(AuthServer::start());
    logins.set_lifetime(0);
    let mut world = world(&logins);
    let server = guarded(&mut world, &logins);
    assert_eq!(log_in(&world, &[]).0, Some(0));
    logins.set_lifetime(3600);
    world.run(&FLAGS, "Say it").exits(0);
    assert_eq!((logins.renewal_count(), server.request_count()), (1, 1));
}

#[test]
fn a_login_that_ended_elsewhere_is_named_with_the_way_out() {
    let logins = Arc::new(AuthServer::start());
    let mut world = world(&logins);
    let _server = guarded(&mut world, &logins);
    assert_eq!(log_in(&world, &[]).0, Some(0));
    logins.end_access();
    logins.end_logins();
    let done = world.run(&FLAGS, "Say it").exits(1);
    assert!(done.out.contains("forge login openai") || done.err.contains("forge login openai"), "{done:?}");
    shows_no_token(&logins, &done);
}

#[test]
fn a_new_login_is_asked_at_once_although_the_old_one_was_given_up() {
    let logins = Arc::new(AuthServer::start());
    let mut world = world(&logins);
    let server = guarded(&mut world, &logins);
    let spare = ModelServer::start(ReplyScript::always(|_| MockReply::text("From the other one.")));
    world
        .set("ANTHROPIC_BASE_URL", &spare.base_url(VendorFormat::Anthropic))
        .set("ANTHROPIC_API_KEY", crate::harness::KEY);
    assert_eq!(log_in(&world, &[]).0, Some(0));
    logins.end_access();
    logins.end_logins();
    world.run(&FLAGS, "Say it").exits(1);
    assert_eq!(log_in(&world, &[]).0, Some(0));
    world.run(&FLAGS, "Say it").exits(0).shows(&["Done."]);
    assert_eq!((server.request_count(), spare.request_count()), (2, 0));
}

#[test]
fn whatever_goes_wrong_in_a_login_is_said_here_and_in_the_browser() {
    let logins = AuthServer::start();
    let world = world(&logins);
    for (fault, words) in [
        (AuthFault::Denied, "access_denied"),
        (AuthFault::WrongState, "belongs to another login"),
        (AuthFault::UsedCode, "used before"),
        (AuthFault::OtherChallenge, "does not fit the challenge"),
        (AuthFault::Down, "127.0.0.1"),
        (AuthFault::Page, "a web page"),
    ] {
        logins.set_fault(fault);
        let (code, said, page) = log_in(&world, &[]);
        assert_eq!(code, Some(1), "{fault:?}: {said}");
        assert!(said.contains(words), "{fault:?}: {said}");
        assert!(page.text.contains("You are not logged in"), "{fault:?}: {page:?}");
    }
    assert!(!world.path("data").join("forge/credentials/openai.json").exists());
}

#[test]
fn a_slow_server_ends_the_login_in_the_time_that_is_set() {
    let logins = AuthServer::start();
    logins.set_fault(AuthFault::Silent);
    let mut world = world(&logins);
    world.set("FORGE_LOGIN_TIMEOUT_SECONDS", "1");
    let (code, said, _) = log_in(&world, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did not answer within 1 s"), "{said}");
}

#[test]
fn a_port_that_is_taken_and_a_provider_without_logins_are_named() {
    let logins = AuthServer::start();
    let mut world = world(&logins);
    world
        .forge(&["login", "anthropic"])
        .exits(2)
        .says(&["forge does not support logins at anthropic", "forge secret set"]);
    world.forge(&["logout", "nobody"]).exits(2).says(&["openai"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    world.set("FORGE_LOGIN_PORT", &port);
    world.forge(&["login", "openai"]).exits(1).says(&["is in use", &port]);
}

#[test]
fn the_browser_is_opened_where_there_is_a_screen() {
    let logins = AuthServer::start();
    let mut world = world(&logins);
    // A browser of this test's own, which writes down what it was asked to open.
    let tools = world.make_folder("tools");
    let opened = world.path("opened");
    let script = format!("#!/bin/sh\nprintf '%s' \"$1\" > {0}.new && mv {0}.new {0}\n", opened.display());
    std::fs::write(tools.join("xdg-open"), script).unwrap();
    std::fs::set_permissions(tools.join("xdg-open"), std::fs::Permissions::from_mode(0o755)).unwrap();
    world.set("PATH", &format!("{}:/usr/bin:/bin", tools.display())).set("DISPLAY", ":0");
    let running = world.start(&["login", "openai", "--json"]);
    let url = until("the address", || std::fs::read_to_string(&opened).ok());
    assert_eq!(visit_url(&url).unwrap().status, 200);
    let done = running.wait().exits(0).says(&["Opening your browser"]);
    assert_eq!(done.json()["account"], "ada@example.com");
}

#[test]
fn a_key_is_used_before_a_login() {
    let logins = Arc::new(AuthServer::start());
    let mut world = world(&logins);
    assert_eq!(log_in(&world, &[]).0, Some(0));
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("Done.")]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    world.run(&flags, "Say it").exits(0);
    let sent = server.recorded_requests()[0].header("authorization").unwrap_or_default().to_owned();
    assert_eq!(sent, format!("Bearer {}", crate::harness::KEY));
}
