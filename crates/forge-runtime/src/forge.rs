//! The façade: all operations of Forge that the surfaces use.

use crate::ephemeral_data_dir::EphemeralDataDir;
use crate::{Error, run_directory};
use forge_catalog::Catalog;
use forge_engine::{EngineParts, LiveSink, NewRun, RunEngine, RunFollower};
use forge_models::ModelProviders;
use forge_ports::journal::{RunQuery, RunRow};
use forge_types::{CommandId, Plan, RunCommand, RunId, RunLimits, RunState, RunStatus};
use forge_wire::record::{self, RunRecord, RunSummary};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest task in characters, wherever a run is created.
pub const MAX_TASK_CHARS: usize = 10_000;

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

/// The outcome of sending a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A live process works on the run and takes the command.
    Sent {
        /// The process (`host:pid`).
        holder: String,
    },
    /// No process works on the run; the command is kept until the run is resumed.
    Kept,
    /// No process worked on the run; this process applied the command.
    Applied {
        /// The run's status now.
        status: RunStatus,
    },
}

/// An instance of Forge.
#[derive(Clone)]
pub struct Forge {
    parts: EngineParts,
    engine: RunEngine,
    data: PathBuf,
    /// The configured providers, for connection tests.
    providers: Arc<ModelProviders>,
    /// The table of models and prices, loaded once.
    catalog: Arc<Catalog>,
    /// The data directory in memory, if any, kept as long as this value.
    scratch: Option<EphemeralDataDir>,
}

impl Forge {
    /// Assembles Forge from `parts`, with the built-in table of models and no provider that can be tested; `data` is
    /// the data directory and `worker` names this process (`host:pid`).
    pub fn assemble(parts: EngineParts, data: PathBuf, worker: String) -> Self {
        let engine = RunEngine::new(parts.clone(), worker);
        let (providers, _) = ModelProviders::new(&forge_models::Options::default());
        let catalog = Arc::clone(Catalog::builtin());
        Self { parts, engine, data, providers: Arc::new(providers), catalog, scratch: None }
    }

    pub(crate) fn with_providers(self, providers: Arc<ModelProviders>, catalog: Arc<Catalog>) -> Self {
        Self { providers, catalog, ..self }
    }

    pub(crate) fn with_ephemeral_dir(self, scratch: EphemeralDataDir) -> Self {
        Self { scratch: Some(scratch), ..self }
    }

    /// Returns whether runs outlast this process.
    pub const fn is_persistent(&self) -> bool {
        self.scratch.is_none()
    }

    /// Returns the engine.
    pub(crate) const fn engine(&self) -> &RunEngine {
        &self.engine
    }

    /// Returns the adapters.
    pub const fn parts(&self) -> &EngineParts {
        &self.parts
    }

    /// Returns the configured providers.
    pub(crate) fn providers(&self) -> &ModelProviders {
        &self.providers
    }

    /// Returns the table of models and prices.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Creates a run with a frozen plan. The run is pending until a process drives it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unusable task; nothing is stored then.
    pub async fn create(&self, new: NewRun, plan: &Plan) -> Result<RunId, Error> {
        check_task(&new.task)?;
        if self.data.starts_with(&new.repo) {
            let what = format!(
                "the repository {} contains forge's own data directory {}, so a run could change its own records. \
                 Choose a directory below it, or move the data directory with XDG_DATA_HOME",
                new.repo.display(),
                self.data.display()
            );
            return Err(Error::Repository { what });
        }
        Ok(self.engine.create(new, plan).await?)
    }

    /// Works on a run until it ends or is parked.
    ///
    /// # Errors
    /// If a live process works on the run, or its journal can't be read or written.
    pub async fn drive(&self, run: RunId, live: Arc<dyn LiveSink>) -> Result<RunDetails, Error> {
        self.engine.drive(run, live).await?;
        let now = forge_ports::Clock::now(self.parts.clock.as_ref());
        if let Err(error) =
            run_directory::write_run_directory(&self.parts.journal, &self.data, run, now).await
        {
            tracing::warn!(%run, %error, "the run directory is incomplete");
        }
        self.run_details(run).await
    }

