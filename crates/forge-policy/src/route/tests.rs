//! Small cases of the five stages: settings on the left, the choice and its reasons on the right.

use super::complexity::Thresholds;
use super::escalation::EscalationStep;
use super::*;
use forge_types::{Cooldown, ErrorKind, Price, RouteStage, TaskKind, Timestamp, WeightRow};

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);
const HARD: &str = "A REST API with a database and authentication";
const SIMPLE: &str = "Print hello world";

/// The settings of a case; everything else is the default, with keys of openai and anthropic.
#[derive(Default)]
struct Case {
    pin: Option<&'static str>,
    agent: Option<&'static str>,
    wish: ModelPreference,
    tiers: Option<TierModels>,
    weights: Vec<WeightRow>,
    fallbacks: Option<Vec<&'static str>>,
    cooling: Vec<&'static str>,
    unhealthy: Vec<&'static str>,
    keys: Option<Vec<&'static str>>,
    attempt: u32,
    escalate_pinned: bool,
    classified: Option<Result<Classification, String>>,
    seed: u64,
    task: &'static str,
}

fn route(text: &str) -> ModelRoute {
    let (provider, model) = text.split_once('/').expect("a provider and a model");
    ModelRoute { provider: provider.into(), model: model.into() }
}

fn providers(case: &Case) -> Vec<ProviderInfo> {
    let keys = case.keys.clone().unwrap_or_else(|| vec!["openai", "anthropic"]);
    [
        ("openai", Some(3), Some(2)),
        ("anthropic", Some(4), Some(3)),
        ("gemini", None, None),
        ("router", Some(1), Some(1)),
    ]
    .into_iter()
    .map(|(name, simple_place, hard_place)| ProviderInfo {
        name: name.into(),
        access: if keys.contains(&name) {
            ProviderAccess::Key
        } else {
            ProviderAccess::Missing("no key".into())
        },
        default_model: Some("usual".into()),
        tiers: TierDefaults {
            simple: simple_place.map(|_| "small".into()),
            medium: simple_place.map(|_| "middle".into()),
            hard: hard_place.map(|_| "big".into()),
            simple_rank: simple_place,
            hard_rank: hard_place,
        },
        hint: String::new(),
        unhealthy: case.unhealthy.contains(&name).then(|| "500".to_owned()),
    })
    .collect()
}

fn price(route: &ModelRoute) -> Option<Price> {
    let input = match route.model.as_str() {
        "mini" => 1,
        "usual" | "small" => 2,
        "strong" => 5,
        "strongest" => 9,
        _ => return None,
    };
    Some(Price { input, ..Price::default() })
}

fn ask(case: &Case) -> Result<RoutingDecision, Error> {
    let providers = providers(case);
    let pin = case.pin.map(|text| PinnedModel { route: route(text), by: "--model".into() });
    let agent = case.agent.map(route);
    let fallbacks = case.fallbacks.as_ref().map(|list| {
        let one = |text: &&str| RouteTarget { route: route(text), organization: None };
        list.iter().map(one).collect::<Vec<_>>()
    });
    let cooling: Vec<Cooldown> = case
        .cooling
        .iter()
        .map(|provider| Cooldown {
            provider: (*provider).into(),
            failures: 1,
            reason: ErrorKind::RateLimit,
            message: "429".into(),
            since: NOW,
            until: NOW.after(std::time::Duration::from_secs(60)),
            credential: String::new(),
        })
        .collect();
    let missing = |name: &str| {
        let provider = providers.iter().find(|provider| provider.name == name);
        provider.and_then(|provider| provider.missing_reason().map(str::to_owned))
    };
    let ladder: Vec<EscalationStep> = ["openai/mini", "gemini/strong", "anthropic/strongest"]
        .map(|text| EscalationStep {
            route: route(text),
            price: price(&route(text)),
            missing: missing(&route(text).provider),
        })
        .into();
    choose_route(&RoutingRequest {
        task_type: TaskKind::Code,
        task: if case.task.is_empty() { HARD } else { case.task },
        preference: &case.wish,
        pin: pin.as_ref(),
        agent: agent.as_ref(),
        providers: &providers,
        tiers: case.tiers.as_ref(),
        thresholds: Thresholds::default(),
        classified: case.classified.as_ref(),
        weights: &case.weights,
        explore: 0.0,
        fallbacks: fallbacks.as_deref(),
        escalation_steps: &ladder,
        escalate_pinned: case.escalate_pinned,
        repair_attempt: case.attempt,
        price: &price,
        cooldowns: &cooling,
        seed: case.seed,
        now: NOW,
    })
}

