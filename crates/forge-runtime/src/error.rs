//! Errors of the runtime.

use forge_ports::journal;
use forge_ports::queue::ClaimError;
use forge_types::{ErrorClass, NextStep, RunId, RunStatus};

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal, the queue or the engine failed, or there is no such run.
    #[error(transparent)]
    Engine(#[from] forge_engine::Error),
    /// The beginning of an id matches several runs.
    #[error("`{prefix}` matches several runs: {}", runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// The beginning that was given.
        prefix: String,
        /// Some of the matching runs.
        runs: Vec<RunId>,
    },
    /// The request is invalid.
    #[error("{what}")]
    Invalid {
        /// The fault, and what to do instead.
        what: String,
    },
    /// The task is empty.
    #[error("the task is empty: describe in a sentence what to do")]
    EmptyTask,
    /// The repository can't be used.
    #[error("{what}")]
    Repository {
        /// The repository and the fault.
        what: String,
    },
    /// A file in a repository needs the user's consent first.
    #[error("{what}")]
    Untrusted {
        /// The file.
        file: String,
        /// The file's effect, and the state of things.
        what: String,
    },
    /// This machine has no memory for a run without files.
    #[error("{place} does not exist, so a run can't be kept in memory")]
    NoMemory {
        /// The directory.
        place: String,
    },
    /// The run has no such step.
    #[error("run {run} has no step {step}: its steps are 1 to {last}")]
    NoSuchStep {
        /// The run.
        run: RunId,
        /// The step that was given.
        step: u32,
        /// The number of the last step.
        last: usize,
    },
    /// The run is active in another process, which alone may change its workspace.
    #[error(
        "run {run} is {}: it is active in {holder}. Wait for it to finish, or stop it",
        RunStatus::Running
    )]
    Active {
        /// The run.
        run: RunId,
        /// The process (`host:pid`), if known.
        holder: String,
    },
    /// The process of the run died.
    #[error("run {run} is {status}: its process died")]
    Interrupted {
        /// The run.
        run: RunId,
        /// The run's status.
        status: RunStatus,
    },
    /// The run can't take this command in its present state.
    #[error("run {run} is {status}: {why}")]
    WrongState {
        /// The run.
        run: RunId,
        /// The run's status.
        status: RunStatus,
        /// The consequence for the command.
        why: String,
    },
    /// An error of the sandbox or a workspace.
    #[error(transparent)]
    Sandbox(#[from] forge_ports::sandbox::Error),
    /// No model can be chosen.
    #[error(transparent)]
    Route(#[from] forge_policy::route::Error),
    /// The run directory can't be written.
    #[error("{path} can't be written: {why}")]
    Output {
        /// The file.
        path: String,
        /// The reason that the system gives.
        why: String,
    },
}

impl Error {
    /// Reports that no run has this id or an id that begins with it.
    pub(crate) const fn no_such_run(id: String) -> Self {
        Self::Engine(forge_engine::Error::NoSuchRun { id })
    }

    /// Reports a bug in forge itself.
    pub(crate) fn internal(what: impl ToString) -> Self {
        Self::Engine(forge_engine::Error::Internal { what: what.to_string() })
    }

    /// Returns the class of the error, which determines how to react to it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Engine(error) => error.class(),
            Self::Sandbox(error) => error.class(),
            Self::Ambiguous { .. }
            | Self::Invalid { .. }
            | Self::EmptyTask
            | Self::Repository { .. }
            | Self::Untrusted { .. }
            | Self::NoMemory { .. }
            | Self::NoSuchStep { .. }
            | Self::Active { .. }
            | Self::Interrupted { .. }
            | Self::WrongState { .. }
            | Self::Route(_) => ErrorClass::Invalid,
            Self::Output { .. } => ErrorClass::Fatal,
        }
    }

    /// Returns the steps that the user can take.
    pub fn next_steps(&self) -> Vec<NextStep> {
        match self {
            Self::Engine(error) => error.next_steps(),
            Self::Sandbox(error) => error.next_steps(),
            Self::Route(error) => error.next_steps(),
            Self::EmptyTask => vec![NextStep::DescribeTask],
            Self::Repository { .. } => vec![NextStep::ChooseRepository],
            Self::Untrusted { file, .. } => vec![NextStep::Trust { file: Some(file.clone()) }],
            Self::NoMemory { .. } => vec![NextStep::KeepRun],
            Self::NoSuchStep { run, .. } => vec![NextStep::ListSteps { run: *run }],
            Self::Active { run, .. } => vec![NextStep::Cancel { run: *run }],
            Self::Interrupted { run, .. } => {
                vec![NextStep::Resume { run: Some(*run) }, NextStep::Cancel { run: *run }]
            }
            Self::Ambiguous { .. } | Self::Invalid { .. } | Self::WrongState { .. } | Self::Output { .. } => {
                Vec::new()
            }
        }
    }
}

impl From<journal::Error> for Error {
    fn from(error: journal::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<ClaimError> for Error {
    fn from(error: ClaimError) -> Self {
        Self::Engine(error.into())
    }
}
