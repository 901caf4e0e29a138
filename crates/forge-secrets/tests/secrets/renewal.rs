//! Tokens that renew themselves: before they expire, after they were refused, once for all who ask.

use crate::login::{clock, endpoints};
use forge_ports::Clock as _;
use forge_secrets::login::start_login;
use forge_secrets::{CredentialsFile, ExposeSecret as _, LoginError, LoginSession, TokenState};
use forge_testkit::auth_server::{AuthFault, AuthServer, visit_url};
use forge_testkit::clock::TestClock;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct World {
    folder: TempDir,
    server: AuthServer,
    clock: TestClock,
}

impl World {
    /// Somebody who has just logged in.
    async fn new() -> Self {
        let (folder, server, clock) = (tempfile::tempdir().unwrap(), AuthServer::start(), clock());
        let pending = start_login(endpoints(&server)).await.unwrap();
        let url = pending.url().to_owned();
        let browser = tokio::task::spawn_blocking(move || visit_url(&url));
        let got = pending.finish(Duration::from_secs(30), &clock).await.unwrap();
        browser.await.unwrap();
        let world = Self { folder, server, clock };
        world.file().save(&got).unwrap();
        world
    }

    fn file(&self) -> CredentialsFile {
        CredentialsFile::for_provider(self.folder.path(), "openai")
    }

    /// As another process sees it.
    fn login(&self) -> Arc<LoginSession> {
        Arc::new(LoginSession::new(self.file(), Duration::from_secs(20), Arc::new(self.clock.clone())))
    }

    async fn token(&self) -> Result<String, LoginError> {
        self.login().valid_token().await.map(|token| token.expose_secret().to_owned())
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_comes_back_as_it_was() {
    let world = World::new().await;
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(world.file().path(), world.folder.path().join("credentials/openai.json"));
    assert_eq!((mode(world.file().path()), mode(&world.folder.path().join("credentials"))), (0o600, 0o700));
    let loaded = world.file().load().unwrap().unwrap();
    assert_eq!(loaded.account.as_deref(), Some("ada@example.com"));
    assert!(matches!(loaded.token_state(world.clock.now()), TokenState::Valid(Some(_))));
    assert!(world.file().remove().unwrap() && !world.file().remove().unwrap());
    assert!(matches!(world.token().await, Err(LoginError::None { .. })));
}

#[tokio::test]
async fn a_fresh_token_is_used_as_it_is() {
    let world = World::new().await;
    let login = world.login();
    let first = login.valid_token().await.unwrap();
    assert_eq!(first.expose_secret(), login.valid_token().await.unwrap().expose_secret());
    assert_eq!(world.server.renewal_count(), 0);
}

#[tokio::test]
async fn a_token_is_renewed_shortly_before_it_expires() {
    let world = World::new().await;
    let first = world.token().await.unwrap();
    world.clock.advance(Duration::from_secs(3600 - 90));
    let second = world.token().await.unwrap();
    assert_ne!(first, second);
    assert!(world.server.accepts_token(&second));
    // The refresh token rotated and was kept: it works again.
    world.clock.advance(Duration::from_secs(3600 - 90));
    assert_ne!(world.token().await.unwrap(), second);
    assert_eq!(world.server.renewal_count(), 2);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_for_all_who_were_refused() {
    let world = World::new().await;
    let refused = world.token().await.unwrap();
    world.server.end_access();
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let (login, refused) = (world.login(), refused.clone());
            tokio::spawn(async move {
                login.refresh_after_rejection(&refused).await.unwrap().expose_secret().to_owned()
            })
        })
        .collect();
    let mut got = Vec::new();
    for task in tasks {
        got.push(task.await.unwrap());
    }
    got.dedup();
    assert_eq!((got.len(), world.server.renewal_count()), (1, 1));
    assert!(world.server.accepts_token(&got[0]));
}

#[tokio::test]
async fn many_who_find_an_expired_token_renew_it_once() {
    let world = World::new().await;
    world.clock.advance(Duration::from_secs(4000));
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let login = world.login();
            tokio::spawn(async move { login.valid_token().await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(world.server.renewal_count(), 1);
}

#[tokio::test]
async fn a_login_that_ended_elsewhere_says_so_and_keeps_the_file() {
    let world = World::new().await;
    world.server.end_logins();
    world.clock.advance(Duration::from_secs(4000));
    let error = world.token().await.unwrap_err();
    assert!(matches!(error, LoginError::Ended { .. }));
    assert!(error.next_steps() == [forge_types::NextStep::Login { provider: "openai".into() }], "{error}");
    for token in world.server.issued_tokens() {
        assert!(!error.to_string().contains(&token));
    }
    assert!(world.file().exists());
}

#[tokio::test]
async fn trouble_at_the_server_does_not_stop_a_token_that_is_still_good() {
    let world = World::new().await;
    let first = world.token().await.unwrap();
    world.clock.advance(Duration::from_secs(3600 - 90));
    for fault in [AuthFault::Down, AuthFault::Overloaded, AuthFault::Page] {
        world.server.set_fault(fault);
        assert_eq!(world.token().await.unwrap(), first, "{fault:?}");
    }
    world.clock.advance(Duration::from_secs(100));
    assert!(matches!(world.token().await, Err(LoginError::Malformed { .. })));
    // Refused is refused, however good it looks.
    assert!(world.login().refresh_after_rejection(&first).await.is_err());
    world.server.set_fault(AuthFault::None);
    assert_ne!(world.token().await.unwrap(), first);
}

#[tokio::test]
async fn an_unreadable_file_is_told_from_none() {
    let world = World::new().await;
    let path = world.file().path().to_owned();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = world.token().await.unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, b"{\"version\":1,\"access").unwrap();
    assert!(matches!(world.token().await, Err(LoginError::Damaged { .. })));
}
