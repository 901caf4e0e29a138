//! The same rules as a profile for container engines, which apply it in front of the filter that the init installs.
//!
//! The format is Docker's seccomp profile, which podman reads as well. An entry compares each argument at most once. A
//! rule that cannot be expressed in this way allows the call here, and the init's own filter decides.

use serde_json::{Value, json};

use super::{ArgumentTest, CallVerdict, Comparison, FixedVerdict, JAIL_RULES, SyscallRule};

/// Returns the sandbox's allowlist as a seccomp profile in JSON. Other calls fail with `ENOSYS` if the engine supports
/// that, otherwise with `EPERM`.
#[must_use]
pub fn docker_seccomp_profile() -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    let calls: Vec<Value> = JAIL_RULES.iter().flat_map(profile_lines).collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": [architecture],
        "syscalls": calls,
    })
    .to_string()
}

/// Converts a rule into one entry, or one for each allowed combination of arguments.
fn profile_lines(rule: &SyscallRule) -> Vec<Value> {
    let names: Vec<&str> = rule.calls.iter().map(|(name, _)| name.trim_start_matches("SYS_")).collect();
    let allow =
        |arguments: Vec<Value>| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": arguments});
    match rule.verdict {
        CallVerdict::Allow => vec![allow(Vec::new())],
        CallVerdict::Errno(errno) => {
            vec![json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": []})]
        }
        CallVerdict::When(tests, FixedVerdict::Allow) => {
            let said = allowed_combinations(tests)
                .and_then(|all| all.iter().map(format_conditions).collect::<Option<Vec<_>>>());
            said.map_or_else(|| vec![allow(Vec::new())], |all| all.into_iter().map(allow).collect())
        }
        // No rule in `JAIL_RULES` refuses by default; if one did, the init's own filter would decide.
        CallVerdict::When(_, FixedVerdict::Errno(_) | FixedVerdict::Ask) => vec![allow(Vec::new())],
    }
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ArgumentCondition {
    arg: u32,
    mask: u32,
    value: u32,
    /// Whether the masked argument must equal the value or differ from it.
    equal: bool,
}

/// Conditions on the arguments of one call, all of which must hold; at most one for each argument.
type ConditionSet = Vec<ArgumentCondition>;

/// Returns the combinations that the tests allow, in order, or `None` if single comparisons cannot express them.
fn allowed_combinations(tests: &[ArgumentTest]) -> Option<Vec<ConditionSet>> {
    let (mut found, mut open) = (Vec::new(), vec![Vec::new()]);
    for test in tests {
        if test.then == FixedVerdict::Allow {
            found.extend(join_conditions(&open, &matching_conditions(test)?)?);
        }
        open = join_conditions(&open, &failing_conditions(test))?;
    }
    found.extend(open);
    Some(found)
}

/// Returns the alternative conditions under which the test matches.
fn matching_conditions(test: &ArgumentTest) -> Option<Vec<ArgumentCondition>> {
    let condition = |value, equal| ArgumentCondition { arg: test.arg, mask: test.mask, value, equal };
    match test.is {
        Comparison::Equal(value) => Some(vec![condition(value, true)]),
        Comparison::NoneOf([value]) => Some(vec![condition(*value, false)]),
        Comparison::AnySet if test.mask.is_power_of_two() => Some(vec![condition(test.mask, true)]),
        Comparison::NoneOf(_) | Comparison::AnySet => None,
    }
}

/// Returns the alternative conditions under which the test does not match.
fn failing_conditions(test: &ArgumentTest) -> Vec<ArgumentCondition> {
    let condition = |value, equal| ArgumentCondition { arg: test.arg, mask: test.mask, value, equal };
    match test.is {
        Comparison::NoneOf(values) => values.iter().map(|value| condition(*value, true)).collect(),
        Comparison::AnySet => vec![condition(0, true)],
        Comparison::Equal(value) => vec![condition(value, false)],
    }
}

/// Combines each combination with each of the conditions, dropping contradictory ones. Returns `None` if two conditions
/// on one argument cannot be merged.
fn join_conditions(combinations: &[ConditionSet], more: &[ArgumentCondition]) -> Option<Vec<ConditionSet>> {
    let mut all = Vec::new();
    for combination in combinations {
        for condition in more {
            let mut together = combination.clone();
            match together.iter_mut().find(|known| known.arg == condition.arg) {
                None => together.push(*condition),
                Some(known) if known.mask != condition.mask => return None,
                Some(known) => match (known.equal, condition.equal, known.value == condition.value) {
                    (true, true, true) | (true, false, false) | (false, false, true) => {}
                    (false, true, false) => *known = *condition,
                    (true, true, false) | (true, false, true) | (false, true, true) => continue,
                    (false, false, false) => return None,
                },
            }
            all.push(together);
        }
    }
    Some(all)
}

/// Returns the conditions in the profile's format, or `None` if it cannot express them.
fn format_conditions(conditions: &ConditionSet) -> Option<Vec<Value>> {
    let one = |c: &ArgumentCondition| match c {
        ArgumentCondition { arg, mask, value, equal: true } => {
            Some(json!({"index": arg, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}))
        }
        ArgumentCondition { arg, mask: u32::MAX, value, equal: false } => {
            Some(json!({"index": arg, "op": "SCMP_CMP_NE", "value": value}))
        }
        ArgumentCondition { .. } => None,
    };
    conditions.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> Vec<Value> {
        let profile: Value = serde_json::from_str(&docker_seccomp_profile()).unwrap();
        let lines = profile["syscalls"].as_array().unwrap().clone();
        lines.into_iter().filter(|l| l["names"].as_array().unwrap().contains(&json!(name))).collect()
    }

    #[test]
    fn the_profile_says_what_the_rules_say() {
        assert_eq!(line("read")[0]["action"], "SCMP_ACT_ALLOW");
        assert_eq!(line("clone3")[0]["errnoRet"], libc::ENOSYS);
        assert_eq!(line("mount")[0]["errnoRet"], libc::EPERM);
        assert!(line("no_such_call").is_empty());
        // Three kinds of unix; two families times two kinds times five protocols.
        for name in ["socket", "socketpair"] {
            let sockets = line(name);
            let of = |count: usize| {
                sockets.iter().filter(|s| s["args"].as_array().unwrap().len() == count).count()
            };
            assert_eq!((of(2), of(3), sockets.len()), (3, 20, 23));
        }
        let whiteout = json!([{"index": 4, "op": "SCMP_CMP_MASKED_EQ", "value": 4, "valueTwo": 0}]);
        assert_eq!(line("renameat2")[0]["args"], whiteout);
        assert_eq!(line("clone")[0]["args"][0]["valueTwo"], 0);
        // Three tests of one argument: left to the init's own filter.
        assert_eq!(line("ioctl").len(), 1);
        assert!(line("ioctl")[0]["args"].as_array().unwrap().is_empty());
    }
}
