//! Isolation of child runs: the same as the parent's or stricter, never weaker.

use forge_types::{EgressRules, NetworkPolicy, SandboxLimits, SandboxSpec};

/// Returns the sandbox of a child run that requests `wish`, below a parent with the sandbox `parent`.
///
/// Backend, image, repository mode and environment are the parent's. The child may reach, write, see and use at most
/// what the parent may.
pub fn inherit(parent: &SandboxSpec, wish: &SandboxSpec) -> SandboxSpec {
    SandboxSpec {
        backend: parent.backend.clone(),
        repo: parent.repo.clone(),
        more_repos: parent.more_repos.clone(),
        mode: parent.mode,
        apply: parent.apply,
        image: parent.image.clone(),
        network: inherit_network(&parent.network, &wish.network),
        limits: inherit_limits(&parent.limits, &wish.limits),
        workspace: parent.workspace.min_each(wish.workspace),
        reveal: intersect(&parent.reveal, &wish.reveal),
        env: parent.env.clone(),
        read_only: intersect(&parent.read_only, &wish.read_only),
        writable: intersect(&parent.writable, &wish.writable),
        programs: inherit_programs(parent.programs.as_deref(), wish.programs.as_deref()),
        allow_unisolated: parent.allow_unisolated && wish.allow_unisolated,
    }
}

fn inherit_network(parent: &NetworkPolicy, wish: &NetworkPolicy) -> NetworkPolicy {
    match (parent, wish) {
        (NetworkPolicy::Off, _) | (_, NetworkPolicy::Off) => NetworkPolicy::Off,
        (NetworkPolicy::Host, wish) => wish.clone(),
        (parent, NetworkPolicy::Host) => parent.clone(),
        (NetworkPolicy::Allow(parent), NetworkPolicy::Allow(wish)) => {
            // Entries are compared, not hosts: a request for `a.example.com` below `*.example.com` must name the
            // parent's entry.
            let rules = EgressRules {
                allow: intersect(&parent.allow, &wish.allow),
                keys: parent.keys.iter().filter(|key| wish.keys.contains(key)).cloned().collect(),
            };
            if rules.allow.is_empty() { NetworkPolicy::Off } else { NetworkPolicy::Allow(rules) }
        }
    }
}

/// Without a list any program may run; with an empty list only the shell.
fn inherit_programs(parent: Option<&[String]>, wish: Option<&[String]>) -> Option<Vec<String>> {
    match (parent, wish) {
        (Some(parent), Some(wish)) => Some(intersect(parent, wish)),
        (parent, wish) => parent.or(wish).map(<[String]>::to_vec),
    }
}

fn inherit_limits(parent: &SandboxLimits, wish: &SandboxLimits) -> SandboxLimits {
    SandboxLimits {
        memory_bytes: parent.memory_bytes.min(wish.memory_bytes),
        pids: parent.pids.min(wish.pids),
        cpus: match (parent.cpus, wish.cpus) {
            (Some(parent), Some(wish)) => Some(parent.min(wish)),
            (parent, wish) => parent.or(wish),
        },
        tmp_bytes: parent.tmp_bytes.min(wish.tmp_bytes),
        command_ms: parent.command_ms.min(wish.command_ms),
    }
}

fn intersect<T: PartialEq + Clone>(parent: &[T], wish: &[T]) -> Vec<T> {
    parent.iter().filter(|entry| wish.contains(entry)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> impl Strategy<Value = SandboxSpec> {
        let names = || proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3);
        let some = || proptest::sample::subsequence(vec!["a", "b", "c"], 1..=3);
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let network = prop_oneof![
            Just(NetworkPolicy::Off),
            Just(NetworkPolicy::Host),
            some().prop_map(move |allow| NetworkPolicy::Allow(EgressRules {
                allow: owned(allow),
                keys: vec![]
            })),
        ];
        let size = || 1_u64..5;
        let programs = proptest::option::of(names());
        (network, names(), names(), any::<bool>(), size(), proptest::option::of(1_u8..4), programs).prop_map(
            move |(network, reveal, paths, allow_unisolated, bytes, cpus, programs)| SandboxSpec {
                network,
                limits: SandboxLimits {
                    memory_bytes: bytes,
                    pids: 9,
                    cpus: cpus.map(f64::from),
                    tmp_bytes: bytes,
                    command_ms: bytes,
                },
                reveal: owned(reveal),
                read_only: paths.iter().map(Into::into).collect(),
                writable: paths.iter().map(Into::into).collect(),
                programs: programs.map(owned),
                allow_unisolated,
                ..SandboxSpec::new("native", "/repo")
            },
        )
    }

    fn within<T: PartialEq>(inner: &[T], outer: &[T]) -> bool {
        inner.iter().all(|entry| outer.contains(entry))
    }

    fn reaches(inner: &NetworkPolicy, outer: &NetworkPolicy) -> bool {
        match (inner, outer) {
            (NetworkPolicy::Off, _) | (_, NetworkPolicy::Host) => true,
            (NetworkPolicy::Allow(inner), NetworkPolicy::Allow(outer)) => within(&inner.allow, &outer.allow),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_child_is_never_freer_than_its_parent(parent in spec(), wish in spec()) {
            let child = inherit(&parent, &wish);
            for of in [&parent, &wish] {
                prop_assert!(reaches(&child.network, &of.network));
                prop_assert!(within(&child.reveal, &of.reveal));
                prop_assert!(within(&child.read_only, &of.read_only) && within(&child.writable, &of.writable));
                prop_assert!(child.limits.memory_bytes <= of.limits.memory_bytes);
                prop_assert!(of.limits.cpus.is_none_or(|most| child.limits.cpus.is_some_and(|has| has <= most)));
                // Without a list any program may run; with an empty list none.
                let listed = of.programs.as_ref();
                prop_assert!(listed.is_none_or(|of| child.programs.as_ref().is_some_and(|child| within(child, of))));
                prop_assert!(!child.allow_unisolated || of.allow_unisolated);
            }
            prop_assert_eq!(inherit(&parent, &parent), parent.clone());
            prop_assert_eq!(child.backend, parent.backend);
        }
    }
}
