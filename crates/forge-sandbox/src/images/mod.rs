//! Root folders and container images for boxes.
