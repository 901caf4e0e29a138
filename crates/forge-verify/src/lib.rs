//! `forge sandbox verify`: whether the boxes of a backend hold on this machine, found out by trying to get out.
//!
//! [`verify`] opens boxes as runs would, has the prober ([`inside`], the same binary) make the attempts of [`PROBES`]
//! in them, and looks at canaries on the host before and after. A probe has passed only if it was refused inside and
//! left no trace outside; what could not be tried has failed, or is named as not applicable with the reason. The
//! verdict can be kept per machine ([`Verdict::store`], [`Verdict::load`]).

#[allow(
    unsafe_code,
    reason = "attempts are system calls that no safe wrapper offers; each says why it is sound"
)]
pub mod attempts;

mod after;
mod cache;
mod canary;
mod host;
mod inside;
mod listed;
mod resources;
mod room;
mod scene;
mod table;
mod traps;

pub use canary::prune;
pub use host::Host;
pub use inside::PROBER;
pub use inside::answer;
pub use table::{Group, PROBES, Probe};

use crate::attempts::Outcome;
use canary::Stage;
use forge_ports::Sandbox;
use forge_ports::sandbox::Error;
use forge_types::{RunId, SandboxSpec, WorkspaceMode};
use room::Room;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which probes are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those that no run without a person starts without: one box, one program in it, well below a second.
    Required,
    /// Those of one group.
    Of(Group),
    /// All of them; takes some seconds.
    #[default]
    All,
}

impl Scope {
    fn holds(self, probe: &Probe) -> bool {
        match self {
            Self::Required => probe.required,
            Self::Of(group) => probe.group == group,
            Self::All => true,
        }
    }
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "why")]
pub enum State {
    /// The box held, or what must work worked.
    Passed,
    /// It did not, or it could not be found out.
    Failed,
    /// There is nothing here to try it on, for this reason.
    NotApplicable(String),
}

/// One probe's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The probe's name.
    pub name: String,
    /// What it is about.
    pub group: Group,
    /// Whether no run without a person starts when it failed.
    pub required: bool,
    /// What became of it.
    #[serde(flatten)]
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// Milliseconds it took; probes of one kind that are judged together share theirs.
    pub millis: u64,
}

/// What is known about a backend on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Version of Forge.
    pub forge: String,
    /// The backend that was tried.
    pub backend: String,
    /// Which probes were made.
    pub scope: Scope,
    /// The machine.
    pub host: Host,
    /// Every probe of the scope.
    pub probes: Vec<ProbeResult>,
    /// Whether none failed.
    pub passed: bool,
    /// Whether none failed of those that a run without a person needs.
    pub required_passed: bool,
}

/// Outcomes by probe, with their time in milliseconds.
type Outcomes = BTreeMap<String, (Outcome, u64)>;

/// Tries to get out of boxes that `sandbox` opens with the backend `backend`.
///
/// The boxes are those of `template`, except that they are around folders made for this, and that those whose ceilings
/// are tried have lower ones. If its network is the host's, probes of the network are not applicable.
///
/// # Errors
/// When no box opens, or the canaries cannot be made. A box that fails its probes is no error.
pub async fn verify(
    sandbox: &dyn Sandbox,
    backend: &str,
    scope: Scope,
    template: &SandboxSpec,
) -> Result<Verdict, Error> {
    let startup = |error: std::io::Error| Error::Startup { why: format!("preparing the probes: {error}") };
    let mut stage = blocking(Stage::set_up).await?.map_err(startup)?;
    let spec = SandboxSpec {
        backend: backend.to_owned(),
        repo: stage.workspace.clone(),
        more_repos: Vec::new(),
        // What is written must be seen on the host, where it is judged.
        mode: WorkspaceMode::Inplace,
        // The attempts start programs of their own; a list has a box and attempts to itself.
        programs: None,
        ..template.clone()
    };
    let mut scene = stage.scene(&spec).map_err(startup)?;
    let run = RunId::generate();
    let room = Room::open(sandbox, &spec, run).await?;
    let report = room.report();
    scene.backend = report.backend;
    let missing = report.layers.iter().filter(|l| match &l.state {
        forge_types::LayerState::Absent(_) => l.name != inside::SHARE,
        forge_types::LayerState::Degraded(_) => l.name == inside::SHARE,
        forge_types::LayerState::Enforced => false,
    });
    scene.lacking = missing.map(|l| l.name.clone()).collect();
    let names = PROBES.iter().filter(|p| scope.holds(p)).filter(|p| matches!(p.tried, table::Try::Inside(_)));
    let mut outcomes = room.probes(&scene, names.map(|p| p.name.to_owned()).collect()).await;
    // The init took every blow and still serves.
    if let Err(error) = room.count().await {
        outcomes.insert("signal-init".to_owned(), (Outcome::Broke(format!("the box is gone: {error}")), 0));
    }
    drop(room);
    for (probe, seen) in stage.touched() {
        outcomes.insert(probe.to_owned(), (Outcome::Broke(seen), 0));
    }
    if matches!(scope, Scope::All | Scope::Of(Group::Resources)) {
        outcomes.extend(resources::press(sandbox, &spec, &stage).await);
    }
    if matches!(scope, Scope::All | Scope::Of(Group::AfterRun)) {
        outcomes.extend(after::look(sandbox, &spec, &stage, run).await);
    }
    if matches!(scope, Scope::All | Scope::Of(Group::Programs)) {
        outcomes.extend(listed::look(sandbox, &spec, &scene).await);
    }
    // Removing the fixture waits for a disk.
    blocking(move || drop(stage)).await?;
    Ok(Verdict::of(backend, scope, &outcomes))
}

