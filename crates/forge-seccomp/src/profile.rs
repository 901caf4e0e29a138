//! The same rules in the words of container engines, whose filter stands in front of the one that the init installs.
//!
//! The format is Docker's seccomp profile, which podman reads as well. It compares each argument once: a rule that
//! looks at one argument several times lets the call through here, and the init's own filter decides.

use serde_json::{Value, json};

use super::{Is, Otherwise, RULES, Rule, Test, Verdict};

/// Conditions on the arguments of one call, all of which must hold.
type Conditions = Vec<Value>;

/// The allow-list of the box as a seccomp profile in JSON. What is not on it fails with `ENOSYS` where the engine can
/// say so, else with `EPERM`.
#[must_use]
pub fn docker_seccomp_profile() -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    let calls: Vec<Value> = RULES.iter().flat_map(lines).collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": [architecture],
        "syscalls": calls,
    })
    .to_string()
}

/// A rule in one line, or one for each combination of arguments that is allowed.
fn lines(rule: &Rule) -> Vec<Value> {
    let names: Vec<&str> = rule.calls.iter().map(|(name, _)| name.trim_start_matches("SYS_")).collect();
    let allow =
        |conditions: Conditions| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": conditions});
    match rule.verdict {
        Verdict::Allow => vec![allow(Vec::new())],
        Verdict::Errno(errno) => {
            vec![json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": []})]
        }
        Verdict::When(tests, Otherwise::Allow) => allowed(tests).into_iter().map(allow).collect(),
        // Nothing is on the list only under conditions.
        Verdict::When(_, Otherwise::Errno(_) | Otherwise::Ask) => vec![allow(Vec::new())],
    }
}

/// The combinations that no test refuses; one without conditions when that cannot be said.
fn allowed(tests: &[Test]) -> Vec<Conditions> {
    let everything = vec![Vec::new()];
    let repeated = tests.iter().enumerate().any(|(at, t)| tests.iter().skip(at + 1).any(|u| u.arg == t.arg));
    if repeated {
        return everything;
    }
    tests.iter().fold(everything, |combinations, test| {
        let passing = passing(test);
        let join = |conditions: Conditions| {
            passing
                .iter()
                .map(move |one| conditions.iter().chain([one]).cloned().collect::<Conditions>())
                .collect::<Vec<_>>()
        };
        combinations.into_iter().flat_map(join).collect()
    })
}

/// What an argument may be for a test not to refuse: one of these.
fn passing(test: &Test) -> Vec<Value> {
    let equals = |value: u32| json!({"index": test.arg, "op": "SCMP_CMP_MASKED_EQ", "value": test.mask, "valueTwo": value});
    match test.is {
        Is::NoneOf(values) => values.iter().map(|value| equals(*value)).collect(),
        Is::AnySet => vec![equals(0)],
        Is::Equal(value) => vec![json!({"index": test.arg, "op": "SCMP_CMP_NE", "value": value})],
    }
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
        // Three families times three kinds.
        let sockets = line("socket");
        assert_eq!(sockets.len(), 9);
        assert!(sockets.iter().all(|s| s["args"].as_array().unwrap().len() == 2));
        assert_eq!(line("clone")[0]["args"][0]["valueTwo"], 0);
        // Three tests of one argument: left to the init's own filter.
        assert_eq!(line("ioctl").len(), 1);
        assert!(line("ioctl")[0]["args"].as_array().unwrap().is_empty());
    }
}
