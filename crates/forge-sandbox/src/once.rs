//! One-shot boxes for generated programs.
