//! Hints: the next steps of errors as commands and flags of this program.

use forge_types::{LimitKind, NextStep};

/// Returns a hint for a step, as a phrase.
pub(crate) fn hint_text(step: &NextStep) -> String {
    match step {
        NextStep::DescribeTask => "for example: forge run \"Fix the failing test\"".to_owned(),
        NextStep::CheckSetup => "run `forge doctor` for fixes".to_owned(),
        NextStep::ListRuns => "`forge list` shows all runs".to_owned(),
        NextStep::ShowRun { run } => format!("`forge status {run}` shows what is still readable"),
        NextStep::FollowRun { run } => format!("follow it with `forge logs -f {run}`"),
        NextStep::ListSteps { run } => format!("`forge diff {run} --steps` lists them"),
        NextStep::Resume { run: Some(run) } => format!("continue it with `forge resume {run}`"),
        NextStep::Resume { run: None } => "continue it with `forge resume`".to_owned(),
        NextStep::Cancel { run } => format!("stop it with `forge cancel {run}`"),
        NextStep::RaiseLimit { limit } => raise_limit_text(*limit),
        NextStep::ShowModels => "`forge models` shows when each one is available again".to_owned(),
        NextStep::ChooseModel => "name another model with --model".to_owned(),
        NextStep::ChooseProvider => "name a provider with --provider".to_owned(),
        NextStep::ChooseRepository => "choose another directory with --repo".to_owned(),
        NextStep::ChooseTransaction => "use `--workspace transaction`".to_owned(),
        NextStep::RemoveSnapshots => "`forge gc` removes the snapshots of ended runs".to_owned(),
        NextStep::KeepRun => "omit --no-durable".to_owned(),
        NextStep::Trust { .. } => format!("accept it with `{}`", command_text(step)),
        NextStep::Login { .. } => format!("log in with `{}`", command_text(step)),
        NextStep::SetSecret { .. } => format!("store a key with `{}`", command_text(step)),
        NextStep::AdoptStore => format!("open it with `{}`", command_text(step)),
        NextStep::BuildImage { .. } => format!("build it with `{}`", command_text(step)),
        NextStep::ImportImage { .. } => {
            format!("take it from docker or podman with `{}`", command_text(step))
        }
        NextStep::ShowProbes { .. } => format!("`{}` shows all results", command_text(step)),
        NextStep::InitProject => format!("create one with `{}`", command_text(step)),
        NextStep::ListSettings => format!("`{}` lists all keys", command_text(step)),
    }
}

fn raise_limit_text(limit: LimitKind) -> String {
    match limit {
        LimitKind::Tokens => "raise it with `forge resume --max-tokens N` or agent.max_tokens_per_run",
        LimitKind::Cost => {
            "raise it with `forge budget raise ID USD`, or before a run with --max-cost or agent.max_cost_usd"
        }
        LimitKind::Iterations => "raise it with `forge resume --max-iterations N` or agent.max_iterations",
        LimitKind::WallClock => "raise it with runtime.max_pipeline_duration_ms",
        LimitKind::Steps => "raise it in the configuration",
    }
    .to_owned()
}

/// Returns the command that takes a step; empty if there is no single one.
pub(crate) fn command_text(step: &NextStep) -> String {
    match step {
        NextStep::Trust { file: None } => "forge trust".to_owned(),
        NextStep::Trust { file: Some(file) } => format!("forge trust --config {file}"),
        NextStep::Login { provider } => format!("forge login {provider}"),
        NextStep::SetSecret { name } => format!("forge secret set {}", name.as_deref().unwrap_or("NAME")),
        NextStep::AdoptStore => "forge secret list --local".to_owned(),
        NextStep::BuildImage { image: None } => "forge sandbox build".to_owned(),
        NextStep::BuildImage { image: Some(image) } => format!("forge sandbox build {image}"),
        NextStep::ImportImage { image } => {
            format!("forge sandbox build --from {}", image.as_deref().unwrap_or("IMAGE"))
        }
        NextStep::ShowProbes { backend } => format!("forge sandbox verify --backend {backend}"),
        NextStep::InitProject => "forge init".to_owned(),
        NextStep::ListSettings => "forge config show".to_owned(),
        _ => String::new(),
    }
}

/// Returns a message that asks for a step, with the command that takes it.
pub(crate) fn message_with_command(message: &str, step: Option<&NextStep>) -> String {
    match step.map(command_text).filter(|command| !command.is_empty()) {
        Some(command) => format!("{message} with `{command}`"),
        None => message.to_owned(),
    }
}

/// Returns the remedy of a check that a step provides.
pub(crate) fn remedy_text(step: &NextStep) -> String {
    let command = command_text(step);
    match step {
        NextStep::SetSecret { .. } => format!("{command}, or set the variable"),
        _ => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_types::RunId;

    #[test]
    fn a_step_names_a_command_that_can_be_copied() {
        let run = RunId::from_u128(1);
        assert_eq!(hint_text(&NextStep::Cancel { run }), format!("stop it with `forge cancel {run}`"));
        let store = NextStep::SetSecret { name: Some("OPENAI_API_KEY".to_owned()) };
        assert_eq!(hint_text(&store), "store a key with `forge secret set OPENAI_API_KEY`");
        assert_eq!(remedy_text(&store), "forge secret set OPENAI_API_KEY, or set the variable");
        let trust = NextStep::Trust { file: None };
        assert_eq!(
            message_with_command("review and accept it", Some(&trust)),
            "review and accept it with `forge trust`"
        );
        assert_eq!(message_with_command("a fact", None), "a fact");
        assert_eq!(hint_text(&NextStep::RemoveSnapshots), "`forge gc` removes the snapshots of ended runs");
    }
}
