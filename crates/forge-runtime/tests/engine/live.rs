//! The live view of runs in the process that works on them.

use crate::harness::{Watched, World, plan};
use crate::model::{Brain, say};
use forge_runtime::{FollowEnd, LiveHub, LiveMessage};
use forge_types::*;
use forge_wire::{LiveFrame, WireEvent};
use std::sync::Arc;

fn small(world: &World) -> Plan {
    let mut plan = plan(&world.repo());
    plan.agent_mut().expect("an agent").tools.clear();
    plan
}

fn model() -> Arc<Brain> {
    Arc::new(Brain::new(|_, _| Ok(say("one two three"))))
}

fn frame(text: &str) -> LiveFrame {
    LiveFrame::ModelDelta { text: text.to_owned() }
}

#[tokio::test]
async fn a_reader_gets_the_past_then_what_is_new_and_each_event_once() {
    let world = World::new();
    let project = world.project(&world.store, model());
    let run = world.create(&project, &small(&world)).await;
    let mut reader = project.forge().follow_live(run, 0);
    let work = tokio::spawn({
        let project = project.clone();
        async move { project.drive(run, Arc::new(())).await }
    });
    let (mut events, mut text): (Vec<Arc<WireEvent>>, String) = (Vec::new(), String::new());
    while let Some(message) = reader.next().await.expect("it is read") {
        match message {
            LiveMessage::Event(event) => events.push(event),
            LiveMessage::Frame(LiveFrame::ModelDelta { text: piece }) => text += &piece,
            LiveMessage::Frame(_) => {}
            LiveMessage::Missed(count) => panic!("{count} missed"),
        }
    }
    assert_eq!(reader.end_reason(), Some(&FollowEnd::Ended));
    work.await.expect("no panic").expect("it ends");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(text, "one two three");
    let mut later = project.forge().follow(run, 0);
    for event in events {
        assert_eq!(later.next().await.expect("it is read").as_ref(), Some(event.as_ref()));
    }
    // From the midst of it, and in a process that has no driver of the run.
    let mut rest = world.project(&world.store.reopen(), model()).forge().follow_live(run, 3);
    let Some(LiveMessage::Event(event)) = rest.next().await.expect("it is read") else { panic!("no event") };
    assert_eq!(event.seq, 4);
}

#[tokio::test]
async fn a_slow_reader_learns_what_it_missed_and_misses_no_event() {
    let world = World::new();
    let project = world.project(&world.store, model());
    let run = world.create(&project, &small(&world)).await;
    let mut reader = project.forge().follow_live(run, 0);
    let publisher = project.forge().live().publisher(run);
    for n in 0..3_000 {
        publisher.on_frame(frame(&n.to_string()));
    }
    let shown = Arc::new(Watched::default());
    project.drive(run, shown.clone()).await.expect("it ends");
    drop(publisher);
    let (mut missed, mut frames, mut seqs) = (0, 0, Vec::new());
    while let Some(message) = reader.next().await.expect("it is read") {
        match message {
            LiveMessage::Event(event) => seqs.push(event.seq),
            LiveMessage::Frame(_) => frames += 1,
            LiveMessage::Missed(count) => missed += count,
        }
    }
    assert!(missed > 1_900 && frames > 900, "{missed} missed, {frames} frames");
    let last = shown.events.lock().expect("no panic").last().expect("events").seq;
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_reaches_the_readers_of_its_run_only() {
    let hub = LiveHub::default();
    let (one, other) = (RunId::generate(), RunId::generate());
    let (seen, not_seen) = (Arc::new(Watched::default()), Arc::new(Watched::default()));
    let guard = hub.attach(one, seen.clone());
    let _other = hub.attach(other, not_seen.clone());
    hub.publisher(one).on_frame(frame("a"));
    drop(guard);
    hub.publisher(one).on_frame(frame("b"));
    assert_eq!(seen.text.lock().expect("no panic").as_str(), "a", "until it was detached");
    assert_eq!(not_seen.text.lock().expect("no panic").as_str(), "");
}
