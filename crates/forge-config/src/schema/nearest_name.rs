//! The nearest known name, for hints.

/// Returns the name in `known` that is closest to `name`, if it is close enough to be intended.
pub(crate) fn nearest_name<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 80 {
        return None; // the cost is quadratic in the length, and such long names are not misspellings
    }
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let name = name.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["agent.max_iterations", "sandbox.pids", "model.name"];
        assert_eq!(nearest_name("agent.max_iteration", known), Some("agent.max_iterations"));
        assert_eq!(nearest_name("agent.max_itertaions", known), Some("agent.max_iterations"));
        assert_eq!(nearest_name("sandbox.pid", known), Some("sandbox.pids"));
        assert_eq!(nearest_name("memory.enabled", known), None);
        assert_eq!(nearest_name("", known), None);
        assert_eq!(nearest_name("ba", ["AB", "abc"]), Some("AB"));
    }
}
