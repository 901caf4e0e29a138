//! Names of temporaries: those of an apply that was killed, and ordinary files with similar names.

use super::*;
use forge_testkit::scale;
use forge_types::Digest;
use proptest::prelude::*;

impl Run {
    /// Returns the names of the temporaries that an apply of this run makes in the root.
    pub(super) fn temporaries(&self, to: &TreeDelta) -> Vec<String> {
        let mut names = Vec::new();
        let mut watch = |_: ApplyStep<'_>| {
            let entries = fs::read_dir(&self.repository)?;
            names.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
            names.retain(|name| name.starts_with(".forge-tmp-apply-"));
            if names.is_empty() { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
        };
        let options = ApplyOptions { watch: Some(&mut watch), ..ApplyOptions::default() };
        apply(&self.place(), &TreeDelta::new(), to, options).unwrap_err();
        names
    }
}

/// Returns a name that looks like a temporary of an apply to `path`.
fn lookalike(kind: &str, path: &str, code: &str) -> String {
    let tag = Digest::of_bytes(path.as_bytes()).to_string();
    let name = format!(".forge-tmp-apply-{kind}-{}{code}", &tag[..24]);
    match path.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/{name}"),
        None => name,
    }
}

/// Paths that look like temporaries, at several depths, some of them for paths that change.
fn lookalikes() -> impl Strategy<Value = Vec<String>> {
    let kind = prop_oneof![Just("new"), Just("old")];
    let code = prop_oneof![2 => Just(String::new()), 1 => "[0-9a-f]{16}"];
    let of = prop_oneof![Just("a"), Just("d/b"), Just("d/e/c"), Just("d/e/new")];
    let exact = (kind, of, code).prop_map(|(kind, of, code)| lookalike(kind, of, &code));
    let folder = prop_oneof![Just(""), Just("d/"), Just("d/e/")];
    let alike = (folder, "\\.forge-tmp-[a-z0-9-]{0,8}(/sub/x)?").prop_map(|(at, name)| format!("{at}{name}"));
    proptest::collection::vec(prop_oneof![exact, alike], 1..6)
}

fn write_below(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    // One name can be a file here and a directory there.
    if fs::create_dir_all(path.parent().unwrap()).is_ok() {
        let _ = fs::write(path, text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: scale::sample_or_all(200, 5_000), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn a_file_that_is_named_like_a_temporary_is_an_ordinary_file(
        (there, made) in (lookalikes(), lookalikes()),
    ) {
        let rig = Rig::new(|root| {
            fs::create_dir_all(root.join("d/e")).unwrap();
            for name in ["a", "d/b", "d/e/c"] {
                fs::write(root.join(name), format!("{name} at first\n")).unwrap();
            }
            there.iter().for_each(|path| write_below(root, path, "of a person\n"));
        });
        let (repository, view) = (&rig.run.repository, &rig.run.view);
        for name in ["a", "d/b", "d/e/c", "d/e/new"] {
            rig.write(name, &format!("{name} of the run\n"));
        }
        made.iter().for_each(|path| write_below(view, path, "made by the run\n"));
        let to = rig.run.delta(Was::Unknown);
        let listed = BaseManifest::scan_tree(view).unwrap();
        for (path, _) in read(view) {
            prop_assert!(listed.get(&path).is_some(), "{path} is not in the manifest");
        }
        let applied = rig.run.apply(&to, MergeMode::No).unwrap();
        prop_assert_eq!(read(repository), read(view));
        // Again, and the way back.
        let again = rig.run.apply(&to, MergeMode::No).unwrap();
        prop_assert!(again.changed.is_empty());
        revert(&rig.run.place(), &applied).unwrap();
        prop_assert_eq!(&read(repository), &rig.run.began);
    }
}

#[test]
fn a_file_of_a_person_does_not_pass_for_the_original_of_a_changed_file() {
    let rig = Rig::new(|root| {
        fs::write(root.join("a"), "text\n").unwrap();
        fs::write(root.join(lookalike("old", "a", "")), "not the text\n").unwrap();
    });
    rig.write("a", "of the run\n");
    let to = rig.run.delta(Was::Unknown);
    fs::write(rig.run.repository.join("a"), "of the run\n").unwrap();
    let applied = rig.run.apply(&to, MergeMode::No).unwrap();
    let already = &applied.already[0];
    assert!(matches!(already.before, Some(TreeNode::File { content: None, .. })), "{already:?}");
    assert_eq!(
        fs::read_to_string(rig.run.repository.join(lookalike("old", "a", ""))).unwrap(),
        "not the text\n"
    );
}
