//! Keys that need not lie in the environment.
