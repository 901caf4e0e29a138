//! Shows a run while it works. A thread of its own prints, so that a slow terminal never holds the run up.

use super::events::EventFormatter;
use super::progress::ProgressDisplay;
use super::{Ui, Verbosity, terminal_width};
use forge_types::wire::{LiveFrame, WireEvent};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that may wait to be printed; more are dropped, as live frames may be.
const MAX_PENDING_FRAMES: usize = 2_000;
/// How often the picture moves while nothing happens.
const REDRAW_INTERVAL: Duration = Duration::from_millis(120);
/// Two pictures are at least so far apart, unless something happened that stays.
const MIN_FRAME_INTERVAL: Duration = Duration::from_millis(40);
/// The painter of lines looks for what is new so often: each message would wake it else, in the way of the run.
const LINE_POLL_INTERVAL: Duration = Duration::from_millis(8);
/// Messages taken together before the picture is drawn.
const MAX_BATCH_MESSAGES: usize = 200;

/// Where and how a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DisplayMode {
    /// As a moving picture on stderr.
    Picture,
    /// As lines on stderr.
    Lines,
    /// Not at all.
    Nothing,
}

/// Whether events go to stdout as JSON lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StdoutEvents {
    /// Yes.
    Events,
    /// No.
    Untouched,
}

enum RendererMessage {
    Event(Box<WireEvent>),
    Frame(LiveFrame),
    Note(String),
}

/// Whether all was said.
#[derive(Default)]
struct FinishedFlag {
    finished: Mutex<bool>,
    condvar: Condvar,
}

impl FinishedFlag {
    fn set_finished(&self) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.condvar.notify_all();
    }

    /// Waits for it, so long at most.
    fn wait_timeout(&self, most: Duration) {
        let over = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        // How it ended does not matter: whoever waits looks again at what there is.
        let _ = self.condvar.wait_timeout_while(over, most, |over| !*over);
    }
}

/// A run being shown.
pub(crate) struct LiveDisplay {
    sender: Mutex<Option<Sender<RendererMessage>>>,
    frames: Arc<AtomicUsize>,
    over: Arc<FinishedFlag>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LiveDisplay {
    /// Begins to show. `shown` and `stdout` say where.
    pub(crate) fn start(ui: &Ui, shown: DisplayMode, stdout: StdoutEvents) -> Self {
        let (sender, receiver) = channel();
        let frames = Arc::new(AtomicUsize::new(0));
        let over = Arc::<FinishedFlag>::default();
        let painter = Renderer { ui: ui.clone(), stdout, frames: frames.clone(), over: over.clone() };
        let thread = std::thread::Builder::new().name("terminal".to_owned()).spawn(move || match shown {
            DisplayMode::Picture => painter.render_animated(&receiver),
            DisplayMode::Lines => painter.render_lines(&receiver),
            DisplayMode::Nothing => painter.drain_messages(&receiver),
        });
        Self { sender: Mutex::new(Some(sender)), frames, over, thread: Mutex::new(thread.ok()) }
    }

    /// Something happened.
    pub(crate) fn send_event(&self, event: &WireEvent) {
        self.send(RendererMessage::Event(Box::new(event.clone())));
    }

    /// Something is on its way; dropped if too much waits already.
    pub(crate) fn send_frame(&self, frame: LiveFrame) {
        if self.frames.fetch_add(1, Ordering::Relaxed) < MAX_PENDING_FRAMES {
            self.send(RendererMessage::Frame(frame));
        } else {
            self.frames.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A word of ours in between.
    pub(crate) fn send_note(&self, text: impl Into<String>) {
        self.send(RendererMessage::Note(text.into()));
    }

    /// Prints what still waits and leaves the terminal clean.
    pub(crate) fn finish(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.over.set_finished();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the painter has been printed already; the run's result is not touched by it.
            let _ = thread.join();
        }
    }

    fn send(&self, message: RendererMessage) {
        if let Some(sender) = self.sender.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The painter ends only after the sender is gone.
            let _ = sender.send(message);
        }
    }
}

struct Renderer {
    ui: Ui,
    stdout: StdoutEvents,
    frames: Arc<AtomicUsize>,
    over: Arc<FinishedFlag>,
}

impl Renderer {
    /// The message as it may be shown.
    fn sanitize(&self, message: RendererMessage) -> RendererMessage {
        match message {
            RendererMessage::Frame(frame) => {
                self.frames.fetch_sub(1, Ordering::Relaxed);
                RendererMessage::Frame(frame)
            }
            RendererMessage::Event(event) => {
                let event = Box::new(super::redact::redact_event(&event).into_owned());
                if self.stdout == StdoutEvents::Events {
                    self.ui.print_json_line(&event);
                }
                RendererMessage::Event(event)
            }
            RendererMessage::Note(note) => RendererMessage::Note(note),
        }
    }

