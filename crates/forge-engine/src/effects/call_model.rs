//! The effect of a model call.

use super::{EffectExecutor, executor_replies, resolve_request};
use crate::live::{LiveDeltas, ReplyEnd};
use forge_policy::router;
use forge_ports::{DeltaSink as _, model};
use forge_types::{
    AgentPlanRef, ErrorInfo, ErrorKind, Executor, FinishReason, Message, ModelCall, ModelReply, ModelRequest,
    Outcome, Role,
};
use std::sync::Arc;

impl EffectExecutor {
    /// Asks the model of a call. Failures are outcomes.
    pub(super) async fn call_model(
        &self,
        plan: AgentPlanRef<'_>,
        call: &ModelCall,
        mut request: ModelRequest,
    ) -> Outcome {
        if let Err(error) = resolve_request(&self.blobs, &mut request).await {
            let error = ErrorInfo::fatal(ErrorKind::StoreUnavailable, error.to_string());
            return Outcome::ModelFailed { error };
        }
        let before = text_before_continuation(&request.messages, self.cuts);
        let deltas = LiveDeltas::new(self.live.clone(), self.parts.redactor.clone(), self.cut_text.clone());
        let result = self.model_reply(plan, call, request, &deltas).await;
        deltas.end(match &result {
            Ok(reply) if reply.finish == FinishReason::Length && reply.tool_calls().next().is_none() => {
                ReplyEnd::Cut
            }
            Ok(_) => ReplyEnd::Whole,
            Err(_) => ReplyEnd::Failed,
        });
        match result {
            Ok(mut reply) => {
                self.parts.redactor.redact_reply(&mut reply, &before);
                let price = plan.agent.target_at(call.target).facts.price;
                let cost = price.map(|price| price.cost(&reply.usage));
                Outcome::Replied { reply, cost }
            }
            Err(error) => Outcome::ModelFailed { error: error.to_info() },
        }
    }

    /// Returns the reply of the executor's model, or of its substitute.
    async fn model_reply(
        &self,
        plan: AgentPlanRef<'_>,
        call: &ModelCall,
        request: ModelRequest,
        deltas: &LiveDeltas,
    ) -> Result<ModelReply, model::Error> {
        match &plan.agent.executor {
            Executor::React => self.parts.model.request_reply(request, deltas).await,
            Executor::Router { debug, .. } => self.routed_reply(plan, call, request, deltas, *debug).await,
            Executor::Subprocess { .. } => Ok(executor_replies::subprocess_call(plan, &request)),
            Executor::Stub { replies } => {
                let reply = executor_replies::stub_reply(plan, replies, &request);
                reply.inline_texts().for_each(|text| deltas.push_text(text));
                Ok(reply)
            }
        }
    }

    /// Asks a router's model and returns its decision as a tool call.
    async fn routed_reply(
        &self,
        plan: AgentPlanRef<'_>,
        call: &ModelCall,
        request: ModelRequest,
        deltas: &LiveDeltas,
        debug: bool,
    ) -> Result<ModelReply, model::Error> {
        let tell = executor_replies::RouterDebug { live: self.live.as_ref(), redactor: &self.parts.redactor };
        if debug {
            if call.iteration == 1 && call.attempt == 1 {
                tell.tools_registered(plan, 0);
            }
            tell.prompt_built(&request);
        }
        let reply =
            self.parts.model.request_reply(request, &executor_replies::RouterDeltas::new(deltas)).await?;
        let (asked, begun) = (reply.latency_ms, self.parts.clock.now());
        let (reply, decision) = router::route_reply(reply, &plan.agent.tools);
        if debug {
            tell.decision_made(&decision, asked, self.parts.clock.now().millis_since(begun));
        }
        Ok(reply)
    }
}

/// Returns the text that a reply continues after `cuts` truncated replies: the answer joins them.
fn text_before_continuation(messages: &[Arc<Message>], cuts: u32) -> String {
    let said = messages.iter().rev().take_while(|message| message.role != Role::Tool);
    let mut cut: Vec<_> =
        said.filter(|message| message.role == Role::Assistant).take(cuts as usize).collect();
    cut.reverse();
    cut.iter().flat_map(|message| message.text_parts()).filter_map(|text| text.inline_text()).collect()
}
