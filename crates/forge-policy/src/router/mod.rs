//! The router: a model names one tool, and code dispatches it (LOOP-7, LOOP-8).
//!
//! [`parse()`] turns any text of a model into a decision. [`route_reply`] adds the decision to the reply as a tool call
//! before the reply is journalled, so that all rules for tool calls apply to it. [`step`] ends the run with the tool's
//! output or asks once more.

mod json;
mod parse;
mod prompt;
mod reply;
mod rules;
mod step;
mod stream;

pub use parse::{DecisionSource, RouterDecision, parse};
pub use prompt::{format_answer, reply_format, router_messages, system_prompt};
pub use reply::{offered_tools, route_reply};
pub use step::{AgentResult, detect_repetition, next_step};
pub use stream::ContentStream;

/// The answer if the model's reply was unusable.
pub const NO_REPLY: &str = "I could not generate a response. Please try again.";
/// The answer if no model is available.
pub const BACKEND_DOWN: &str = "The model backend is unavailable.";
/// The answer if the same step would be dispatched twice.
pub const REPEATED_STEP: &str = "Stopped: the router tried to repeat the same step.";
/// The tool that answers in words.
pub const CHAT_TOOL: &str = "chat";
/// The tool that writes source code.
pub const CODE_TOOL: &str = "code";
