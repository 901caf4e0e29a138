//! Texts that both sides changed.

use super::{Rig, conflicts};
use crate::trees::{Was, path};
use forge_snapshot::apply::{ApplyOptions, MergeMode, apply, revert};
use forge_snapshot::compare::{BaselineContents, ContentSources};
use forge_snapshot::{BaseItem, RelPath, TreeDelta};
use std::fs;

#[test]
fn changes_of_different_lines_are_merged_when_asked_and_taken_apart_again() {
    let lines = |first: &str, last: &str| format!("{first}\n2\n3\n4\n5\n6\n7\n{last}\n");
    let rig = Rig::new(|root| fs::write(root.join("a"), lines("1", "8")).unwrap());
    rig.write("a", &lines("1", "of the run"));
    let mut to = rig.run.delta(Was::Known);
    fs::write(rig.run.repository.join("a"), lines("of a person", "8")).unwrap();
    let failed = rig.run.apply(&to, MergeMode::No).unwrap_err();
    assert_eq!(
        conflicts(failed),
        ["a: changed in the repository since the run began (both changes can be merged)"]
    );
    let applied = rig.run.apply(&to, MergeMode::Clean).unwrap();
    assert_eq!(applied.merged, [path("a")]);
    let text = || fs::read_to_string(rig.run.repository.join("a")).unwrap();
    assert_eq!(text(), lines("of a person", "of the run"));
    revert(&rig.run.place(), &applied).unwrap();
    assert_eq!(text(), lines("of a person", "8"));
    rig.run.apply(&to, MergeMode::Clean).unwrap();
    applied.fill_known_contents(&mut to);
    let options = ApplyOptions { merge: MergeMode::Clean, ..ApplyOptions::default() };
    apply(&rig.run.place(), &to, &TreeDelta::new(), options).unwrap();
    assert_eq!(text(), lines("of a person", "8"));
}

#[test]
fn a_beginning_that_only_somebody_else_knows_is_merged_from() {
    struct Kept(&'static str);
    impl BaselineContents for Kept {
        fn baseline_content(&self, path: &RelPath, was: &BaseItem) -> Option<Vec<u8>> {
            (path.as_bytes() == b"a" && was.size == 6).then(|| self.0.as_bytes().to_vec())
        }
    }
    let rig = Rig::new(|root| fs::write(root.join("a"), "1\n2\n3\n").unwrap());
    // A person edits it, then the run does, on top of that.
    fs::write(rig.run.repository.join("a"), "one\n2\n3\n").unwrap();
    rig.write("a", "one\n2\nthree\n");
    let to = rig.run.delta(Was::Unknown);
    let apply_with = |kept: Option<&dyn BaselineContents>| {
        let place = ContentSources { baseline: kept, ..rig.run.place() };
        apply(
            &place,
            &TreeDelta::new(),
            &to,
            ApplyOptions { merge: MergeMode::Clean, ..ApplyOptions::default() },
        )
    };
    let why = "a: changed in the repository since the run began";
    assert_eq!(conflicts(apply_with(None).unwrap_err()), [why]);
    // Of another size than the file had: not what stood there.
    assert_eq!(conflicts(apply_with(Some(&Kept("other text"))).unwrap_err()), [why]);
    assert_eq!(apply_with(Some(&Kept("1\n2\n3\n"))).unwrap().merged, [path("a")]);
    assert_eq!(fs::read_to_string(rig.run.repository.join("a")).unwrap(), "one\n2\nthree\n");
    // Put back by hand: the same content at another time.
    fs::write(rig.run.repository.join("a"), "1\n2\n3\n").unwrap();
    let put_back = apply_with(Some(&Kept("1\n2\n3\n"))).unwrap();
    assert_eq!((put_back.merged, put_back.changed.len()), (Vec::new(), 1));
    assert_eq!(fs::read_to_string(rig.run.repository.join("a")).unwrap(), "one\n2\nthree\n");
}
