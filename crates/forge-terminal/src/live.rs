//! Live display of a run. A separate thread prints, so that a slow terminal never delays the run.

use crate::events::EventFormatter;
use crate::progress::ProgressDisplay;
use crate::{Ui, Verbosity, terminal_width};
use forge_wire::{LiveFrame, WireEvent};
use parking_lot::{Condvar, Mutex};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Maximum number of live frames waiting to be printed; further ones are dropped.
const MAX_PENDING_FRAMES: usize = 2_000;
/// Interval between redraws while nothing happens.
const REDRAW_INTERVAL: Duration = Duration::from_millis(120);
/// Minimum interval between redraws, unless there are lines to keep.
const MIN_FRAME_INTERVAL: Duration = Duration::from_millis(40);
/// Poll interval of the line renderer. Waking it for each message would slow the run down.
const LINE_POLL_INTERVAL: Duration = Duration::from_millis(8);
/// Maximum number of messages handled before a redraw.
const MAX_BATCH_MESSAGES: usize = 200;

/// Ways to show a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayMode {
    /// Animated display on stderr.
    Picture,
    /// Lines on stderr.
    Lines,
    /// No display.
    Nothing,
}

/// Whether events go to stdout as JSON lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdoutEvents {
    /// Events are printed.
    Events,
    /// Stdout is not used.
    Untouched,
}

enum RendererMessage {
    Event(Box<WireEvent>),
    Frame(LiveFrame),
    Note(String),
}

/// A flag that is set when no more messages will come.
#[derive(Default)]
struct FinishedFlag {
    finished: Mutex<bool>,
    condvar: Condvar,
}

impl FinishedFlag {
    fn set_finished(&self) {
        *self.finished.lock() = true;
        self.condvar.notify_all();
    }

    /// Waits until the flag is set, but no longer than `most`.
    fn wait_timeout(&self, most: Duration) {
        let mut over = self.finished.lock();
        // The result does not matter: the caller then checks for messages.
        let _ = self.condvar.wait_while_for(&mut over, |over| !*over, most);
    }
}

/// Live display of one run.
pub struct LiveDisplay {
    sender: Mutex<Option<Sender<RendererMessage>>>,
    frames: Arc<AtomicUsize>,
    over: Arc<FinishedFlag>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LiveDisplay {
    /// Starts the display, in the given mode and with the given use of stdout.
    pub fn start(ui: &Ui, shown: DisplayMode, stdout: StdoutEvents) -> Self {
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

    /// Shows an event.
    pub fn send_event(&self, event: &WireEvent) {
        self.send(RendererMessage::Event(Box::new(event.clone())));
    }

    /// Shows a live frame, or drops it if too many are pending.
    pub fn send_frame(&self, frame: LiveFrame) {
        if self.frames.fetch_add(1, Ordering::Relaxed) < MAX_PENDING_FRAMES {
            self.send(RendererMessage::Frame(frame));
        } else {
            self.frames.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Shows a note between events.
    pub fn send_note(&self, text: impl Into<String>) {
        self.send(RendererMessage::Note(text.into()));
    }

    /// Prints pending messages and removes the animated part.
    pub fn finish(&self) {
        drop(self.sender.lock().take());
        self.over.set_finished();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the renderer was already printed, and does not affect the run's result.
            let _ = thread.join();
        }
    }

    fn send(&self, message: RendererMessage) {
        if let Some(sender) = self.sender.lock().as_ref() {
            // The renderer ends only after the sender is dropped.
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
    /// Prepares a message for display.
    fn sanitize(&self, message: RendererMessage) -> RendererMessage {
        match message {
            RendererMessage::Frame(frame) => {
                self.frames.fetch_sub(1, Ordering::Relaxed);
                RendererMessage::Frame(frame)
            }
            RendererMessage::Event(event) => {
                let event = Box::new(crate::redact::redact_event(&event).into_owned());
                if self.stdout == StdoutEvents::Events {
                    self.ui.print_json_line(&event);
                }
                RendererMessage::Event(event)
            }
            RendererMessage::Note(note) => RendererMessage::Note(note),
        }
    }

    /// Returns the next message. If none is pending, pauses first, unless events go to stdout.
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
        let verbose = self.ui.volume == Verbosity::Verbose;
        let mut progress = ProgressDisplay::new(self.ui.err, verbose, self.ui.hint_text);
        let mut stay = Vec::new();
        let mut drawn = Instant::now();
        let mut patience = REDRAW_INTERVAL;
        loop {
            let over = self.receive_batch(receiver, patience, &mut progress, &mut stay);
            let fresh = drawn.elapsed();
            if !over && stay.is_empty() && fresh < MIN_FRAME_INTERVAL {
                // Text arrives faster than it can be read.
                patience = MIN_FRAME_INTERVAL.saturating_sub(fresh);
                continue;
            }
            let mut stderr = std::io::stderr().lock();
            let picture = match over {
                true => progress.draw_final(&stay),
                false => progress.draw(&stay, terminal_width(&stderr)),
            };
            // A lost terminal must not end a run.
            let _ = stderr.write_all(picture.as_bytes()).and_then(|()| stderr.flush());
            if over {
                return;
            }
            stay.clear();
            (drawn, patience) = (Instant::now(), REDRAW_INTERVAL);
        }
    }

    /// Handles pending messages, at most one batch; returns whether no more will come.
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
        let mut story = EventFormatter::new(self.ui.hint_text);
        while let Some(message) = self.next_message(receiver) {
            match message {
                RendererMessage::Event(event) => {
                    story.format(&event).iter().for_each(|line| self.ui.print_note(&line.to_unstyled()));
                }
                RendererMessage::Frame(LiveFrame::ExecOutput { line, .. })
                    if self.ui.volume == Verbosity::Verbose =>
                {
                    self.ui.print_note(&format!("      {}", crate::text::sanitize_text(&line)));
                }
                RendererMessage::Frame(LiveFrame::Debug { name, data }) => {
                    self.ui.print_note(&crate::text::sanitize_text(&format!("{name} {data}")));
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
