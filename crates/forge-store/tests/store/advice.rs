//! Cooldowns, health and weights: shared by processes, and kept.

use crate::contract::make;
use forge_ports::routing::{CooldownStore, ProviderHealth, WeightStore};
use forge_store::{Options, SqliteStore};
use forge_types::{Cooldown, ErrorKind, TaskKind, Tier, Timestamp, WeightRow};

fn cooldown(provider: &str, failures: u32) -> Cooldown {
    Cooldown {
        provider: provider.into(),
        failures,
        reason: ErrorKind::RateLimit,
        message: "429".into(),
        since: Timestamp::from_micros(5),
        until: Timestamp::from_micros(60_000_005),
        credential: "c0ffee".into(),
    }
}

fn weight(model: &str, weight: f64) -> WeightRow {
    WeightRow {
        task_type: TaskKind::Code,
        tier: Tier::Hard,
        provider: "openai".into(),
        model: model.into(),
        weight,
        success_count: 4,
        total_count: 6,
        last_updated: Timestamp::from_micros(7),
    }
}

fn health() -> ProviderHealth {
    ProviderHealth {
        provider: "ollama".into(),
        ok: false,
        message: "nobody answers".into(),
        latency_ms: 3,
        at: Timestamp::from_micros(9),
        configuration: "abc".into(),
    }
}

pub(crate) async fn write_golden(store: &SqliteStore) {
    store.set_cooldown(cooldown("openai", 2)).await.unwrap();
    store.record_health(health()).await.unwrap();
    store.set_weight(weight("a", 0.5)).await.unwrap();
}

pub(crate) async fn check_golden(store: &SqliteStore) {
    assert_eq!(store.list_cooldowns().await.unwrap(), [cooldown("openai", 2)]);
    assert_eq!(store.list_health().await.unwrap(), [health()]);
    assert_eq!(store.list_weights().await.unwrap(), [weight("a", 0.5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooldown_is_seen_by_other_processes_and_outlasts_them() {
    let (store, dir) = make();
    let other = SqliteStore::open(&Options { data_dir: dir.path().join("data") }).unwrap();
    store.set_cooldown(cooldown("openai", 1)).await.unwrap();
    store.set_cooldown(cooldown("gemini", 1)).await.unwrap();
    store.set_cooldown(cooldown("openai", 2)).await.unwrap();
    assert_eq!(other.list_cooldowns().await.unwrap(), [cooldown("gemini", 1), cooldown("openai", 2)]);
    other.clear_cooldown("gemini").await.unwrap();
    drop((store, other));
    let again = SqliteStore::open(&Options { data_dir: dir.path().join("data") }).unwrap();
    assert_eq!(again.list_cooldowns().await.unwrap(), [cooldown("openai", 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_of_a_provider_is_kept() {
    let (store, _dir) = make();
    let health = health();
    store.record_health(ProviderHealth { ok: true, ..health.clone() }).await.unwrap();
    store.record_health(health.clone()).await.unwrap();
    assert_eq!(store.list_health().await.unwrap(), [health]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_set_and_removed_by_kind_tier_and_model() {
    let (store, _dir) = make();
    store.set_weight(weight("b", 0.5)).await.unwrap();
    store.set_weight(weight("a", 0.5)).await.unwrap();
    store.set_weight(weight("b", 0.9)).await.unwrap();
    assert_eq!(store.list_weights().await.unwrap(), [weight("a", 0.5), weight("b", 0.9)]);
    assert!(store.delete_weight(TaskKind::Code, Tier::Hard, "openai", "a").await.unwrap());
    assert!(!store.delete_weight(TaskKind::Code, Tier::Simple, "openai", "b").await.unwrap());
    assert_eq!(store.list_weights().await.unwrap(), [weight("b", 0.9)]);
}