/// `chosen by stage; all targets; rejected: reason`
fn says(case: &Case) -> String {
    match ask(case) {
        Ok(answer) => {
            let routing = &answer.routing;
            assert_eq!(routing.stages.len(), RouteStage::ALL.len(), "every stage says something");
            assert!(routing.stages.iter().all(|stage| !stage.reason.is_empty()));
            assert!(routing.rejected.iter().all(|one| !one.reason.is_empty()));
            let targets: Vec<_> = answer.targets.iter().map(|target| target.route.to_string()).collect();
            let rejected: Vec<_> =
                routing.rejected.iter().map(|one| format!("{}/{}", one.provider, one.model)).collect();
            format!(
                "{} by {}; {}; not {}",
                routing.chosen,
                routing.stage,
                targets.join(" "),
                rejected.join(" ")
            )
        }
        Err(error) => error.to_string(),
    }
}

fn check(case: &Case, expected: &str) {
    assert_eq!(says(case), expected);
}

fn tiers() -> Option<TierModels> {
    let set = |text| Some(route(text));
    Some(TierModels { simple: set("openai/easy"), medium: None, hard: set("gemini/tough") })
}

#[test]
fn without_any_setting_the_first_provider_with_a_key_is_asked() {
    check(&Case::default(), "openai/usual by availability; openai/usual anthropic/usual; not ");
    let wish = ModelPreference { provider: None, model: Some("anthropic/x".into()) };
    check(&Case { wish, ..Case::default() }, "anthropic/x by availability; anthropic/x openai/usual; not ");
    let nothing = says(&Case { keys: Some(vec![]), ..Case::default() });
    assert!(nothing.starts_with("no model provider is configured"), "{nothing}");
}

#[test]
fn a_pin_is_kept_whatever_the_task_is() {
    let case = Case { pin: Some("openai/p"), tiers: tiers(), agent: Some("anthropic/a"), ..Case::default() };
    check(&case, "openai/p by pin; openai/p anthropic/big; not ");
    let case = Case { pin: Some("gemini/p"), fallbacks: Some(vec![]), ..Case::default() };
    check(&case, "gemini/p by pin; gemini/p; not ");
    let case = Case { pin: Some("openai/p"), cooling: vec!["openai"], ..Case::default() };
    check(&case, "anthropic/usual by availability; openai/p anthropic/usual; not openai/p");
}

#[test]
fn tiers_give_the_candidates_and_keys_filter_them() {
    let simple = Case { tiers: tiers(), task: SIMPLE, ..Case::default() };
    check(&simple, "openai/easy by complexity; openai/easy anthropic/small; not openai/small");
    let hard = Case { tiers: tiers(), ..Case::default() };
    check(&hard, "openai/big by availability; openai/big anthropic/big; not gemini/tough");
    let keys = Some(vec!["openai", "gemini", "router"]);
    let hard = Case { tiers: tiers(), keys, ..Case::default() };
    check(&hard, "gemini/tough by complexity; gemini/tough router/big openai/big; not ");
    let none = Case { tiers: tiers(), keys: Some(vec![]), ..Case::default() };
    assert!(says(&none).starts_with("no model is available: gemini/tough: no key"), "{}", says(&none));
}

#[test]
fn an_agents_model_is_the_first_of_its_candidates() {
    let case = Case { agent: Some("anthropic/mine"), tiers: tiers(), task: SIMPLE, ..Case::default() };
    check(
        &case,
        "anthropic/mine by complexity; anthropic/mine openai/easy; not openai/small anthropic/small",
    );
    let case = Case { agent: Some("anthropic/mine"), ..Case::default() };
    check(&case, "anthropic/mine by availability; anthropic/mine openai/usual; not ");
}

