//! What every ledger shows.

#![allow(clippy::unwrap_used, reason = "a contract suite is a test: what it finds is a panic")]

use crate::sample::event_batch;
use forge_ports::journal::{Batch, Error, Journal, Posting};
use forge_ports::ledger::{Balance, Ledger};
use forge_types::{EffectId, Money, RunId, Seq};

fn reserve_posting(account: &str, effect: u64, amount: i64, ceiling: Option<i64>) -> Posting {
    let account = account.to_owned();
    Posting::Reserve { account, effect: EffectId(effect), amount: Money(amount), ceiling: ceiling.map(Money) }
}

fn settle_posting(effect: u64, actual: i64) -> Posting {
    Posting::Settle { effect: EffectId(effect), actual: Money(actual) }
}

fn batch_with_postings(run: RunId, expected: u64, postings: Vec<Posting>) -> Batch {
    Batch { postings, ..event_batch(run, expected, 1) }
}

async fn read_balance(store: &impl Ledger, account: &str) -> (i64, i64) {
    let Balance { spent, reserved } = store.balance(account).await.expect("a balance can be read");
    (spent.0, reserved.0)
}

/// An effect reserves on several accounts and is booked on each of them with what it cost.
pub async fn reservations_become_spending_when_settled(store: &(impl Journal + Ledger)) {
    let run = RunId::generate();
    let both = vec![
        reserve_posting("run", 1, 40, Some(100)),
        reserve_posting("day", 1, 40, Some(500)),
        reserve_posting("run", 2, 60, None),
    ];
    store.append(batch_with_postings(run, 0, both)).await.unwrap();
    assert_eq!((read_balance(store, "run").await, read_balance(store, "day").await), ((0, 100), (0, 40)));
    let held = store.reservations(run).await.unwrap();
    let held: Vec<_> =
        held.iter().map(|(effect, account, amount)| (effect.0, account.as_str(), amount.0)).collect();
    assert_eq!(held, [(1, "day", 40), (1, "run", 40), (2, "run", 60)]);
    store.append(batch_with_postings(run, 1, vec![settle_posting(1, 25)])).await.unwrap();
    assert_eq!((read_balance(store, "run").await, read_balance(store, "day").await), ((25, 60), (25, 0)));
    store
        .append(batch_with_postings(run, 2, vec![settle_posting(1, 25), settle_posting(2, 0)]))
        .await
        .unwrap();
    assert_eq!((read_balance(store, "run").await, read_balance(store, "day").await), ((25, 0), (25, 0)));
    assert_eq!(store.reservations(run).await.unwrap(), []);
    assert_eq!(read_balance(store, "never used").await, (0, 0));
}

/// Of a run that is dead what it reserved is let go, on all accounts; what it settles later books nothing.
pub async fn reservations_of_a_dead_run_are_released(store: &(impl Journal + Ledger)) {
    let (dead, alive) = (RunId::generate(), RunId::generate());
    store
        .append(batch_with_postings(
            dead,
            0,
            vec![reserve_posting("run:d", 1, 40, None), reserve_posting("pot", 1, 40, Some(100))],
        ))
        .await
        .unwrap();
    store
        .append(batch_with_postings(
            alive,
            0,
            vec![reserve_posting("pot", 1, 30, Some(100)), reserve_posting("pot", 2, 5, Some(100))],
        ))
        .await
        .unwrap();
    let mut holders = store.holders("pot").await.unwrap();
    holders.sort_by_key(|(run, _)| *run != dead);
    assert_eq!(holders, [(dead, Money(40)), (alive, Money(35))]);
    store.release_run(dead, 0).await.unwrap();
    assert_eq!((read_balance(store, "pot").await, read_balance(store, "run:d").await), ((0, 35), (0, 0)));
    assert_eq!(store.holders("pot").await.unwrap(), [(alive, Money(35))]);
    store.append(batch_with_postings(dead, 1, vec![settle_posting(1, 25)])).await.unwrap();
    assert_eq!(read_balance(store, "pot").await, (0, 35));
    let names: Vec<_> = store.accounts("po").await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["pot"]);
    store.release_run(RunId::generate(), 0).await.unwrap();
}