    /// The next message. If only people look on, there is a pause before it where none waited.
    fn next_message(&self, receiver: &Receiver<RendererMessage>) -> Option<RendererMessage> {
        let message = match receiver.try_recv() {
            Err(TryRecvError::Empty) => {
                if self.stdout == StdoutEvents::Untouched {
                    self.over.wait_timeout(LINE_POLL_INTERVAL);
                }
                receiver.recv().ok()
            }
            message => message.ok(),
        };
        message.map(|message| self.sanitize(message))
    }

    fn render_animated(&self, receiver: &Receiver<RendererMessage>) {
        let mut progress = ProgressDisplay::new(self.ui.err, self.ui.volume == Verbosity::Verbose);
        let mut stay = Vec::new();
        let mut drawn = Instant::now();
        let mut patience = REDRAW_INTERVAL;
        loop {
            let over = self.receive_batch(receiver, patience, &mut progress, &mut stay);
            let fresh = drawn.elapsed();
            if !over && stay.is_empty() && fresh < MIN_FRAME_INTERVAL {
                // Text comes in faster than anybody can see.
                patience = MIN_FRAME_INTERVAL.saturating_sub(fresh);
                continue;
            }
            let mut stderr = std::io::stderr().lock();
            let picture = match over {
                true => progress.draw_final(&stay),
                false => progress.draw(&stay, terminal_width(&stderr)),
            };
            // A terminal that is gone is no reason to end a run.
            let _ = stderr.write_all(picture.as_bytes()).and_then(|()| stderr.flush());
            if over {
                return;
            }
            stay.clear();
            (drawn, patience) = (Instant::now(), REDRAW_INTERVAL);
        }
    }

    /// Takes what waits, at most a batch of it; says whether nothing more will come.
    fn receive_batch(
        &self,
        receiver: &Receiver<RendererMessage>,
        patience: Duration,
        progress: &mut ProgressDisplay,
        stay: &mut Vec<String>,
    ) -> bool {
        for n in 0..MAX_BATCH_MESSAGES {
            let message = match receiver.recv_timeout(if n == 0 { patience } else { Duration::ZERO }) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            };
            stay.extend(match self.sanitize(message) {
                RendererMessage::Event(event) => progress.apply_event(&event),
                RendererMessage::Frame(frame) => progress.apply_frame(&frame),
                RendererMessage::Note(text) => vec![text],
            });
        }
        false
    }

    fn render_lines(&self, receiver: &Receiver<RendererMessage>) {
        let mut story = EventFormatter::default();
        while let Some(message) = self.next_message(receiver) {
            match message {
                RendererMessage::Event(event) => {
                    story.format(&event).iter().for_each(|line| self.ui.print_note(&line.to_unstyled()));
                }
                RendererMessage::Frame(LiveFrame::ExecOutput { line, .. })
                    if self.ui.volume == Verbosity::Verbose =>
                {
                    self.ui.print_note(&format!("      {}", super::text::sanitize_text(&line)));
                }
                RendererMessage::Frame(LiveFrame::Debug { name, data }) => {
                    self.ui.print_note(&super::text::sanitize_text(&format!("{name} {data}")));
                }
                RendererMessage::Frame(_) => {}
                RendererMessage::Note(text) => self.ui.print_note(&text),
            }
        }
    }

    fn drain_messages(&self, receiver: &Receiver<RendererMessage>) {
        while self.next_message(receiver).is_some() {}
    }
}
