//! The process: the store, the queue and the data directory, shared by all projects that it works on.

use crate::workspace::ephemeral_data_dir::EphemeralDataDir;
use crate::workspace::run_directory;
use crate::{Error, SystemClock};
use forge_engine::{EngineParts, EngineSource, LiveFollower, LiveHub, RunFollower, WorkerParts, Workers};
use forge_ports::journal::{Journal, RunQuery, RunRow};
use forge_ports::ledger::Ledger;
use forge_ports::{Clock, Queue};
use forge_store::SqliteStore;
use forge_types::{Plan, RunId, RunState, ToolSpec};
use forge_wire::record::{self, RunRecord, RunSummary};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The details of a run, with its texts loaded.
#[derive(Clone, Debug)]
pub struct RunDetails {
    /// The state, as far as the journal is readable.
    pub state: RunState,
    /// The plan; `None` if it can't be read.
    pub plan: Option<Plan>,
    /// The summary of the run so far.
    pub summary: RunSummary,
    /// The record of the run with all tool calls.
    pub record: RunRecord,
    /// A description of the unreadable part of the journal.
    pub damage: Option<String>,
    /// The process that works on the run now.
    pub holder: Option<String>,
    /// The run directory.
    pub folder: PathBuf,
    /// Whether the run and its directory outlast this process.
    pub kept: bool,
}

/// A process of Forge: all runs of a data directory, whatever their repositories. A [`Project`](crate::Project) works on
/// those of one repository.
#[derive(Clone)]
pub struct Forge {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The store of cooldowns and weights; `None` if they last only as long as this process.
    pub(crate) routing: Option<Arc<SqliteStore>>,
    live: LiveHub,
    data: PathBuf,
    /// The name of this process (`host:pid`).
    worker: String,
    /// The data directory in memory, if any, kept as long as this value.
    scratch: Option<EphemeralDataDir>,
}

impl Forge {
    /// Opens the store of a data directory.
    ///
    /// # Errors
    /// If the data directory can't be used.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let store = forge_store::Options { data_dir: data.to_owned() };
        let store = Arc::new(SqliteStore::open(&store)?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = forge_store::QueueOptions::new(data.to_owned());
        let worker = options.worker.clone();
        let queue = forge_store::LocalQueue::new(options, store.as_ref().clone(), clock.clone());
        Ok(Self {
            journal: store.clone(),
            queue: Arc::new(queue),
            ledger: store.clone(),
            clock,
            routing: Some(store),
            live: LiveHub::default(),
            data: data.to_owned(),
            worker,
            scratch: None,
        })
    }

    /// Returns a process with the store, the queue and the clock of `parts`; `data` is the data directory and `worker`
    /// names the process (`host:pid`).
    pub fn from_parts(parts: &EngineParts, data: PathBuf, worker: String) -> Self {
        Self {
            journal: parts.journal.clone(),
            queue: parts.queue.clone(),
            ledger: parts.ledger.clone(),
            clock: parts.clock.clone(),
            routing: None,
            live: LiveHub::default(),
            data,
            worker,
            scratch: None,
        }
    }

    pub(crate) fn with_ephemeral_dir(self, scratch: EphemeralDataDir) -> Self {
        Self { scratch: Some(scratch), ..self }
    }

    /// Returns the tools that models can call, as `forge tool list` shows them.
    pub fn list_tools() -> Vec<ToolSpec> {
        forge_tools::builtin_tools().list_specs().cloned().collect()
    }

    /// Returns whether there is a provider of this name.
    pub fn is_provider(name: &str) -> bool {
        forge_catalog::vendors::VENDORS.iter().any(|vendor| vendor.name == name)
    }

