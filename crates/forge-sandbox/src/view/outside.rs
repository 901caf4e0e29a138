//! What the workspaces of runs hold, seen from outside of any box.
