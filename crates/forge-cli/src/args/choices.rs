//! Flags that take one of a setting's choices.

use clap::builder::{PossibleValue, PossibleValuesParser};
use forge_config::schema::{ChoiceSpelling, KeyKind, find_key};

/// Returns the parser of a flag that takes one of a setting's choices. `help` describes them in the schema's order.
pub(super) fn choices_of(key: &str, help: &[&'static str]) -> PossibleValuesParser {
    let values = setting_choices(key).iter().enumerate().map(|(at, (name, spellings))| {
        let value = PossibleValue::new(*name).aliases(*spellings);
        match help.get(at) {
            Some(text) => value.help(*text),
            None => value,
        }
    });
    PossibleValuesParser::new(values.collect::<Vec<_>>())
}

/// Returns the choices of a setting; none if it is not a choice.
fn setting_choices(key: &str) -> &'static [ChoiceSpelling] {
    match find_key(key).map(|key| &key.kind) {
        Some(KeyKind::Choice(choices)) => choices,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn each_choice_of_the_setting_is_offered_and_described() {
        let mut forge = crate::args::Cli::command();
        for (command, flag, key) in [
            ("run", "executor", "executor"),
            ("run", "workspace", "workspace.mode"),
            ("run", "apply", "workspace.apply"),
            ("init", "language", "language"),
        ] {
            let command = forge.find_subcommand_mut(command).unwrap();
            let argument = command.get_arguments().find(|known| known.get_long() == Some(flag)).unwrap();
            let offered = argument.get_possible_values();
            let names: Vec<&str> = offered.iter().map(PossibleValue::get_name).collect();
            let choices: Vec<&str> = setting_choices(key).iter().map(|(name, _)| *name).collect();
            assert!(!choices.is_empty(), "{key}");
            assert_eq!(names, choices);
            assert!(offered.iter().all(|value| value.get_help().is_some()), "{flag}: {offered:?}");
        }
    }
}