/// Runs work that may wait for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Died { why: error.to_string() })
}

impl Verdict {
    fn of(backend: &str, scope: Scope, outcomes: &Outcomes) -> Self {
        let wanted = PROBES.iter().filter(|probe| scope.holds(probe));
        let probes: Vec<ProbeResult> = wanted.map(|probe| judged(probe, outcomes.get(probe.name))).collect();
        let fine = |p: &&ProbeResult| p.state == State::Failed;
        Self {
            forge: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend.to_owned(),
            scope,
            host: Host::of_this_machine(),
            passed: !probes.iter().any(|p| fine(&p)),
            required_passed: !probes.iter().filter(|p| p.required).any(|p| fine(&p)),
            probes,
        }
    }

    /// The probes that failed.
    pub fn failed(&self) -> impl Iterator<Item = &ProbeResult> {
        self.probes.iter().filter(|probe| probe.state == State::Failed)
    }

    /// The verdict in one line, and one more for each probe that failed.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |wanted: fn(&State) -> bool| self.probes.iter().filter(|p| wanted(&p.state)).count();
        let passed = count(|state| *state == State::Passed);
        let (failed, beside) =
            (count(|s| *s == State::Failed), count(|s| matches!(s, State::NotApplicable(_))));
        let mut text = format!(
            "{}: {passed} of {} probes passed, {failed} failed, {beside} not applicable",
            self.backend,
            self.probes.len()
        );
        for probe in self.failed() {
            text.push_str(&format!("\n  {} failed: {}", probe.name, probe.detail));
        }
        text
    }
}

fn judged(probe: &Probe, outcome: Option<&(Outcome, u64)>) -> ProbeResult {
    let missing = (Outcome::Untested("the probe gave no answer".to_owned()), 0);
    let (outcome, millis) = outcome.unwrap_or(&missing);
    let (state, detail) = match outcome {
        Outcome::Held(how) => (State::Passed, how.clone()),
        Outcome::Broke(how) => (State::Failed, how.clone()),
        Outcome::Absent(why) => (State::NotApplicable(why.clone()), why.clone()),
        Outcome::Untested(why) => (State::Failed, format!("could not be tested: {why}")),
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
        let verdict = Verdict::of("native", Scope::Required, &Outcomes::new());
        assert!(!verdict.passed && !verdict.required_passed);
        assert_eq!(verdict.failed().count(), verdict.probes.len());
        assert!(verdict.summary().contains("could not be tested"));
    }

    #[test]
    fn a_named_reason_is_neither_passed_nor_failed() {
        let all = PROBES.iter().map(|p| (p.name.to_owned(), (Outcome::Held("no".to_owned()), 1)));
        let mut outcomes: Outcomes = all.collect();
        outcomes.insert("node".to_owned(), (Outcome::Absent("no node".to_owned()), 0));
        let verdict = Verdict::of("native", Scope::All, &outcomes);
        assert!(verdict.passed && verdict.required_passed);
        let node = verdict.probes.iter().find(|p| p.name == "node").unwrap();
        assert_eq!(node.state, State::NotApplicable("no node".to_owned()));
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
        outcomes.insert("node".to_owned(), (Outcome::Broke("x".to_owned()), 0));
        let verdict = Verdict::of("native", Scope::All, &outcomes);
        assert!(!verdict.passed && verdict.required_passed);
    }
}
