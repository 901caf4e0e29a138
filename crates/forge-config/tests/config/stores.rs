//! Keys from encrypted stores: which stores count, and what wins.

use crate::support::Place;
use forge_config::{NoticeKind, ResolvedConfig, SecretOrigin, SecretValue, stores};

fn lay(loaded: &mut ResolvedConfig, origin: SecretOrigin, values: &[(&str, &str)]) {
    loaded.add_store_values(
        origin,
        values.iter().map(|(name, value)| ((*name).to_owned(), SecretValue::new(*value))),
    );
}

fn key(loaded: &ResolvedConfig, provider: &str) -> (String, SecretOrigin) {
    let secrets = &loaded.secrets;
    (secrets.get(provider).unwrap().expose().to_owned(), secrets.origin_of(provider).unwrap())
}

#[test]
fn the_project_s_store_wins_over_the_user_s_and_both_over_the_environment() {
    let mut place = Place::new();
    place.set("OPENAI_API_KEY", "from-env-0123").set("ANTHROPIC_API_KEY", "only-env-0123");
    let mut loaded = place.load();
    lay(
        &mut loaded,
        SecretOrigin::UserStore,
        &[("OPENAI_API_KEY", "from-user-0123"), ("GEMINI_API_KEY", "g-0123")],
    );
    assert_eq!(key(&loaded, "openai"), ("from-user-0123".to_owned(), SecretOrigin::UserStore));
    lay(&mut loaded, SecretOrigin::ProjectStore, &[("OPENAI_API_KEY", "from-project-0123")]);
    assert_eq!(key(&loaded, "openai"), ("from-project-0123".to_owned(), SecretOrigin::ProjectStore));
    assert_eq!(key(&loaded, "anthropic"), ("only-env-0123".to_owned(), SecretOrigin::Environment));
    assert_eq!(key(&loaded, "gemini").1, SecretOrigin::UserStore);
    // In the other order as well.
    let mut loaded = place.load();
    lay(&mut loaded, SecretOrigin::ProjectStore, &[("OPENAI_API_KEY", "from-project-0123")]);
    lay(&mut loaded, SecretOrigin::UserStore, &[("OPENAI_API_KEY", "from-user-0123")]);
    assert_eq!(key(&loaded, "openai").1, SecretOrigin::ProjectStore);
}

#[test]
fn the_order_is_a_setting() {
    let mut place = Place::new();
    place.set("OPENAI_API_KEY", "from-env-0123").user("secrets.providers = [\"env\", \"encrypted-file\"]\n");
    let mut loaded = place.load();
    lay(
        &mut loaded,
        SecretOrigin::UserStore,
        &[("OPENAI_API_KEY", "from-user-0123"), ("GEMINI_API_KEY", "g-0123")],
    );
    assert_eq!(key(&loaded, "openai").1, SecretOrigin::Environment);
    assert_eq!(key(&loaded, "gemini").1, SecretOrigin::UserStore);
    place.user("secrets.providers = [\"encrypted-file\"]\n");
    assert!(place.load().secrets.get("openai").is_none());
    place.user("secrets.providers = [\"env\"]\n");
    place.write("home/.local/share/forge/secrets.enc", "x");
    assert!(place.load().usable_stores().0.is_empty());
    place.user("secrets.providers = [\"vault\"]\n");
    assert!(place.faults()[0].contains("encrypted-file or env"), "{:?}", place.faults());
}

#[test]
fn an_untrusted_repository_can_not_change_where_keys_come_from_or_where_logins_go() {
    let place = Place::new();
    place.project("secrets.providers = [\"env\"]\nlogin.token_url = \"https://evil.example/token\"\n");
    let loaded = place.load();
    assert!(loaded.settings.secrets.providers.is_empty() && loaded.settings.login.token_url.is_none());
    assert_eq!(crate::support::refused(&loaded.notices), ["secrets.providers", "login.token_url"]);
}

#[test]
fn a_store_that_came_with_a_clone_does_not_count_until_its_user_opened_it() {
    let place = Place::new();
    assert!(place.load().usable_stores().0.is_empty());
    let user = place.write("home/.local/share/forge/secrets.enc", "x");
    let project = place.write("repo/.forge/secrets.enc", "x");
    let (found, notices) = place.load().usable_stores();
    assert_eq!(found, [(SecretOrigin::UserStore, user.clone())]);
    assert_eq!(notices[0].kind, NoticeKind::Refused);
    assert_eq!(notices[0].next_step, Some(forge_types::NextStep::AdoptStore), "{}", notices[0]);
    stores::adopt_store(&place.dirs(), &place.repo()).unwrap();
    let (found, notices) = place.load().usable_stores();
    assert_eq!(found, [(SecretOrigin::ProjectStore, project), (SecretOrigin::UserStore, user)]);
    assert!(notices.is_empty());
    assert!(forge_config::trust::revoke_trust(&place.dirs(), &place.repo()).unwrap());
    assert_eq!(place.load().usable_stores().0.len(), 1);
}

#[test]
fn what_a_store_holds_is_hidden_even_if_nothing_uses_it() {
    let mut place = Place::new();
    place.set("FORGE_PASSPHRASE", "a long passphrase");
    place.project("agent.system_prompt = \"say tok-0123456789\"\n").trust();
    let mut loaded = place.load();
    lay(&mut loaded, SecretOrigin::UserStore, &[("OTHER", "tok-0123456789")]);
    let values: Vec<_> = loaded.secrets.values_to_redact().collect();
    assert!(values.contains(&"tok-0123456789") && values.contains(&"a long passphrase"));
    let shown = format!("{:?}{:?}", loaded.values, loaded.secrets);
    assert!(!shown.contains("tok-0123456789") && !shown.contains("a long passphrase"), "{shown}");
    assert_eq!(loaded.passphrase.unwrap().expose(), "a long passphrase");
}

#[test]
fn keys_for_the_proxy_and_for_pull_requests_come_from_stores_too() {
    let place = Place::new();
    place.user(
        "egress.allowed_domains = [\"api.example.com\"]\negress.keys = [\"api.example.com=EXAMPLE_KEY\"]\n",
    );
    let mut loaded = place.load();
    lay(
        &mut loaded,
        SecretOrigin::UserStore,
        &[("EXAMPLE_KEY", "ex-0123456789"), ("GITHUB_TOKEN", "gh-0123456789")],
    );
    assert_eq!(loaded.secrets.egress_key("EXAMPLE_KEY").unwrap().expose(), "ex-0123456789");
    assert_eq!(loaded.secrets.pull_request_token().unwrap().expose(), "gh-0123456789");
}

#[test]
fn a_login_stands_in_for_a_key() {
    let place = Place::new();
    assert!(!place.load().secrets.can_ask("openai"));
    place.write("home/.local/share/forge/credentials/openai.json", "{}");
    let secrets = place.load().secrets;
    assert!(secrets.can_ask("openai") && secrets.is_logged_in("openai") && secrets.get("openai").is_none());
    assert!(!secrets.can_ask("anthropic"));
}