    /// Returns whether runs outlast this process.
    pub const fn is_persistent(&self) -> bool {
        self.scratch.is_none()
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Returns the name of this process (`host:pid`).
    pub(crate) fn worker(&self) -> &str {
        &self.worker
    }

    /// Returns the run with this id or beginning of an id; `last` is the newest run.
    ///
    /// # Errors
    /// If no run or several runs match.
    pub async fn find_run(&self, text: &str) -> Result<RunId, Error> {
        let text = text.trim().to_ascii_lowercase();
        let query = match text.as_str() {
            "last" => RunQuery { limit: 1, ..RunQuery::default() },
            _ => RunQuery { prefix: Some(text.clone()), limit: 6, ..RunQuery::default() },
        };
        let rows = self.journal.list_runs(query).await?;
        match rows.as_slice() {
            [] => Err(Error::no_such_run(text)),
            [row] => Ok(row.run),
            _ => Err(Error::Ambiguous { prefix: text, runs: rows.iter().map(|row| row.run).collect() }),
        }
    }

    /// Lists the rows of runs, newest first.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn list_runs(&self, query: RunQuery) -> Result<Vec<RunRow>, Error> {
        Ok(self.journal.list_runs(query).await?)
    }

    /// Returns the details of a run. Damage is part of the result, not an error.
    ///
    /// # Errors
    /// If there is no such run or the store can't be read at all.
    pub async fn run_details(&self, run: RunId) -> Result<RunDetails, Error> {
        let read = run_directory::read_run(&self.journal, run).await?;
        if read.events.is_empty() && read.damage.is_none() {
            return Err(Error::no_such_run(run.to_string()));
        }
        let now = forge_ports::Clock::now(self.clock.as_ref());
        let holder = self.queue.holder(run).await?;
        if holder.is_none() && run_directory::is_missing(&self.data, &read.state) {
            // The process that ended the run died before it wrote the directory.
            if let Err(error) = run_directory::write_run_directory(&self.journal, &self.data, run, now).await
            {
                tracing::debug!(%run, %error, "the run directory can't be completed");
            }
        }
        Ok(RunDetails {
            summary: record::run_summary(&read.state, read.plan.as_ref(), now),
            record: record::run_record(&read.state, read.plan.as_ref(), &read.events),
            state: read.state,
            plan: read.plan,
            damage: read.damage,
            holder,
            folder: run_directory::run_directory_path(&self.data, run),
            kept: self.is_persistent(),
        })
    }

    /// Returns the live views of the runs that this process works on.
    pub const fn live(&self) -> &LiveHub {
        &self.live
    }

    /// Follows a run after the wire event `after`, with live frames if this process works on it.
    pub fn follow_live(&self, run: RunId, after: u64) -> LiveFollower {
        self.live.follow(self.journal.clone(), self.queue.clone(), run, after)
    }

    /// Creates workers of this process that find the engine of each run in `engines`.
    pub fn workers(&self, engines: Arc<dyn EngineSource>, concurrency: NonZeroUsize) -> Workers {
        let parts = WorkerParts {
            journal: self.journal.clone(),
            queue: self.queue.clone(),
            clock: self.clock.clone(),
            live: self.live.clone(),
        };
        Workers::new(parts, engines, concurrency)
    }

    /// Follows a run's wire events after position `after`.
    pub fn follow(&self, run: RunId, after: u64) -> RunFollower {
        RunFollower::new(self.journal.clone(), self.queue.clone(), run, after)
    }
}

/// Returns the repository's absolute path.
///
/// # Errors
/// [`Error::Repository`] or [`Error::Invalid`] if it does not exist, is not a directory, or is not readable.
pub fn check_repo(repo: &Path) -> Result<PathBuf, Error> {
    let invalid = |what: String| Error::Invalid { what };
    let path = std::fs::canonicalize(repo).map_err(|error| Error::Repository {
        what: format!("the repository {} can't be used: {error}", repo.display()),
    })?;
    if !path.is_dir() {
        return Err(invalid(format!("the repository {} is not a directory", path.display())));
    }
    std::fs::read_dir(&path).map_err(|error| {
        invalid(format!("the repository {} can't be read: {error}. Check its permissions", path.display()))
    })?;
    if path == Path::new("/") {
        return Err(Error::Repository { what: "the whole file system can't be a repository".to_owned() });
    }
    Ok(path)
}