/// What would pass a ceiling is not written: neither its events nor its other postings.
pub async fn a_ceiling_is_refused_and_nothing_is_written(store: &(impl Journal + Ledger)) {
    let (run, other) = (RunId::generate(), RunId::generate());
    store
        .append(batch_with_postings(other, 0, vec![reserve_posting("day", 1, 30, Some(100))]))
        .await
        .unwrap();
    store
        .append(batch_with_postings(
            other,
            1,
            vec![settle_posting(1, 30), reserve_posting("day", 2, 50, Some(100))],
        ))
        .await
        .unwrap();
    let refused = store
        .append(batch_with_postings(
            run,
            0,
            vec![reserve_posting("run", 1, 21, None), reserve_posting("day", 1, 21, Some(100))],
        ))
        .await;
    match refused {
        Err(Error::Ceiling { account, ceiling, used, wanted }) => {
            assert_eq!((account.as_str(), ceiling.0, used.0, wanted.0), ("day", 100, 80, 21));
        }
        other => panic!("a ceiling was to be met, not {other:?}"),
    }
    assert_eq!((read_balance(store, "run").await, read_balance(store, "day").await), ((0, 0), (30, 50)));
    assert_eq!(store.read_events(run, Seq(0), 0).await.unwrap().events, []);
    store.append(batch_with_postings(run, 0, vec![reserve_posting("day", 1, 20, Some(100))])).await.unwrap();
    assert_eq!(read_balance(store, "day").await, (30, 70));
}

/// Without a ceiling nothing is refused.
pub async fn an_account_without_ceiling_is_only_booked(store: &(impl Journal + Ledger)) {
    let run = RunId::generate();
    store
        .append(batch_with_postings(run, 0, vec![reserve_posting("a", 1, i64::MAX / 2, None)]))
        .await
        .unwrap();
    store.append(batch_with_postings(run, 1, vec![settle_posting(1, 7)])).await.unwrap();
    assert_eq!(read_balance(store, "a").await, (7, 0));
}

/// An effect holds at most one reservation on an account.
pub async fn the_same_reservation_again_replaces_the_first(store: &(impl Journal + Ledger)) {
    let run = RunId::generate();
    store.append(batch_with_postings(run, 0, vec![reserve_posting("a", 1, 60, Some(100))])).await.unwrap();
    store.append(batch_with_postings(run, 1, vec![reserve_posting("a", 1, 90, Some(100))])).await.unwrap();
    assert_eq!(read_balance(store, "a").await, (0, 90));
    store.append(batch_with_postings(run, 2, vec![settle_posting(1, 50)])).await.unwrap();
    assert_eq!(read_balance(store, "a").await, (50, 0));
}

/// Forty runs want a share of a ceiling that has room for ten.
pub async fn concurrent_reservations_never_pass_a_ceiling(store: &(impl Journal + Ledger + Clone + 'static)) {
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let run = RunId::generate();
                store
                    .append(batch_with_postings(run, 0, vec![reserve_posting("day", 1, 10, Some(100))]))
                    .await
                    .map(|()| run)
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(run) => won.push(run),
            Err(Error::Ceiling { used, .. }) => assert_eq!(used, Money(100)),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won.len(), 10);
    assert_eq!(read_balance(store, "day").await, (0, 100));
    store.append(batch_with_postings(won[0], 1, vec![settle_posting(1, 3)])).await.unwrap();
    let next = store
        .append(batch_with_postings(RunId::generate(), 0, vec![reserve_posting("day", 1, 7, Some(100))]))
        .await;
    next.unwrap();
    assert_eq!(read_balance(store, "day").await, (3, 97));
}
