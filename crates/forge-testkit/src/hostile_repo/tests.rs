//! The generator does what it says, or what it is used for would prove nothing.

use super::forms::ALL_FORMS;
use super::git_keys::{GIT_KEYS, KeyMeaning};
use super::targets::TARGETS;
use super::{HostileRepo, choose_changes, first_change};
use crate::seeded_rng::SeededRng;
use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt as _;
use std::process::Command;

#[test]
fn every_pair_of_a_file_and_a_form_has_its_turn() {
    let suiting =
        TARGETS.iter().map(|target| ALL_FORMS.iter().filter(|form| form.suits_target(*target)).count());
    let all: usize = suiting.sum();
    let seen: BTreeSet<String> =
        (0..all as u64).map(|number| format!("{:?}", first_change(number))).collect();
    assert_eq!(seen.len(), all);
    // The cases of an ordinary run of the tests know all forms and most files.
    let few: Vec<_> =
        (0..100).flat_map(|number| choose_changes(number, &mut SeededRng::of_case(number))).collect();
    let forms: BTreeSet<_> = few.iter().map(|(_, form)| format!("{form:?}")).collect();
    let targets: BTreeSet<_> = few.iter().map(|(target, _)| target.path).collect();
    assert!(forms.len() == ALL_FORMS.len(), "{forms:?}");
    assert!(targets.len() > TARGETS.len() / 2, "{}", targets.len());
}

#[test]
fn a_case_is_the_same_each_time() {
    let place = tempfile::tempdir().unwrap();
    let told = |name: &str| {
        let (repo, area) = (place.path().join(name).join("repo"), place.path().join(name).join("area"));
        std::fs::create_dir_all(&repo).unwrap();
        std::fs::create_dir_all(&area).unwrap();
        let made = HostileRepo::make(7, &repo, &area).unwrap();
        assert_eq!(made.intrusions(), Vec::<String>::new());
        made.changed_paths().to_vec()
    };
    assert_eq!(told("a"), told("b"));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test starts what must be seen")]
fn what_a_repository_reaches_is_seen() {
    let place = tempfile::tempdir().unwrap();
    let (repo, area) = (place.path().join("repo"), place.path().join("area"));
    std::fs::create_dir_all(&repo).unwrap();
    std::fs::create_dir_all(&area).unwrap();
    let made = HostileRepo::make(0, &repo, &area).unwrap();
    assert!(area.join("pipe").symlink_metadata().unwrap().file_type().is_fifo());
    Command::new(made.canary_bin_dir().join("ssh")).arg("host").status().unwrap();
    std::fs::write(area.join("beside/secret.txt"), "other").unwrap();
    let found = made.intrusions();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("ssh") && found[0].contains("host"), "{found:?}");
    assert!(found[1].contains("secret.txt"), "{found:?}");
}

#[test]
fn the_keys_are_many_and_of_all_kinds() {
    let count = |wanted: fn(&KeyMeaning) -> bool| GIT_KEYS.iter().filter(|key| wanted(&key.3)).count();
    assert!(GIT_KEYS.len() >= 150, "{}", GIT_KEYS.len());
    assert!(count(|means| *means == KeyMeaning::Program) >= 50);
    assert!(count(|means| *means == KeyMeaning::Reads) >= 25);
    assert!(count(|means| *means == KeyMeaning::Address) >= 10);
    let different: BTreeSet<_> = GIT_KEYS.iter().map(|key| format!("{key:?}")).collect();
    assert_eq!(different.len(), GIT_KEYS.len());
}
