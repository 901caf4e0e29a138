//! Shows a run while it works. A thread of its own prints, so that a slow terminal never holds the run up.

use super::events::Story;
use super::progress::Progress;
use super::{Ui, Volume, width_of};
use forge_types::wire::{LiveFrame, WireEvent};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that may wait to be printed; more are dropped, as live frames may be.
const WAITING_FRAMES: usize = 2_000;
/// How often the picture moves while nothing happens.
const BEAT: Duration = Duration::from_millis(120);
/// Two pictures are at least so far apart, unless something happened that stays.
const FRAME: Duration = Duration::from_millis(40);
/// The painter of lines looks for what is new so often: each message would wake it else, in the way of the run.
const PAUSE: Duration = Duration::from_millis(8);
/// Messages taken together before the picture is drawn.
const BATCH: usize = 200;

/// Where and how a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As a moving picture on stderr.
    Picture,
    /// As lines on stderr.
    Lines,
    /// Not at all.
    Nothing,
}

/// Whether events go to stdout as JSON lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdout {
    /// Yes.
    Events,
    /// No.
    Untouched,
}

enum Message {
    Event(Box<WireEvent>),
    Frame(LiveFrame),
    Note(String),
}

/// Whether all was said.
#[derive(Default)]
struct Over {
    over: Mutex<bool>,
    told: Condvar,
}

impl Over {
    fn tell(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }

    /// Waits for it, so long at most.
    fn wait(&self, most: Duration) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        // How it ended does not matter: whoever waits looks again at what there is.
        let _ = self.told.wait_timeout_while(over, most, |over| !*over);
    }
}

/// A run being shown.
pub(crate) struct Live {
    sender: Mutex<Option<Sender<Message>>>,
    frames: Arc<AtomicUsize>,
    over: Arc<Over>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Live {
    /// Begins to show. `shown` and `stdout` say where.
    pub(crate) fn start(ui: &Ui, shown: Shown, stdout: Stdout) -> Self {
        let (sender, receiver) = channel();
        let frames = Arc::new(AtomicUsize::new(0));
        let over = Arc::<Over>::default();
        let painter = Painter { ui: ui.clone(), stdout, frames: frames.clone(), over: over.clone() };
        let thread = std::thread::Builder::new().name("terminal".to_owned()).spawn(move || match shown {
            Shown::Picture => painter.picture(&receiver),
            Shown::Lines => painter.lines(&receiver),
            Shown::Nothing => painter.silence(&receiver),
        });
        Self { sender: Mutex::new(Some(sender)), frames, over, thread: Mutex::new(thread.ok()) }
    }

    /// Something happened.
    pub(crate) fn event(&self, event: &WireEvent) {
        self.send(Message::Event(Box::new(event.clone())));
    }

    /// Something is on its way; dropped if too much waits already.
    pub(crate) fn frame(&self, frame: LiveFrame) {
        if self.frames.fetch_add(1, Ordering::Relaxed) < WAITING_FRAMES {
            self.send(Message::Frame(frame));
        } else {
            self.frames.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A word of ours in between.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.send(Message::Note(text.into()));
    }

    /// Prints what still waits and leaves the terminal clean.
    pub(crate) fn finish(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.over.tell();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the painter has been printed already; the run's result is not touched by it.
            let _ = thread.join();
        }
    }

    fn send(&self, message: Message) {
        if let Some(sender) = self.sender.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The painter ends only after the sender is gone.
            let _ = sender.send(message);
        }
    }
}

struct Painter {
    ui: Ui,
    stdout: Stdout,
    frames: Arc<AtomicUsize>,
    over: Arc<Over>,
}

impl Painter {
    /// The message as it may be shown.
    fn took(&self, message: Message) -> Message {
        match message {
            Message::Frame(frame) => {
                self.frames.fetch_sub(1, Ordering::Relaxed);
                Message::Frame(frame)
            }
            Message::Event(event) => {
                let event = Box::new(super::mask::event(&event).into_owned());
                if self.stdout == Stdout::Events {
                    self.ui.json_line(&event);
                }
                Message::Event(event)
            }
            Message::Note(note) => Message::Note(note),
        }
    }

    /// The next message. If only people look on, there is a pause before it where none waited.
    fn next(&self, receiver: &Receiver<Message>) -> Option<Message> {
        let message = match receiver.try_recv() {
            Err(TryRecvError::Empty) => {
                if self.stdout == Stdout::Untouched {
                    self.over.wait(PAUSE);
                }
                receiver.recv().ok()
            }
            message => message.ok(),
        };
        message.map(|message| self.took(message))
    }

    fn picture(&self, receiver: &Receiver<Message>) {
        let mut progress = Progress::new(self.ui.err, self.ui.volume == Volume::Verbose);
        let mut stay = Vec::new();
        let mut drawn = Instant::now();
        let mut patience = BEAT;
        loop {
            let over = self.take_batch(receiver, patience, &mut progress, &mut stay);
            let fresh = drawn.elapsed();
            if !over && stay.is_empty() && fresh < FRAME {
                // Text comes in faster than anybody can see.
                patience = FRAME.saturating_sub(fresh);
                continue;
            }
            let mut stderr = std::io::stderr().lock();
            let picture = match over {
                true => progress.end(&stay),
                false => progress.draw(&stay, width_of(&stderr)),
            };
            // A terminal that is gone is no reason to end a run.
            let _ = stderr.write_all(picture.as_bytes()).and_then(|()| stderr.flush());
            if over {
                return;
            }
            stay.clear();
            (drawn, patience) = (Instant::now(), BEAT);
        }
    }

    /// Takes what waits, at most a batch of it; says whether nothing more will come.
    fn take_batch(
        &self,
        receiver: &Receiver<Message>,
        patience: Duration,
        progress: &mut Progress,
        stay: &mut Vec<String>,
    ) -> bool {
        for n in 0..BATCH {
            let message = match receiver.recv_timeout(if n == 0 { patience } else { Duration::ZERO }) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            };
            stay.extend(match self.took(message) {
                Message::Event(event) => progress.event(&event),
                Message::Frame(frame) => progress.frame(&frame),
                Message::Note(text) => vec![text],
            });
        }
        false
    }

    fn lines(&self, receiver: &Receiver<Message>) {
        let mut story = Story::default();
        while let Some(message) = self.next(receiver) {
            match message {
                Message::Event(event) => {
                    story.tell(&event).iter().for_each(|line| self.ui.note(&line.plain()));
                }
                Message::Frame(LiveFrame::ExecOutput { line, .. }) if self.ui.volume == Volume::Verbose => {
                    self.ui.note(&format!("      {}", super::text::clean(&line)));
                }
                Message::Frame(LiveFrame::Debug { name, data }) => {
                    self.ui.note(&super::text::clean(&format!("{name} {data}")));
                }
                Message::Frame(_) => {}
                Message::Note(text) => self.ui.note(&text),
            }
        }
    }

    fn silence(&self, receiver: &Receiver<Message>) {
        while self.next(receiver).is_some() {}
    }
}
