//! A project: one repository's resolved settings with the adapters that they configure.

use crate::compose;
use crate::forge::{Forge, RunDetails};
use crate::providers::routing::{ProjectSettings, model_preference};
use crate::workspace::ephemeral_data_dir::EphemeralDataDir;
use crate::workspace::run_directory;
use crate::{Error, executors, sandbox};
use forge_catalog::Catalog;
use forge_config::ResolvedConfig;
use forge_engine::{EngineParts, LiveSink, NewRun, RunEngine, Workers};
use forge_models::ModelProviders;
use forge_policy::route::ModelPreference;
use forge_sandbox::Backends;
use forge_types::{CommandId, Plan, RunCommand, RunId, RunLimits, RunState, RunStatus};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

/// The longest task in characters, wherever a run is created.
pub const MAX_TASK_CHARS: usize = 10_000;

/// The most child runs of one run that are worked on at a time.
const MAX_CHILD_RUNS: NonZeroUsize = NonZeroUsize::new(4).expect("more than zero");

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

/// A repository with its resolved settings: the providers with their keys, the model preference, the sandbox options,
/// and the engine that works on its runs. One process can serve many projects at the same time.
#[derive(Clone)]
pub struct Project {
    forge: Forge,
    config: Arc<ResolvedConfig>,
    preference: Arc<ModelPreference>,
    parts: EngineParts,
    engine: RunEngine,
    backends: Arc<Backends>,
    /// The configured providers, for connection tests.
    providers: Arc<ModelProviders>,
    /// The table of models and prices, loaded once.
    catalog: Arc<Catalog>,
}

impl Project {
    /// Opens a project in a process of its own; connects to no server.
    ///
    /// # Errors
    /// If the data directory can't be used, or the requested provider is misconfigured.
    pub fn open(config: ResolvedConfig) -> Result<Self, Error> {
        Self::open_in(&Forge::open(&config.dirs.data)?, config)
    }

    /// Opens a project in a process that serves others as well.
    ///
    /// # Errors
    /// If the requested provider is misconfigured.
    pub fn open_in(forge: &Forge, config: ResolvedConfig) -> Result<Self, Error> {
        let backends = Arc::new(sandbox::open_backends(&config, forge.data_dir())?);
        Self::compose(forge.clone(), config, backends)
    }

    /// Opens a project for a new run on `repo` and prewarms its sandbox; otherwise as [`Project::open`]. A run that
    /// is not to be kept gets a data directory in memory, which is removed with this value.
    ///
    /// # Errors
    /// As [`Project::open`].
    pub fn open_for_run(config: ResolvedConfig, repo: &Path) -> Result<Self, Error> {
        let scratch = match config.settings.store.durable {
            true => None,
            false => Some(EphemeralDataDir::create(&config.dirs.data)?),
        };
        let data = scratch.as_ref().map_or_else(|| config.dirs.data.clone(), EphemeralDataDir::path);
        let backends = Arc::new(sandbox::open_backends(&config, &data)?);
        // Before the store opens: both take their time.
        if executors::may_need_sandbox(&config)
            && let Ok(spec) = sandbox::base_spec(&config, repo, &[])
        {
            backends.prewarm(&spec);
        }
        let forge = Forge::open(&data)?;
        let forge = match scratch {
            Some(scratch) => forge.with_ephemeral_dir(scratch),
            None => forge,
        };
        Self::compose(forge, config, backends)
    }

    fn compose(forge: Forge, config: ResolvedConfig, backends: Arc<Backends>) -> Result<Self, Error> {
        let preference = model_preference(&config);
        let (parts, providers, catalog) = compose::engine_parts(&forge, &config, &preference, &backends)?;
        let engine = RunEngine::new(parts.clone(), forge.worker().to_owned());
        let (config, preference) = (Arc::new(config), Arc::new(preference));
        Ok(Self { forge, config, preference, parts, engine, backends, providers, catalog })
    }