    /// Resumes a run that was parked or that lost its process.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the run has ended; otherwise as [`Forge::drive`].
    pub async fn resume(
        &self,
        run: RunId,
        limits: Option<RunLimits>,
        live: Arc<dyn LiveSink>,
    ) -> Result<RunDetails, Error> {
        let shown = self.run_details(run).await?;
        self.reject_ended(&shown.state, "it can't be resumed. Start a new run")?;
        if let Some(holder) = shown.holder {
            return Err(forge_ports::queue::ClaimError::Held { run, holder }.into());
        }
        if shown.state.status == RunStatus::Waiting || limits.is_some() {
            let command = RunCommand::Resume { limits };
            self.parts.journal.send_command(run, CommandId::generate(), command).await?;
        }
        self.drive(run, live).await
    }

    /// Sends a command to a run. If no process works on the run, this one carries out a cancel; any other
    /// command is kept until the run is resumed.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the run has ended.
    pub async fn send_command(&self, run: RunId, command: RunCommand) -> Result<Delivery, Error> {
        let (_, projector) = forge_engine::load_run_state(self.parts.journal.as_ref(), run).await?;
        let state = projector.state();
        self.reject_ended(state, "it takes no more commands")?;
        self.parts.journal.send_command(run, CommandId::generate(), command.clone()).await?;
        if let Some(holder) = self.parts.queue.holder(run).await? {
            return Ok(Delivery::Sent { holder });
        }
        if !matches!(command, RunCommand::Cancel { .. }) {
            return Ok(Delivery::Kept);
        }
        match self.drive(run, Arc::new(())).await {
            Ok(shown) => Ok(Delivery::Applied { status: shown.state.status }),
            Err(Error::Claim(forge_ports::queue::ClaimError::Held { holder, .. })) => {
                Ok(Delivery::Sent { holder })
            }
            Err(error) => Err(error),
        }
    }

    fn reject_ended(&self, state: &RunState, why: &str) -> Result<(), Error> {
        if state.status.is_terminal() {
            return Err(Error::WrongState { run: state.run, status: state.status, why: why.to_owned() });
        }
        Ok(())
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
        let rows = self.parts.journal.list_runs(query).await?;
        match rows.as_slice() {
            [] => Err(Error::NoSuchRun { id: text }),
            [row] => Ok(row.run),
            _ => Err(Error::Ambiguous { prefix: text, runs: rows.iter().map(|row| row.run).collect() }),
        }
    }

    /// Lists the rows of runs, newest first.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn list_runs(&self, query: RunQuery) -> Result<Vec<RunRow>, Error> {
        Ok(self.parts.journal.list_runs(query).await?)
    }

    /// Returns the details of a run. Damage is part of the result, not an error.
    ///
    /// # Errors
    /// If there is no such run or the store can't be read at all.
    pub async fn run_details(&self, run: RunId) -> Result<RunDetails, Error> {
        let read = run_directory::read_run(&self.parts.journal, run).await?;
        if read.events.is_empty() && read.damage.is_none() {
            return Err(Error::NoSuchRun { id: run.to_string() });
        }
        let now = forge_ports::Clock::now(self.parts.clock.as_ref());
        let holder = self.parts.queue.holder(run).await?;
        if holder.is_none() && run_directory::is_missing(&self.data, &read.state) {
            // The process that ended the run died before it wrote the directory.
            if let Err(error) =
                run_directory::write_run_directory(&self.parts.journal, &self.data, run, now).await
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

    /// Follows a run's wire events after position `after`.
    pub fn follow(&self, run: RunId, after: u64) -> RunFollower {
        RunFollower::new(self.parts.journal.clone(), self.parts.queue.clone(), run, after)
    }
}

fn check_task(task: &str) -> Result<(), Error> {
    if task.trim().is_empty() {
        return Err(Error::EmptyTask);
    }
    let chars = task.chars().count();
    if chars > MAX_TASK_CHARS {
        let what = format!(
            "the task has {chars} characters; the limit is {MAX_TASK_CHARS}. Put the long part into a file in the \
             repository and refer to that file in the task"
        );
        return Err(Error::Invalid { what });
    }
    Ok(())
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
