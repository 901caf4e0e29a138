//! What a run leaves on disk and where it comes from: undo and apply, run directories, clean-up, the remote repository.

pub(crate) mod cleanup;
pub(crate) mod ephemeral_data_dir;
pub(crate) mod history;
pub(crate) mod origin;
pub(crate) mod own_places;
pub(crate) mod run_directory;
