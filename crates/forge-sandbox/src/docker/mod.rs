//! The `docker` and `podman` backends: one hardened container per run, served by our own init.