    /// Assembles a project from `parts`, with the built-in table of models and no provider that can be tested.
    pub fn assemble(
        forge: Forge,
        config: ResolvedConfig,
        parts: EngineParts,
        backends: Arc<Backends>,
    ) -> Self {
        let engine = RunEngine::new(parts.clone(), forge.worker().to_owned());
        let (providers, _) = ModelProviders::new(&forge_models::Options::default());
        let (catalog, providers) = (Arc::clone(Catalog::builtin()), Arc::new(providers));
        let preference = Arc::new(model_preference(&config));
        Self { forge, config: Arc::new(config), preference, parts, engine, backends, providers, catalog }
    }

    /// Returns the process.
    pub const fn forge(&self) -> &Forge {
        &self.forge
    }

    /// Returns the resolved settings.
    pub fn config(&self) -> &ResolvedConfig {
        &self.config
    }

    /// Returns the model and the provider that the settings name.
    pub(crate) fn preference(&self) -> &ModelPreference {
        &self.preference
    }

    /// Returns the resolved settings with the preference that they state.
    pub(crate) fn settings(&self) -> ProjectSettings<'_> {
        ProjectSettings { config: &self.config, preference: &self.preference }
    }

    /// Returns the engine.
    pub(crate) const fn engine(&self) -> &RunEngine {
        &self.engine
    }

    /// Returns the adapters.
    pub const fn parts(&self) -> &EngineParts {
        &self.parts
    }

    /// Returns the sandbox backends.
    pub(crate) fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Returns the configured providers.
    pub(crate) fn providers(&self) -> &ModelProviders {
        &self.providers
    }

    /// Returns the table of models and prices.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Creates a run with a frozen plan. The run is pending until a process drives it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unusable task, [`Error::Repository`] for a repository that contains Forge's own files;
    /// nothing is stored then.
    pub async fn create(&self, new: NewRun, plan: &Plan) -> Result<RunId, Error> {
        check_task(&new.task)?;
        self.refuse_own_places([new.repo.as_path()])?;
        self.refuse_own_places_of(&plan.shared.sandbox)?;
        Ok(self.engine.create(new, plan).await?)
    }

    /// Creates workers for the runs of this project.
    pub fn workers(&self, concurrency: NonZeroUsize) -> Workers {
        self.forge.workers(Arc::new(self.engine.clone()), concurrency)
    }

    /// Works on a run, and on its child runs while it waits for them, until it ends or is parked. `live` receives what it
    /// shows.
    ///
    /// # Errors
    /// If a live process works on the run, or its journal can't be read or written.
    pub async fn drive(&self, run: RunId, live: Arc<dyn LiveSink>) -> Result<RunDetails, Error> {
        let _shown = self.forge.live().attach(run, live);
        self.workers(MAX_CHILD_RUNS).work_on(run).await?;
        let now = forge_ports::Clock::now(self.parts.clock.as_ref());
        if let Err(error) =
            run_directory::write_run_directory(&self.parts.journal, self.forge.data_dir(), run, now).await
        {
            tracing::warn!(%run, %error, "the run directory is incomplete");
        }
        self.forge.run_details(run).await
    }

    /// Resumes a run that was parked or that lost its process.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the run has ended; otherwise as [`Project::drive`].
    pub async fn resume(
        &self,
        run: RunId,
        limits: Option<RunLimits>,
        live: Arc<dyn LiveSink>,
    ) -> Result<RunDetails, Error> {
        let shown = self.forge.run_details(run).await?;
        self.reject_ended(&shown.state, "it can't be resumed. Start a new run")?;
        let (plan, _) = forge_engine::load_run_state(self.parts.journal.as_ref(), run).await?;
        self.refuse_own_places_of(&plan.shared.sandbox)?;
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
            Err(Error::Engine(forge_engine::Error::Claim(forge_ports::queue::ClaimError::Held {
                holder,
                ..
            }))) => Ok(Delivery::Sent { holder }),
            Err(error) => Err(error),
        }
    }

    fn reject_ended(&self, state: &RunState, why: &str) -> Result<(), Error> {
        if state.status.is_terminal() {
            return Err(Error::WrongState { run: state.run, status: state.status, why: why.to_owned() });
        }
        Ok(())
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
