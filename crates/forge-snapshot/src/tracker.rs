//! Snapshots of one workspace: taking them, and putting the workspace back to one.
