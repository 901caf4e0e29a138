//! Cases about plain answers: text, deltas, usage, finish.

use std::task::Poll;

use forge_types::FinishReason;

use super::{API_KEY, AdapterSetup, CASE_TIMEOUT, DeltaRecorder, Fixture, hello_messages, reply_text};
use crate::model_server::{
    Chunker, Gate, LineEnd, MockFinish as Stop, MockReply, MockUsage, ModelServer, ModelServerSettings,
    ReplyFraming, ReplyScript, StreamKeepAlive, VendorFormat,
};

const ANSWER_TEXT: &str = "Grüße aus Köln: 世界 🌍, \"quoted\" \\ and a\nsecond line.";

/// Text, finish, model and usage of a simple answer.
pub async fn simple_answer(fixture: &dyn Fixture) {
    let usage = MockUsage { input: 11, output: 7, cached: 0, cache_write: 0 };
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text(ANSWER_TEXT).with_usage(Some(usage))]);
    let reply = stage.expect_reply().await;
    assert_eq!(reply_text(&reply), ANSWER_TEXT);
    assert_eq!(reply.parts.len(), 1, "one text is one part");
    assert_eq!(reply.finish, FinishReason::Stop);
    assert_eq!(reply.model, fixture.route().model);
    assert_eq!((reply.usage.input, reply.usage.output, reply.usage.known), (11, 7, true));
}

/// What is shown live is the text, in more than one piece.
pub async fn deltas_make_up_the_text(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(
        fixture,
        [MockReply::text(ANSWER_TEXT).with_thinking("hm, let me see", None)],
    );
    let heard = DeltaRecorder::default();
    let reply =
        stage.model.request_reply(stage.build_request(hello_messages()), &heard).await.expect("an answer");
    assert_eq!(heard.joined_text(), ANSWER_TEXT);
    assert_eq!(reply_text(&reply), ANSWER_TEXT);
    assert!(heard.piece_count() > 2);
    assert_eq!(*heard.reasoning.lock(), "hm, let me see");
}

/// Text is shown while the rest of it has not been sent yet.
pub async fn deltas_come_before_the_end(fixture: &dyn Fixture) {
    let gate = Gate::new();
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text(ANSWER_TEXT).with_gate(&gate)]);
    let heard = DeltaRecorder::default();
    let mut call = stage.model.request_reply(stage.build_request(hello_messages()), &heard);
    // The server is held until text was heard; if it never is, the call itself runs into its timeout.
    let reply = std::future::poll_fn(|context| {
        let polled = call.as_mut().poll(context);
        if heard.piece_count() > 0 {
            gate.open();
        }
        match polled {
            Poll::Ready(reply) => Poll::Ready(reply),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    assert_eq!(reply_text(&reply.expect("an answer")), ANSWER_TEXT);
    assert_eq!(heard.joined_text(), ANSWER_TEXT);
}

/// However the bytes are cut, whatever ends the lines, whatever stands between the events: the same reply.
pub async fn odd_borders_change_nothing(fixture: &dyn Fixture) {
    let rich = || {
        MockReply::text(ANSWER_TEXT)
            .with_thinking("erwägen", Some("c2lnbmF0dXJl"))
            .and_call("call_a", "read_file", serde_json::json!({"path": "日本/ü.txt"}))
            .and_call("call_b", "list_files", serde_json::json!({}))
    };
    let whole = AdapterSetup::with_replies(fixture, [rich()]).expect_reply().await;
    let chunkers =
        [Chunker::Bytes(1), Chunker::Bytes(7), Chunker::prime_sizes(), Chunker::Hostile, Chunker::Whole];
    for chunker in chunkers {
        for line_end in [LineEnd::Lf, LineEnd::CrLf, LineEnd::Cr] {
            for keep_alive in [StreamKeepAlive::Silent, StreamKeepAlive::Chatty] {
                let framing = ReplyFraming { chunker: chunker.clone(), line_end, keep_alive, piece_chars: 3 };
                let settings =
                    ModelServerSettings { framing: framing.clone(), ..ModelServerSettings::default() };
                let server =
                    ModelServer::start_with(ReplyScript::from_replies([rich()]), settings).expect("a server");
                let mut reply = AdapterSetup::with_server(fixture, server).expect_reply().await;
                reply.latency_ms = whole.latency_ms;
                assert_eq!(reply, whole, "{framing:?}");
            }
        }
    }
}

/// Cached tokens are part of the prompt and reported as such.
pub async fn usage_counts_cached_tokens(fixture: &dyn Fixture) {
    let usage = MockUsage { input: 100, output: 20, cached: 900, cache_write: 50 };
    let reply = AdapterSetup::with_replies(fixture, [MockReply::text("x").with_usage(Some(usage))])
        .expect_reply()
        .await;
    assert_eq!((reply.usage.input, reply.usage.output), (1050, 20));
    assert!(reply.usage.known);
    let (cached, cache_write) = match fixture.vendor_format() {
        VendorFormat::OpenAi | VendorFormat::Responses | VendorFormat::Anthropic => (900, 50),
        // These formats have no word for what was written to a cache, the next none for caches at all.
        VendorFormat::Gemini | VendorFormat::Completion => (900, 0),
        VendorFormat::Ollama | VendorFormat::Generate => (0, 0),
    };
    assert_eq!((reply.usage.cached, reply.usage.cache_write), (cached, cache_write));
}

/// Unknown usage is never zero: it is estimated and says so.
pub async fn usage_that_is_missing_is_estimated(fixture: &dyn Fixture) {
    let reply = AdapterSetup::with_replies(fixture, [MockReply::text(ANSWER_TEXT).with_usage(None)])
        .expect_reply()
        .await;
    assert!(!reply.usage.known);
    assert!(reply.usage.input > 0 && reply.usage.output > 0);
}

/// An answer cut by the token limit says so.
pub async fn a_length_stop_is_told(fixture: &dyn Fixture) {
    let reply =
        AdapterSetup::with_replies(fixture, [MockReply::text("half an ans").with_finish(Stop::Length)])
            .expect_reply()
            .await;
    assert_eq!(reply.finish, FinishReason::Length);
    assert_eq!(reply_text(&reply), "half an ans");
}

/// A content filter is not an ordinary stop, where the format has a word for it.
pub async fn a_refusal_is_told(fixture: &dyn Fixture) {
    let reply = AdapterSetup::with_replies(fixture, [MockReply::text("I can't").with_finish(Stop::Refusal)])
        .expect_reply()
        .await;
    let expected = match fixture.vendor_format() {
        VendorFormat::Ollama | VendorFormat::Generate | VendorFormat::Completion => FinishReason::Stop,
        _ => FinishReason::Error,
    };
    assert_eq!(reply.finish, expected);
}

/// The key is sent in the vendor's header, and in no other place.
pub async fn the_key_goes_where_it_belongs(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(fixture, [MockReply::text("ok")]);
    stage.expect_reply().await;
    assert!(stage.server.wait_for_requests(1, CASE_TIMEOUT));
    let request = &stage.server.model_calls()[0].http;
    let carriers: Vec<_> = request.headers.iter().filter(|(_, value)| value.contains(API_KEY)).collect();
    let carriers: Vec<_> = carriers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(carriers, Vec::from_iter(fixture.key_header()));
    assert!(!request.path.contains(API_KEY));
    assert!(!String::from_utf8_lossy(&request.body).contains(API_KEY));
}
