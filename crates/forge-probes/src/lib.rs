//! `forge sandbox verify`: tests a backend's sandboxes on this machine by trying to escape from them.
//!
//! [`run_probes`] opens sandboxes as runs would, lets the prober ([`inside`], the same binary) make the attempts of
//! [`PROBES`] in them, and checks canaries on the host before and after. A probe has passed only if it was refused
//! inside and left no trace outside; a probe that could not be made has failed, or is reported as not applicable with
//! the reason. The verdict can be stored per machine ([`ProbeVerdict::store`], [`ProbeVerdict::load`]).

#[allow(
    unsafe_code,
    reason = "attempts are system calls that no safe wrapper offers; each explains why it is sound"
)]
pub mod attempts;

mod after_run;
mod cache;
mod canary;
mod host;
mod host_facts;
mod inside;
mod probe_session;
mod program_list;
mod resources;
mod table;
mod traps;

pub use canary::prune_stale;
pub use host::HostFingerprint;
pub use inside::PROBER_ARG;
pub use inside::run_prober_task;
pub use table::{PROBES, Probe, ProbeGroup};

use crate::attempts::AttemptOutcome;
use canary::CanaryHost;
use forge_ports::Sandbox;
use forge_ports::sandbox::Error;
use forge_types::{RunId, SandboxSpec, WorkspaceMode};
use probe_session::ProbeSession;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A selection of probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeScope {
    /// The probes that must pass before an unattended run starts: one sandbox with one program, well below a second.
    Required,
    /// The probes of one group.
    Of(ProbeGroup),
    /// All probes; takes some seconds.
    #[default]
    All,
}

impl ProbeScope {
    fn includes(self, probe: &Probe) -> bool {
        match self {
            Self::Required => probe.required,
            Self::Of(group) => probe.group == group,
            Self::All => true,
        }
    }
}

/// The state of a probe after it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "why")]
pub enum ProbeState {
    /// The sandbox resisted, or an operation that must work worked.
    Passed,
    /// The sandbox did not resist, or the result is unknown.
    Failed,
    /// The probe is not possible here, for this reason.
    NotApplicable(String),
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Name of the probe.
    pub name: String,
    /// Group of the probe.
    pub group: ProbeGroup,
    /// Whether an unattended run requires the probe to pass.
    pub required: bool,
    /// State of the probe.
    #[serde(flatten)]
    pub state: ProbeState,
    /// Description of the observation.
    pub detail: String,
    /// Duration in milliseconds; probes that are judged together share theirs.
    pub millis: u64,
}

/// The results for a backend on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeVerdict {
    /// Version of Forge.
    pub forge: String,
    /// The backend that was tested.
    pub backend: String,
    /// The selection of probes.
    pub scope: ProbeScope,
    /// The machine.
    pub host: HostFingerprint,
    /// The results of all probes in the scope.
    pub probes: Vec<ProbeResult>,
    /// Whether no probe failed.
    pub passed: bool,
    /// Whether no probe failed that unattended runs require.
    pub required_passed: bool,
}

/// Outcomes by probe, with their duration in milliseconds.
type ProbeOutcomes = BTreeMap<String, (AttemptOutcome, u64)>;

/// Tries to escape from sandboxes that `sandbox` opens with the backend `backend`.
///
/// The sandboxes follow `template`, except that they use directories created for this purpose, and that those for limit
/// probes have lower limits. If the template has the host's network, probes of the network are not applicable.
///
/// # Errors
/// No sandbox opens, or the canaries cannot be created. A sandbox that fails its probes is not an error.
pub async fn run_probes(
    sandbox: &dyn Sandbox,
    backend: &str,
    scope: ProbeScope,
    template: &SandboxSpec,
) -> Result<ProbeVerdict, Error> {
    let startup = |error: std::io::Error| Error::Startup { why: format!("preparing the probes: {error}") };
    let mut stage = run_blocking(CanaryHost::set_up).await?.map_err(startup)?;
    let spec = SandboxSpec {
        backend: backend.to_owned(),
        repo: stage.workspace.clone(),
        more_repos: Vec::new(),
        // Written files must be visible on the host, where they are checked.
        mode: WorkspaceMode::Inplace,
        // The attempts start their own programs; a program list is tested separately in a sandbox of its own.
        programs: None,
        ..template.clone()
    };
    let mut scene = stage.host_facts(&spec).map_err(startup)?;
    let run = RunId::generate();
    let room = ProbeSession::open(sandbox, &spec, run).await?;
    let report = room.sandbox_report();
    scene.backend = report.backend;
    let missing = report.layers.iter().filter(|l| match &l.state {
        forge_types::SandboxLayerState::Absent(_) => l.name != inside::USER_SHARE_LAYER,
        forge_types::SandboxLayerState::Degraded(_) => l.name == inside::USER_SHARE_LAYER,
        forge_types::SandboxLayerState::Enforced => false,
    });
    scene.lacking = missing.map(|l| l.name.clone()).collect();
    let names = PROBES
        .iter()
        .filter(|p| scope.includes(p))
        .filter(|p| matches!(p.tried, table::ProbeMethod::Inside(_)));
    let mut outcomes = room.run_attempts(&scene, names.map(|p| p.name.to_owned()).collect()).await;
    // The init has survived all attempts and still responds.
    if let Err(error) = room.count_processes().await {
        outcomes.insert(
            "signal-init".to_owned(),
            (AttemptOutcome::Failed(format!("the sandbox is gone: {error}")), 0),
        );
    }
    drop(room);
    for (probe, seen) in stage.touched_canaries() {
        outcomes.insert(probe.to_owned(), (AttemptOutcome::Failed(seen), 0));
    }
    if matches!(scope, ProbeScope::All | ProbeScope::Of(ProbeGroup::Resources)) {
        outcomes.extend(resources::run_limit_probes(sandbox, &spec, &stage).await);
    }
    if matches!(scope, ProbeScope::All | ProbeScope::Of(ProbeGroup::AfterRun)) {
        outcomes.extend(after_run::run_after_probes(sandbox, &spec, &stage, run).await);
    }
    if matches!(scope, ProbeScope::All | ProbeScope::Of(ProbeGroup::Programs)) {
        outcomes.extend(program_list::run_program_probes(sandbox, &spec, &scene).await);
    }
    // Removing the canaries waits for disk I/O.
    run_blocking(move || drop(stage)).await?;
    Ok(ProbeVerdict::from_outcomes(backend, scope, &outcomes))
}

