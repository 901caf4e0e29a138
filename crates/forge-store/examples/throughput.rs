//! How many events per second 64 runs at once make durable, and how long one run waits for one append.
//!
//! `cargo run --release -p forge-store --example throughput [folder]`

use forge_ports::journal::Batch;
use forge_ports::{FlushHandle, Journal};
use forge_store::{Options, SqliteStore};
use forge_testkit::sample::event_batch;
use forge_types::RunId;
use std::time::{Duration, Instant};

const RUNS: usize = 64;
/// What one turn of the loop writes: outcomes, and the intents of what starts next.
const EVENTS: u64 = 4;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "what this program is for")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(folder)?;
    let options = Options { data_dir: dir.path().to_owned() };
    let begin = Instant::now();
    let store = SqliteStore::open(&options)?;
    println!("made in           {:>8.2} ms", millis(begin.elapsed()));
    drop(store);
    let begin = Instant::now();
    let store = SqliteStore::open(&options)?;
    println!("opened in         {:>8.2} ms", millis(begin.elapsed()));

    let begin = Instant::now();
    store.append(padded(event_batch(RunId::generate(), 0, EVENTS))).await?;
    println!("first append      {:>8.2} ms", millis(begin.elapsed()));

    let (run, turns) = (RunId::generate(), 200);
    let mut waits = Vec::new();
    for turn in 0..turns {
        let one = padded(event_batch(run, turn * EVENTS, EVENTS));
        let begin = Instant::now();
        store.append(one).await?;
        waits.push(begin.elapsed());
    }
    waits.sort_unstable();
    println!("one run, append   {:>8.2} ms median, {:.2} ms p95", millis(waits[100]), millis(waits[190]));
    let begin = Instant::now();
    let read = store.read_events(run, forge_types::Seq(0), 0).await?.events.len();
    println!("read of {read} events {:>6.2} ms", millis(begin.elapsed()));

    println!("64 runs at once   {:>8.0} events/s", events_per_second(&store, None).await?);
    // One of the runs waits for a slow disk before each of its appends.
    let slow = Duration::from_millis(100);
    println!(
        "one of them slow  {:>8.0} events/s of the others",
        events_per_second(&store, Some(slow)).await?
    );
    let begin = Instant::now();
    drop(store);
    println!("closed in         {:>8.2} ms", millis(begin.elapsed()));
    Ok(())
}

/// Measures how many events per second all runs append at once. With `flush`, one more run appends batches that wait so
/// long for data of theirs.
async fn events_per_second(
    store: &SqliteStore,
    flush: Option<Duration>,
) -> Result<f64, Box<dyn std::error::Error>> {
    let slow_run = flush.map(|flush| {
        let store = store.clone();
        tokio::spawn(async move {
            let run = RunId::generate();
            for turn in 0.. {
                let (durable, sender) = FlushHandle::pending();
                tokio::spawn(async move {
                    tokio::time::sleep(flush).await;
                    sender.complete(Ok(()));
                });
                let batch = padded(event_batch(run, turn * EVENTS, EVENTS));
                if store.append(Batch { after: vec![durable], ..batch }).await.is_err() {
                    break;
                }
            }
        })
    });
    let (begin, turns) = (Instant::now(), 100);
    let tasks: Vec<_> = (0..RUNS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let run = RunId::generate();
                for turn in 0..turns {
                    store.append(padded(event_batch(run, turn * EVENTS, EVENTS))).await?;
                }
                Ok::<_, forge_ports::journal::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    if let Some(slow_run) = slow_run {
        slow_run.abort();
    }
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(RUNS as f64 * turns as f64 * EVENTS as f64 / seconds)
}

/// Half a kilobyte per event, as a tool call has.
fn padded(mut batch: Batch) -> Batch {
    for event in &mut batch.events {
        *event = forge_testkit::sample::text_event(batch.run, event.seq.0, &"x".repeat(400));
    }
    batch
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
