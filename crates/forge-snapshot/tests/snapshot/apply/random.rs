//! Random changes by runs and a person, faults and kills at random places.

use super::{Rig, Run, judge};
use crate::trees::{Op, Was, ops, perform, read};
use forge_snapshot::RelPath;
use forge_snapshot::TreeNode;
use forge_snapshot::apply::{Error, LockWait, MergeMode, lock_repository};
use forge_snapshot::compare::TreeChange;
use forge_testkit::scale;
use proptest::prelude::*;
use std::{fs, io};

fn was() -> impl Strategy<Value = Was> {
    prop_oneof![Just(Was::Known), Just(Was::Unknown)]
}

fn merge_or_not() -> impl Strategy<Value = MergeMode> {
    prop_oneof![Just(MergeMode::No), Just(MergeMode::Clean)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: scale::sample_or_all(200, 10_000), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lost_and_all_or_nothing_is_applied(
        first in ops(4..14), of_run in ops(1..8), of_person in ops(0..4), was in was(), merge in merge_or_not(),
    ) {
        let rig = Rig::new(|root| perform(root, &first));
        perform(&rig.run.view, &of_run);
        let to = rig.run.delta(was);
        perform(&rig.run.repository, &of_person);
        let before = read(&rig.run.repository);
        let mut at = 0;
        let done = loop {
            let mut fault = || Err(io::Error::other("a fault of the test"));
            match rig.run.apply_with(&to, merge, at, &mut fault) {
                Err(Error::Stopped { .. }) => {
                    prop_assert_eq!(&read(&rig.run.repository), &before, "after a fault at step {}", at);
                }
                // A fault while it cleans up comes too late to matter.
                done => break done,
            }
            at += 1;
        };
        judge(&rig.run, &to, &before, &done);
        prop_assert!(done.is_ok() || !of_person.is_empty(), "a conflict although nobody changed anything");
        if let Ok(applied) = done
            && applied.merged.is_empty()
        {
            let mut from = to.clone();
            applied.fill_known_contents(&mut from);
            let unknown = |d: &TreeChange| {
                matches!(d.before, Some(TreeNode::File { content: None, .. }))
            };
            let lost = applied.already.iter().any(unknown);
            let both = |path: &RelPath| applied.already.iter().any(|d| d.path == *path);
            match rig.run.undo(&from) {
                Err(Error::Store(_)) if lost => {}
                // What both removed can't come back where the person removed the folder around it as well.
                Err(Error::Conflicts(conflicts)) if conflicts.iter().all(|c| both(&c.path)) => {}
                Err(error) => panic!("{error}"),
                Ok(_) => {
                    let after = read(&rig.run.repository);
                    for path in before.keys().chain(after.keys()).filter(|path| !both(path)) {
                        prop_assert_eq!(after.get(path), before.get(path), "{} did not come back", path);
                    }
                }
            }
        }
    }

    #[test]
    fn a_kill_at_any_step_is_finished_by_the_next(
        first in ops(4..14), of_run in ops(1..8), was in was(), at in 0..25_usize,
    ) {
        let rig = Rig::new(|root| perform(root, &first));
        perform(&rig.run.view, &of_run);
        let to = rig.run.delta(was);
        let mut kill = || -> io::Result<()> { std::panic::resume_unwind(Box::new("killed")) };
        let killed = std::panic::AssertUnwindSafe(|| rig.run.apply_with(&to, MergeMode::No, at, &mut kill));
        if let Ok(done) = std::panic::catch_unwind(killed) {
            done.unwrap();
        }
        rig.run.apply(&to, MergeMode::No).unwrap();
        let (is, wanted) = (read(&rig.run.repository), read(&rig.run.view));
        prop_assert_eq!(is, wanted);
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Turn {
    Person(Vec<Op>),
    Works(usize, Vec<Op>),
    Applies(usize, MergeMode),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        2 => ops(1..3).prop_map(Turn::Person),
        3 => (0..2_usize, ops(1..4)).prop_map(|(run, ops)| Turn::Works(run, ops)),
        2 => (0..2_usize, merge_or_not()).prop_map(|(run, merge)| Turn::Applies(run, merge)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: scale::sample_or_all(50, 1_000), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn two_runs_and_a_person_on_one_repository_lose_nothing(
        first in ops(4..14), turns in proptest::collection::vec(turn(), 6..16), was in was(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repository");
        fs::create_dir(&repository).unwrap();
        perform(&repository, &first);
        let mut runs: [Option<Run>; 2] = [None, None];
        for (number, turn) in turns.into_iter().enumerate() {
            match turn {
                Turn::Person(ops) => perform(&repository, &ops),
                Turn::Works(run, ops) => {
                    let own = folder.path().join(format!("run-{number}"));
                    let run = runs[run].get_or_insert_with(|| Run::new(&repository, &own));
                    perform(&run.view, &ops);
                }
                Turn::Applies(run, merge) => {
                    let Some(run) = runs[run].take() else { continue };
                    let _guard = lock_repository(&run.root, &folder.path().join("locks"), LockWait::No).unwrap();
                    let (to, before) = (run.delta(was), read(&repository));
                    judge(&run, &to, &before, &run.apply(&to, merge));
                }
            }
        }
    }
}
