//! The router: a model names one tool, code dispatches it (LOOP-7, LOOP-8).
//!
//! [`parse`] makes a decision of whatever a model wrote, [`routed`] puts it into the reply as a call of a tool before
//! that is journalled, so that everything that holds for tool calls holds for it too, and [`step`] ends the run with
//! the tool's output or asks once more.

mod json;
mod parse;
mod prompt;
mod reply;
mod step;
mod stream;

pub use parse::{DecisionSource, RouterDecision, parse};
pub use prompt::{format_answer, reply_format, router_messages, system_prompt};
pub use reply::{offered_tools, route_reply};
pub use step::{AgentResult, detect_repetition, next_step};
pub use stream::ContentStream;

/// What the user reads if the model gave nothing that could be used.
pub const NO_REPLY: &str = "I could not generate a response. Please try again.";
/// What the user reads if no model answers.
pub const BACKEND_DOWN: &str = "The model backend is unavailable.";
/// What the user reads if the same step was to be dispatched twice.
pub const REPEATED_STEP: &str = "Stopped: the router tried to repeat the same step.";
/// The tool that answers.
pub const CHAT_TOOL: &str = "chat";
/// The tool that writes programs.
pub const CODE_TOOL: &str = "code";