#[test]
fn a_classifier_wins_and_its_faults_do_not_matter() {
    let said = Classification { level: Tier::Simple, confidence: 0.9, reasoning: "short".into() };
    let case = Case { tiers: tiers(), classified: Some(Ok(said)), ..Case::default() };
    assert!(says(&case).starts_with("openai/easy by complexity"), "{}", says(&case));
    let case =
        Case { tiers: tiers(), task: SIMPLE, classified: Some(Err("timeout".into())), ..Case::default() };
    let answer = ask(&case).unwrap();
    assert_eq!(answer.routing.chosen, route("openai/easy"));
    assert!(answer.routing.stages[1].reason.contains("was unavailable (timeout)"));
}

fn row(model: &str, weight: f64, total_count: u64) -> WeightRow {
    let ModelRoute { provider, model } = route(model);
    WeightRow {
        task_type: TaskKind::Code,
        tier: Tier::Hard,
        provider,
        model,
        weight,
        success_count: 0,
        total_count,
        last_updated: NOW,
    }
}

#[test]
fn weights_choose_inside_the_set_from_five_outcomes_on() {
    let weights = vec![row("anthropic/w", 1.0, 4), row("gemini/no-key", 1.0, 0)];
    check(
        &Case { weights: weights.clone(), ..Case::default() },
        "openai/usual by availability; openai/usual anthropic/w; not gemini/no-key",
    );
    let weights = vec![row("anthropic/w", 1.0, 5), row("openai/usual", 0.0, 0)];
    check(
        &Case { weights: weights.clone(), ..Case::default() },
        "anthropic/w by weights; anthropic/w openai/usual; not openai/usual",
    );
    let case = Case { weights, pin: Some("openai/p"), ..Case::default() };
    assert!(says(&case).starts_with("openai/p by pin"));
}

#[test]
fn those_left_alone_stay_in_the_order_and_the_unhealthy_come_last() {
    let case = Case { cooling: vec!["openai"], ..Case::default() };
    check(&case, "anthropic/usual by availability; openai/usual anthropic/usual; not openai/usual");
    let case = Case { unhealthy: vec!["openai"], ..Case::default() };
    check(&case, "anthropic/usual by availability; anthropic/usual openai/usual; not openai/usual");
    let case = Case { unhealthy: vec!["openai"], pin: Some("openai/p"), ..Case::default() };
    check(&case, "openai/p by pin; openai/p anthropic/usual; not ");
    let case = Case { cooling: vec!["openai"], keys: Some(vec!["openai"]), ..Case::default() };
    check(&case, "openai/usual by availability; openai/usual; not ");
}

#[test]
fn a_list_of_fallbacks_is_the_list() {
    let case = Case { fallbacks: Some(vec!["anthropic/x", "gemini/y", "openai/z"]), ..Case::default() };
    check(&case, "openai/usual by availability; openai/usual anthropic/x; not gemini/y openai/z");
    let case = Case { fallbacks: Some(vec![]), ..Case::default() };
    check(&case, "openai/usual by availability; openai/usual; not ");
}

#[test]
fn repairs_ask_stronger_models_and_pins_only_if_told() {
    let at = |attempt| Case { pin: None, attempt, wish: wish("openai/mini"), ..Case::default() };
    assert!(says(&at(1)).starts_with("openai/mini by availability"));
    check(
        &at(2),
        "anthropic/strongest by escalation; anthropic/strongest openai/mini; not gemini/strong openai/mini",
    );
    let pinned =
        |escalate_pinned| Case { pin: Some("openai/mini"), attempt: 2, escalate_pinned, ..Case::default() };
    assert!(says(&pinned(false)).starts_with("openai/mini by pin"));
    assert!(says(&pinned(true)).starts_with("anthropic/strongest by escalation"));
    let unknown = Case { wish: wish("openai/never-heard"), attempt: 2, ..Case::default() };
    assert!(ask(&unknown).unwrap().routing.stages[4].reason.contains("unknown"));
}

fn wish(model: &str) -> ModelPreference {
    ModelPreference { provider: None, model: Some(model.into()) }
}

#[test]
fn the_same_question_has_the_same_answer() {
    let weights = vec![row("anthropic/w", 0.5, 9)];
    for seed in 0..200 {
        let case = Case { weights: weights.clone(), seed, ..Case::default() };
        assert_eq!(ask(&case), ask(&case));
    }
}
