//! A run's workspace and directories after and around the run: history, clean-up, origin.

pub(crate) mod cleanup;
pub(crate) mod ephemeral_data_dir;
pub(crate) mod history;
pub(crate) mod origin;
pub(crate) mod run_directory;
