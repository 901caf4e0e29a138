//! Sandboxes with commands that may execute only the programs of a list, on every backend.

use crate::as_both;
use crate::engine::{IMAGE, Rig as InContainer, engines};
use crate::rig::{Rig, backends, command, err, folder, options, out, spec};
use forge_jail::DisabledProtection;
use forge_ports::Sandbox as _;
use forge_ports::sandbox::Error;
use forge_sandbox::probes::{self, ProbeGroup, ProbeScope, ProbeVerdict};
use forge_sandbox::{BackendOptions, Backends};
use forge_types::{RunId, SandboxLayerState, SandboxSpec};

fn list(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Returns for each probe how many of its lines ran a forbidden program, as the verdict words it.
fn counts(verdict: &ProbeVerdict) -> Vec<(String, String)> {
    let shown = verdict.probes.iter().filter(|probe| probe.detail.contains(" lines"));
    shown.map(|probe| (probe.name.clone(), probe.detail.clone())).collect()
}

as_both! {
    async fn a_list_holds_against_every_class_of_lines() {
        let (data, dir) = (folder(), folder());
        let template = spec(dir.path(), "native");
        let scope = ProbeScope::Of(ProbeGroup::Programs);
        let verdict = probes::run_probes(&backends(data.path()), "native", scope, &template).await.unwrap();
        assert!(verdict.passed, "{}\n{:#?}", verdict.summary(), counts(&verdict));
    }

    async fn most_lines_run_it_where_no_list_is_held() {
        let (data, dir) = (folder(), folder());
        let weak = Backends::new(BackendOptions { without: vec![DisabledProtection::ProgramList], ..options(data.path()) });
        let scope = ProbeScope::Of(ProbeGroup::Programs);
        let verdict = probes::run_probes(&weak, "native", scope, &spec(dir.path(), "native")).await.unwrap();
        for probe in verdict.probes.iter().filter(|probe| probe.name != "listed-programs-work") {
            println!("{}: {}", probe.name, probe.detail);
            let (ran, of) = match probe.detail.split_once(" lines ran it") {
                Some((counts, _)) => counts.split_once(" of ").unwrap(),
                None => ("1", "1"),
            };
            let (ran, of): (usize, usize) = (ran.parse().unwrap(), of.parse().unwrap());
            // A shell or git of this machine may lack one way or another.
            assert!(ran * 3 >= of * 2, "{}: only {ran} of {of} lines say something", probe.name);
        }
    }

    async fn tools_of_forge_execute_what_they_name_and_the_walker_runs() {
        let rig = Rig::with("native", |spec, repo| {
            std::fs::write(repo.join("f"), "x").unwrap();
            spec.programs = list(&["ls", "no-such-program"]);
        }).await;
        let mut git = command(&["git", "--version"]);
        assert_ne!(rig.exec(git.clone()).await.unwrap().exit_code, 0);
        git.also = vec!["git".to_owned()];
        assert!(out(&rig.exec(git).await.unwrap()).starts_with("git version"));
        assert_eq!(rig.room.list_directory("", 1, 10).await.unwrap().items.len(), 1);
        let refused = rig.sh("id").await;
        assert_eq!(refused.exit_code, 126, "{}", err(&refused));
        let report = rig.room.report();
        assert!(report.layers.iter().any(|l| l.name == "program list" && l.state == SandboxLayerState::Enforced));
        assert!(report.warnings.iter().any(|warning| warning.contains("`no-such-program`")), "{:?}", report.warnings);
    }

    async fn without_walls_a_list_is_refused() {
        let (data, dir) = (folder(), folder());
        let spec = SandboxSpec { programs: list(&["ls"]), ..spec(dir.path(), "process") };
        match backends(data.path()).open(&spec, RunId::generate(), None).await {
            Err(Error::Missing { missing }) => {
                assert!(missing[0].what.contains("allowed_shell_commands"), "{missing:?}")
            }
            other => panic!("{:?}", other.map(|_| "opened")),
        }
    }
}

#[test]
fn a_list_holds_in_containers() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for engine in engines() {
        let (kind, dir) = (engine.kind.to_string(), folder());
        let template = SandboxSpec { image: Some(IMAGE.to_owned()), ..spec(dir.path(), &kind) };
        let scope = ProbeScope::Of(ProbeGroup::Programs);
        let verdict =
            runtime.block_on(probes::run_probes(&engine.backends(), &kind, scope, &template)).unwrap();
        assert!(verdict.passed, "{}\n{:#?}", verdict.summary(), counts(&verdict));
        runtime.block_on(async {
            let python = InContainer::with(&engine, |spec, _| spec.programs = list(&["python3"])).await;
            let ran = python.sh("python3 -c 'print(6 * 7)'; id").await;
            assert!(out(&ran).starts_with("42") && !out(&ran).contains("uid="), "{}", err(&ran));
            assert_eq!(python.room.list_directory("", 1, 10).await.unwrap().items.len(), 0);
        });
    }
}