/// Runs work that may wait for disk I/O.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Died { why: error.to_string() })
}

impl ProbeVerdict {
    fn from_outcomes(backend: &str, scope: ProbeScope, outcomes: &ProbeOutcomes) -> Self {
        let wanted = PROBES.iter().filter(|probe| scope.includes(probe));
        let probes: Vec<ProbeResult> =
            wanted.map(|probe| judge_probe(probe, outcomes.get(probe.name))).collect();
        let fine = |p: &&ProbeResult| p.state == ProbeState::Failed;
        Self {
            forge: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend.to_owned(),
            scope,
            host: HostFingerprint::of_this_machine(),
            passed: !probes.iter().any(|p| fine(&p)),
            required_passed: !probes.iter().filter(|p| p.required).any(|p| fine(&p)),
            probes,
        }
    }

    /// Returns the probes that failed.
    pub fn failed_probes(&self) -> impl Iterator<Item = &ProbeResult> {
        self.probes.iter().filter(|probe| probe.state == ProbeState::Failed)
    }

    /// Returns the verdict in one line, with one more line for each failed probe.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |wanted: fn(&ProbeState) -> bool| self.probes.iter().filter(|p| wanted(&p.state)).count();
        let passed = count(|state| *state == ProbeState::Passed);
        let (failed, beside) =
            (count(|s| *s == ProbeState::Failed), count(|s| matches!(s, ProbeState::NotApplicable(_))));
        let mut text = format!(
            "{}: {passed} of {} probes passed, {failed} failed, {beside} not applicable",
            self.backend,
            self.probes.len()
        );
        for probe in self.failed_probes() {
            text.push_str(&format!("\n  {} failed: {}", probe.name, probe.detail));
        }
        text
    }
}

fn judge_probe(probe: &Probe, outcome: Option<&(AttemptOutcome, u64)>) -> ProbeResult {
    let missing = (AttemptOutcome::Untested("the probe returned no result".to_owned()), 0);
    let (outcome, millis) = outcome.unwrap_or(&missing);
    let (state, detail) = match outcome {
        AttemptOutcome::Passed(how) => (ProbeState::Passed, how.clone()),
        AttemptOutcome::Failed(how) => (ProbeState::Failed, how.clone()),
        AttemptOutcome::NotApplicable(why) => (ProbeState::NotApplicable(why.clone()), why.clone()),
        AttemptOutcome::Untested(why) => (ProbeState::Failed, format!("could not be tested: {why}")),
    };
    ProbeResult {
        name: probe.name.to_owned(),
        group: probe.group,
        required: probe.required,
        state,
        detail,
        millis: *millis,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tested_has_failed() {
        let verdict = ProbeVerdict::from_outcomes("native", ProbeScope::Required, &ProbeOutcomes::new());
        assert!(!verdict.passed && !verdict.required_passed);
        assert_eq!(verdict.failed_probes().count(), verdict.probes.len());
        assert!(verdict.summary().contains("could not be tested"));
    }

    #[test]
    fn a_named_reason_is_neither_passed_nor_failed() {
        let all = PROBES.iter().map(|p| (p.name.to_owned(), (AttemptOutcome::Passed("no".to_owned()), 1)));
        let mut outcomes: ProbeOutcomes = all.collect();
        outcomes.insert("node".to_owned(), (AttemptOutcome::NotApplicable("no node".to_owned()), 0));
        let verdict = ProbeVerdict::from_outcomes("native", ProbeScope::All, &outcomes);
        assert!(verdict.passed && verdict.required_passed);
        let node = verdict.probes.iter().find(|p| p.name == "node").unwrap();
        assert_eq!(node.state, ProbeState::NotApplicable("no node".to_owned()));
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<ProbeVerdict>(&json).unwrap(), verdict);
        outcomes.insert("node".to_owned(), (AttemptOutcome::Failed("x".to_owned()), 0));
        let verdict = ProbeVerdict::from_outcomes("native", ProbeScope::All, &outcomes);
        assert!(!verdict.passed && verdict.required_passed);
    }
}
