//! Tool calls as models write them into their text where the format knows none.

use serde_json::json;

use super::super::script::Reply;

/// The whole text of a reply, with its calls.
pub(super) fn text(reply: &Reply) -> String {
    let calls = reply.tool_calls.iter().map(|call| {
        let made = json!({"name": call.name, "arguments": call.argument_value()});
        format!("<tool_call>{made}</tool_call>")
    });
    let text = Some(reply.text.clone()).filter(|text| !text.is_empty());
    text.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
}
