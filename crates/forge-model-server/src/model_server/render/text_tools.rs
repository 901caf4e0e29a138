//! Tool calls as models write them into their text where the format knows none.

use serde_json::json;

use super::super::script::MockReply;

/// The whole text of a reply, with its calls.
pub(super) fn reply_with_calls(reply: &MockReply) -> String {
    let calls = reply.tool_calls.iter().map(|call| {
        let made = json!({"name": call.name, "arguments": call.with_signature()});
        format!("<tool_call>{made}</tool_call>")
    });
    let text = Some(reply.text.clone()).filter(|text| !text.is_empty());
    text.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
}
