//! Repositories that were made to do harm: a small honest one, of which files that Forge reads on the host become pipes,
//! devices, links out, holes of terabytes, things that change while they are read; with git's configuration drawn from
//! the keys that can name a program, a file or an address; and canaries that show whether any of it had an effect.
//!
//! What is made follows from a number alone, so a case that failed can be made again.

mod canary;
mod forms;
mod git_config;
mod git_keys;
mod honest;
mod programs;
mod restless;
mod targets;

use crate::dice::Dice;
use canary::Canary;
pub use canary::PRIVATE;
use forms::{Beside, FORMS, Form};
use restless::Restless;
use std::io;
use std::path::{Path, PathBuf};
use targets::{TARGETS, Target};

/// What a case has: changed files, a git configuration, or both; a git that does not find its files obeys nothing.
const KINDS: u64 = 3;
/// Fewer further changes than this a case has, each hiding what comes after it in some command.
const MORE_CHANGES: u64 = 3;
/// One case in so many has a change of a form that suits few files, whose turn would come seldom.
const RARE_ONCE_IN: u64 = 4;

/// A hostile repository. It goes on changing until the value is dropped; its files are the caller's to remove.
#[derive(Debug)]
pub struct HostileRepo {
    told: Vec<String>,
    names: Vec<String>,
    canary: Canary,
    restless: Vec<Restless>,
}

impl HostileRepo {
    /// Makes the `number`th repository in the empty directory `repo`, with everything that belongs to it below `area`,
    /// which is another one.
    ///
    /// # Errors
    /// When git is missing, or the disk does not take a file.
    pub fn make(number: u64, repo: &Path, area: &Path) -> io::Result<Self> {
        let mut dice = Dice::of_case(number);
        let mut canary = Canary::new(area)?;
        honest::repository(repo)?;
        let private = area.join("beside/private");
        honest::private(&private, PRIVATE)?;
        canary.settle()?;
        for name in ["canary.sh", "git", "sh", "ssh", "less", "vi"] {
            git_config::program(&repo.join(name), &canary.script(name))?;
        }
        let mut made = Self { told: Vec::new(), names: Vec::new(), canary, restless: Vec::new() };
        git_config::add_attributes_and_hooks(repo, &made.canary)?;
        let kind = dice.below(KINDS);
        if kind != 0 {
            made.told.push(git_config::add_keys(repo, &made.canary, &mut dice)?);
            made.names.push(".git/config".to_owned());
        }
        let file = made.canary.file();
        let beside = Beside { file: &file, directory: &area.join("beside"), git: &private.join(".git") };
        for change in changes(number, &mut dice).into_iter().filter(|_| kind != 1) {
            made.change(change, repo, &beside)?;
        }
        Ok(made)
    }

    fn change(&mut self, (target, form): (Target, Form), repo: &Path, beside: &Beside<'_>) -> io::Result<()> {
        let tell = format!("{} as {form:?}", target.path);
        self.restless.extend(
            form.put(repo, target, beside)
                .map_err(|error| io::Error::new(error.kind(), format!("{tell}: {error}")))?,
        );
        self.told.push(tell);
        self.names.push(target.path.to_owned());
        Ok(())
    }

    /// What was done to the honest repository.
    pub fn told(&self) -> String {
        self.told.join("; ")
    }

    /// The paths that are not as they should be, from the repository's root.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A directory with canaries under the names of programs, for the first place of the path.
    pub fn programs(&self) -> PathBuf {
        self.canary.bin()
    }

    /// What the repository had run, written or asked outside of it.
    pub fn intrusions(&self) -> Vec<String> {
        self.canary.intrusions()
    }

    /// Lets nothing change any more.
    pub fn rest(&mut self) {
        self.restless.clear();
    }
}

/// What is changed in a case.
fn changes(number: u64, dice: &mut Dice) -> Vec<(Target, Form)> {
    let mut all = vec![case(number)];
    all.extend((0..dice.below(MORE_CHANGES)).map(|_| case(dice.below(u64::MAX >> 33))));
    if dice.once_in(RARE_ONCE_IN) {
        let form = *dice.pick(&[Form::LeadsOut, Form::Brackets]);
        let suiting: Vec<Target> = TARGETS.iter().copied().filter(|target| form.suits(*target)).collect();
        all.push((*dice.pick(&suiting), form));
    }
    all
}

/// The first change of a case: neighbours have different targets and different forms, and all pairs have their turn.
fn case(number: u64) -> (Target, Form) {
    let pairs: Vec<(Target, Form)> = TARGETS
        .iter()
        .flat_map(|target| FORMS.iter().filter(|form| form.suits(*target)).map(|form| (*target, *form)))
        .collect();
    // A step that has no factor in common with the count meets all of them before it meets one again.
    let count = pairs.len() as u64;
    let step = (count * 5 / 13..).find(|step| common(*step, count) == 1).unwrap_or(1);
    pairs[usize::try_from(number % count * step % count).unwrap_or_default()]
}

const fn common(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests;
