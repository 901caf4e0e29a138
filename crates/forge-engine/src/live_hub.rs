//! The live view of all runs of a process: what the driver of a run shows reaches every reader of that run, and no other.

use crate::live::LiveSink;
use crate::{Error, FollowEnd, RunFollower};
use forge_ports::{Journal, Queue};
use forge_types::RunId;
use forge_wire::{LiveFrame, WireEvent};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};

/// The most messages that a slow reader can be behind before it misses frames.
const MAX_PENDING_MESSAGES: usize = 1024;

/// A message of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveMessage {
    /// An event that was appended.
    Event(Arc<WireEvent>),
    /// A live frame, which is never journalled.
    Frame(LiveFrame),
    /// So many messages were lost, because the reader is too slow. Events among them follow from the journal; frames are
    /// gone.
    Missed(u64),
}

/// The channel of one run.
struct RunChannel {
    messages: broadcast::Sender<LiveMessage>,
    /// The number of drivers of the run in this process: 0 or 1.
    drivers: watch::Sender<usize>,
    /// Sinks that receive each message at once, on the thread of the driver.
    sinks: Mutex<Vec<Arc<dyn LiveSink>>>,
}

/// The live views of all runs that this process works on. Clones share them.
#[derive(Clone, Default)]
pub struct LiveHub {
    channels: Arc<Mutex<HashMap<RunId, Weak<RunChannel>>>>,
}

impl LiveHub {
    /// Returns the channel of a run, which exists as long as it is used.
    fn channel(&self, run: RunId) -> Arc<RunChannel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(&run).and_then(Weak::upgrade) {
            return channel;
        }
        channels.retain(|_, channel| channel.strong_count() > 0);
        let channel = Arc::new(RunChannel {
            messages: broadcast::Sender::new(MAX_PENDING_MESSAGES),
            drivers: watch::Sender::new(0),
            sinks: Mutex::default(),
        });
        channels.insert(run, Arc::downgrade(&channel));
        channel
    }

    /// Returns the sink into which the driver of a run shows its work.
    pub fn publisher(&self, run: RunId) -> Arc<dyn LiveSink> {
        let channel = self.channel(run);
        channel.drivers.send_modify(|count| *count += 1);
        Arc::new(Publisher { channel })
    }

    /// Adds a sink that receives every message of a run at once, until the returned guard is dropped. Its calls must
    /// return quickly: they hold up the run.
    pub fn attach(&self, run: RunId, sink: Arc<dyn LiveSink>) -> SinkGuard {
        let channel = self.channel(run);
        channel.sinks.lock().push(Arc::clone(&sink));
        SinkGuard { channel, sink }
    }

    /// Follows a run after the wire event `after`: first what is journalled, then everything that is new, with live frames
    /// if this process works on the run. No event is missed and none comes twice.
    pub fn follow(
        &self,
        journal: Arc<dyn Journal>,
        queue: Arc<dyn Queue>,
        run: RunId,
        after: u64,
    ) -> LiveFollower {
        // Before the first look at the journal, so that nothing falls in between.
        let channel = self.channel(run);
        let messages = channel.messages.subscribe();
        let drivers = channel.drivers.subscribe();
        let follower = RunFollower::new(journal, queue, run, after);
        LiveFollower { _channel: channel, messages, drivers, follower, last: after, behind: true }
    }
}

/// A sink that is attached to a run, until this is dropped.
pub struct SinkGuard {
    channel: Arc<RunChannel>,
    sink: Arc<dyn LiveSink>,
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        self.channel.sinks.lock().retain(|sink| !Arc::ptr_eq(sink, &self.sink));
    }
}

struct Publisher {
    channel: Arc<RunChannel>,
}

impl LiveSink for Publisher {
    fn on_event(&self, event: &WireEvent) {
        self.channel.sinks.lock().iter().for_each(|sink| sink.on_event(event));
        if self.channel.messages.receiver_count() > 0 {
            let _ = self.channel.messages.send(LiveMessage::Event(Arc::new(event.clone())));
        }
    }

    fn on_frame(&self, frame: LiveFrame) {
        self.channel.sinks.lock().iter().for_each(|sink| sink.on_frame(frame.clone()));
        if self.channel.messages.receiver_count() > 0 {
            let _ = self.channel.messages.send(LiveMessage::Frame(frame));
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.channel.drivers.send_modify(|count| *count -= 1);
    }
}

/// A reader of one run.
pub struct LiveFollower {
    _channel: Arc<RunChannel>,
    messages: broadcast::Receiver<LiveMessage>,
    drivers: watch::Receiver<usize>,
    follower: RunFollower,
    /// The last wire event that was returned.
    last: u64,
    /// Whether the journal may hold events that the channel no longer has.
    behind: bool,
}

impl LiveFollower {
    /// Waits for the next message; returns `None` once [`LiveFollower::end_reason`] gives the reason that there are no
    /// more.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub async fn next(&mut self) -> Result<Option<LiveMessage>, Error> {
        loop {
            if self.behind {
                if let Some(event) = self.follower.next_ready().await? {
                    if let Some(message) = self.take_event(Arc::new(event)) {
                        return Ok(Some(message));
                    }
                    continue;
                }
                self.behind = false;
            }
            let is_local = *self.drivers.borrow_and_update() > 0;
            let received = if is_local {
                tokio::select! {
                    biased;
                    received = self.messages.recv() => received,
                    // The driver ended; what it still sent is in the channel.
                    _ = self.drivers.changed() => continue,
                }
            } else {
                match self.messages.try_recv() {
                    Ok(message) => Ok(message),
                    Err(TryRecvError::Lagged(count)) => Err(RecvError::Lagged(count)),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => match self.next_of_others().await? {
                        OtherSource::Event(event) => Ok(LiveMessage::Event(event)),
                        OtherSource::LocalDriver => continue,
                        OtherSource::Ended => return Ok(None),
                    },
                }
            };
            match received {
                Ok(LiveMessage::Event(event)) => {
                    if let Some(message) = self.take_event(event) {
                        return Ok(Some(message));
                    }
                }
                Ok(message) => return Ok(Some(message)),
                Err(RecvError::Lagged(count)) => {
                    self.behind = true;
                    return Ok(Some(LiveMessage::Missed(count)));
                }
                Err(RecvError::Closed) => self.behind = true,
            }
        }
    }

    /// Returns the reason that there are no more messages.
    pub const fn end_reason(&self) -> Option<&FollowEnd> {
        self.follower.end_reason()
    }

    /// Waits for an event of a driver in another process, or for a driver in this one.
    async fn next_of_others(&mut self) -> Result<OtherSource, Error> {
        tokio::select! {
            biased;
            _ = self.drivers.changed() => Ok(OtherSource::LocalDriver),
            event = self.follower.next() => Ok(match event? {
                Some(event) => OtherSource::Event(Arc::new(event)),
                None => OtherSource::Ended,
            }),
        }
    }

    /// Returns the message of an event, unless it was returned before or one before it is missing.
    fn take_event(&mut self, event: Arc<WireEvent>) -> Option<LiveMessage> {
        if event.seq <= self.last {
            return None;
        }
        if event.seq > self.last + 1 {
            self.behind = true;
            return None;
        }
        self.last = event.seq;
        Some(LiveMessage::Event(event))
    }
}

/// The next message if no driver of the run is in this process.
enum OtherSource {
    Event(Arc<WireEvent>),
    LocalDriver,
    Ended,
}
