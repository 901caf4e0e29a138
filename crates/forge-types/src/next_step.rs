//! Next steps: what a user can do after an error.

use crate::{LimitKind, RunId};
use serde::{Deserialize, Serialize};

/// A step that a user can take after an error. Errors carry it as a fact, and each surface renders it in its own terms,
/// such as the command of a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum NextStep {
    /// Describe the task.
    DescribeTask,
    /// Check this machine and the configuration.
    CheckSetup,
    /// List the runs.
    ListRuns,
    /// Show a run.
    ShowRun {
        /// The run.
        run: RunId,
    },
    /// Follow the events of a run.
    FollowRun {
        /// The run.
        run: RunId,
    },
    /// List the steps of a run that changed files.
    ListSteps {
        /// The run.
        run: RunId,
    },
    /// Continue a run.
    Resume {
        /// The run, if it is not the one that the error is about.
        run: Option<RunId>,
    },
    /// Cancel a run.
    Cancel {
        /// The run.
        run: RunId,
    },
    /// Raise a limit of the run.
    RaiseLimit {
        /// The limit.
        limit: LimitKind,
    },
    /// Show when each model is available again.
    ShowModels,
    /// Choose a model.
    ChooseModel,
    /// Choose a provider.
    ChooseProvider,
    /// Choose a repository.
    ChooseRepository,
    /// Choose a workspace that needs no branch.
    ChooseTransaction,
    /// Remove the snapshots of ended runs.
    RemoveSnapshots,
    /// Keep the run on disk.
    KeepRun,
    /// Accept what a repository contains.
    Trust {
        /// The file, if it is not the repository's own configuration.
        file: Option<String>,
    },
    /// Log in at a provider.
    Login {
        /// The provider.
        provider: String,
    },
    /// Store a secret.
    SetSecret {
        /// The name, if known.
        name: Option<String>,
    },
    /// Open the repository's own key store once.
    AdoptStore,
    /// Build an image from packages.
    BuildImage {
        /// The image, if it is not the usual one.
        image: Option<String>,
    },
    /// Take an image from a container engine.
    ImportImage {
        /// The image, if known.
        image: Option<String>,
    },
    /// Show all probes of a sandbox backend.
    ShowProbes {
        /// The backend.
        backend: String,
    },
    /// Create the project's configuration.
    InitProject,
    /// List all settings.
    ListSettings,
}

impl NextStep {
    /// Returns the text of the step, which may contain a secret.
    pub fn text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Trust { file: text }
            | Self::SetSecret { name: text }
            | Self::BuildImage { image: text }
            | Self::ImportImage { image: text } => text.as_mut(),
            Self::Login { provider: text } | Self::ShowProbes { backend: text } => Some(text),
            _ => None,
        }
    }
}
