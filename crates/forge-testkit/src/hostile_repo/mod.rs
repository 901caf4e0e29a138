//! Repositories that were made to do harm: a small honest one, of which files that Forge reads on the host become pipes,
//! devices, links out, holes of terabytes, things that change while they are read; with git's configuration drawn from
//! the keys that can name a program, a file or an address; and canaries that show whether any of it had an effect.
//!
//! What is made follows from a number alone, so a case that failed can be made again.

mod canary;
mod changing_file;
mod forms;
mod git_config;
mod git_keys;
mod honest;
mod programs;
mod targets;

use crate::seeded_rng::SeededRng;
use canary::Canary;
pub use canary::PRIVATE_MARKER;
use changing_file::ChangingFile;
use forms::{ALL_FORMS, HostileForm, OutsideTargets};
use std::io;
use std::path::{Path, PathBuf};
use targets::{HostileTarget, TARGETS};

/// What a case has: changed files, a git configuration, or both; a git that does not find its files obeys nothing.
const CASE_KIND_COUNT: u64 = 3;
/// Fewer further changes than this a case has, each hiding what comes after it in some command.
const EXTRA_CHANGE_LIMIT: u64 = 3;
/// One case in so many has a change of a form that suits few files, whose turn would come seldom.
const RARE_ONCE_IN: u64 = 4;

/// A hostile repository. It goes on changing until the value is dropped; its files are the caller's to remove.
#[derive(Debug)]
pub struct HostileRepo {
    changes_made: Vec<String>,
    names: Vec<String>,
    canary: Canary,
    changing_files: Vec<ChangingFile>,
}

impl HostileRepo {
    /// Makes the `number`th repository in the empty directory `repo`, with everything that belongs to it below `area`,
    /// which is another one.
    ///
    /// # Errors
    /// When git is missing, or the disk does not take a file.
    pub fn make(number: u64, repo: &Path, area: &Path) -> io::Result<Self> {
        let mut dice = SeededRng::of_case(number);
        let mut canary = Canary::new(area)?;
        honest::create_repository(repo)?;
        let private = area.join("beside/private");
        honest::create_private_repository(&private, PRIVATE_MARKER)?;
        canary.record_baseline()?;
        for name in ["canary.sh", "git", "sh", "ssh", "less", "vi"] {
            programs::write_executable(&repo.join(name), &canary.marker_script(name))?;
        }
        let mut made =
            Self { changes_made: Vec::new(), names: Vec::new(), canary, changing_files: Vec::new() };
        git_config::add_attributes_and_hooks(repo, &made.canary)?;
        let kind = dice.below(CASE_KIND_COUNT);
        if kind != 0 {
            made.changes_made.push(git_config::add_keys(repo, &made.canary, &mut dice)?);
            made.names.push(".git/config".to_owned());
        }
        let file = made.canary.outside_file();
        let beside =
            OutsideTargets { file: &file, directory: &area.join("beside"), git: &private.join(".git") };
        for change in choose_changes(number, &mut dice).into_iter().filter(|_| kind != 1) {
            made.apply_change(change, repo, &beside)?;
        }
        Ok(made)
    }

    fn apply_change(
        &mut self,
        (target, form): (HostileTarget, HostileForm),
        repo: &Path,
        beside: &OutsideTargets<'_>,
    ) -> io::Result<()> {
        let tell = format!("{} as {form:?}", target.path);
        self.changing_files.extend(
            form.install_form(repo, target, beside)
                .map_err(|error| io::Error::new(error.kind(), format!("{tell}: {error}")))?,
        );
        self.changes_made.push(tell);
        self.names.push(target.path.to_owned());
        Ok(())
    }

    /// What was done to the honest repository.
    pub fn describe_changes(&self) -> String {
        self.changes_made.join("; ")
    }

    /// The paths that are not as they should be, from the repository's root.
    pub fn changed_paths(&self) -> &[String] {
        &self.names
    }

    /// A directory with canaries under the names of programs, for the first place of the path.
    pub fn canary_bin_dir(&self) -> PathBuf {
        self.canary.bin_dir()
    }

    /// What the repository had run, written or asked outside of it.
    pub fn intrusions(&self) -> Vec<String> {
        self.canary.intrusions()
    }

    /// Lets nothing change any more.
    pub fn stop_changing(&mut self) {
        self.changing_files.clear();
    }
}

/// What is changed in a case.
fn choose_changes(number: u64, dice: &mut SeededRng) -> Vec<(HostileTarget, HostileForm)> {
    let mut all = vec![first_change(number)];
    all.extend((0..dice.below(EXTRA_CHANGE_LIMIT)).map(|_| first_change(dice.below(u64::MAX >> 33))));
    if dice.one_in(RARE_ONCE_IN) {
        let form = *dice.pick(&[HostileForm::LeadsOut, HostileForm::Brackets]);
        let suiting: Vec<HostileTarget> =
            TARGETS.iter().copied().filter(|target| form.suits_target(*target)).collect();
        all.push((*dice.pick(&suiting), form));
    }
    all
}

/// The first change of a case: neighbours have different targets and different forms, and all pairs have their turn.
fn first_change(number: u64) -> (HostileTarget, HostileForm) {
    let pairs: Vec<(HostileTarget, HostileForm)> = TARGETS
        .iter()
        .flat_map(|target| {
            ALL_FORMS.iter().filter(|form| form.suits_target(*target)).map(|form| (*target, *form))
        })
        .collect();
    // A step that has no factor in common with the count meets all of them before it meets one again.
    let count = pairs.len() as u64;
    let step = (count * 5 / 13..).find(|step| greatest_common_divisor(*step, count) == 1).unwrap_or(1);
    pairs[usize::try_from(number % count * step % count).unwrap_or_default()]
}

const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests;
