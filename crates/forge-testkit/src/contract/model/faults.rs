//! Cases about what goes wrong: each fault has its kind, none becomes an answer, nothing is repeated.

use std::time::Duration;

use forge_types::{ErrorClass, ErrorKind};

use super::{API_KEY, AdapterSetup, CASE_TIMEOUT, Fixture, hello_messages, reply_text};
use crate::model_server::{
    MockReply, ModelServer, ModelServerSettings, ReplyFault, ReplyScript, StreamCut,
    VendorErrorKind as Vendor, VendorFormat,
};

/// Every error of 1.3 that a provider can answer with, recognized by status or by its body.
pub async fn every_error_has_its_kind(fixture: &dyn Fixture) {
    let cases = [
        (Vendor::Auth, ErrorKind::Auth, false),
        (Vendor::Forbidden, ErrorKind::Auth, false),
        (Vendor::Billing, ErrorKind::Billing, false),
        (Vendor::RateLimit, ErrorKind::RateLimit, true),
        (Vendor::Overloaded, ErrorKind::Overloaded, true),
        (Vendor::Server, ErrorKind::Overloaded, true),
        (Vendor::Timeout, ErrorKind::Timeout, true),
        (Vendor::ContextOverflow, ErrorKind::ContextOverflow, false),
        (Vendor::Format, ErrorKind::Format, false),
        (Vendor::UnknownModel, ErrorKind::Format, false),
    ];
    for (vendor, kind, retryable) in cases {
        let error = AdapterSetup::with_replies(fixture, [MockReply::error(vendor)]).expect_error().await;
        assert_eq!(error.kind, kind, "{vendor:?}: {error}");
        assert_eq!(error.class().retryable(), retryable, "{vendor:?}");
        assert!(error.message.contains(&fixture.route().provider), "says who: {error}");
        if vendor == Vendor::UnknownModel {
            assert!(error.message.contains(&fixture.route().model), "says which model: {error}");
        }
    }
    for (status, kind) in [
        (408, ErrorKind::Timeout),
        (413, ErrorKind::ContextOverflow),
        (422, ErrorKind::Format),
        (501, ErrorKind::Format),
        (502, ErrorKind::Overloaded),
        (503, ErrorKind::Overloaded),
        (504, ErrorKind::Timeout),
        (529, ErrorKind::Overloaded),
    ] {
        let error = AdapterSetup::with_replies(fixture, [MockReply::status(status)]).expect_error().await;
        assert_eq!(error.kind, kind, "{status}: {error}");
    }
}

/// `Retry-After` in seconds and as a date, and where the vendor has a way of its own.
pub async fn a_wait_that_is_asked_for_is_passed_on(fixture: &dyn Fixture) {
    let limited = |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        MockReply::default().with_fault(ReplyFault::ErrorWith(Vendor::RateLimit, headers))
    };
    let date = ("Date", "Fri, 02 Jan 2026 10:00:00 GMT");
    let cases = [
        (limited(&[("Retry-After", "7")]), 7_000),
        (limited(&[("Retry-After", "Fri, 02 Jan 2026 10:01:30 GMT"), date]), 90_000),
        (limited(&[("retry-after-ms", "250"), ("Retry-After", "1")]), 250),
    ];
    for (reply, millis) in cases {
        let error = AdapterSetup::with_replies(fixture, [reply]).expect_error().await;
        let after = Some(Duration::from_millis(millis));
        assert_eq!(error.class(), ErrorClass::Retry { after }, "{error}");
    }
    let plain =
        AdapterSetup::with_replies(fixture, [MockReply::error(Vendor::RateLimit)]).expect_error().await;
    let in_body = (fixture.vendor_format() == VendorFormat::Gemini).then_some(Duration::from_millis(2_500));
    assert_eq!(plain.retry_after, in_body);
}

/// A stream that ends too early is an error that may be retried, however plausible its beginning.
pub async fn a_cut_stream_is_no_answer(fixture: &dyn Fixture) {
    for cut in [StreamCut::MidChunk, StreamCut::BeforeTerminal] {
        let reply = MockReply::text("a long text that could well be whole").with_fault(ReplyFault::Cut(cut));
        let error = AdapterSetup::with_replies(fixture, [reply]).expect_error().await;
        assert_eq!(error.kind, ErrorKind::Unavailable, "{cut:?}: {error}");
        assert!(error.class().retryable());
        assert!(error.message.contains("cut"), "{error}");
    }
}

/// Once the vendor's terminal event is there, the answer is whole.
pub async fn a_stream_cut_after_its_end_is_an_answer(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(
        fixture,
        [MockReply::text("whole").with_fault(ReplyFault::Cut(StreamCut::AfterTerminal))],
    );
    assert_eq!(reply_text(&stage.expect_reply().await), "whole");
}

/// A server that never answers does not hold the run.
pub async fn silence_ends_in_a_timeout(fixture: &dyn Fixture) {
    let error =
        AdapterSetup::with_replies(fixture, [MockReply::fault(ReplyFault::Hang)]).expect_timeout().await;
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.class().retryable());
    assert!(error.message.contains("200 ms"), "{error}");
}

/// Nor does one that stops in the middle.
pub async fn a_stalled_stream_ends_in_a_timeout(fixture: &dyn Fixture) {
    let error =
        AdapterSetup::with_replies(fixture, [MockReply::fault(ReplyFault::Stall)]).expect_timeout().await;
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
}

/// A connection that is closed without a byte.
pub async fn a_closed_connection_is_told(fixture: &dyn Fixture) {
    let error =
        AdapterSetup::with_replies(fixture, [MockReply::fault(ReplyFault::Refuse)]).expect_error().await;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.class().retryable());
}

/// Nobody listens: the message says where it was looked.
pub async fn an_absent_server_is_told(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(fixture, []);
    let AdapterSetup { server, model, route } = stage;
    let origin = server.address().to_string();
    drop(server);
    let error = model
        .request_reply(super::model_request(&route, hello_messages()), &())
        .await
        .expect_err("nobody is there");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(&origin), "{error}");
}

/// An event that is no JSON.
pub async fn a_malformed_event_is_told(fixture: &dyn Fixture) {
    let error = AdapterSetup::with_replies(fixture, [MockReply::fault(ReplyFault::MalformedEvent)])
        .expect_error()
        .await;
    assert_eq!(error.kind, ErrorKind::MalformedResponse);
    assert!(error.class().retryable());
}

/// A page of a proxy instead of a stream.
pub async fn a_body_that_is_no_stream_is_told(fixture: &dyn Fixture) {
    let error =
        AdapterSetup::with_replies(fixture, [MockReply::fault(ReplyFault::NotAStream)]).expect_error().await;
    assert_eq!(error.kind, ErrorKind::MalformedResponse, "{error}");
    assert!(error.message.contains("base URL"), "says what to look at: {error}");
    let page = |code| ReplyFault::Status {
        code,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: Some("<!DOCTYPE html><html><body>Bad Gateway</body></html>".to_owned()),
    };
    let error = AdapterSetup::with_replies(fixture, [MockReply::fault(page(502))]).expect_error().await;
    assert_eq!(error.kind, ErrorKind::Overloaded, "{error}");
    assert!(!error.message.contains('<'), "no tags: {error}");
}

/// A good status with an error as the body, whatever it says of its own type.
pub async fn an_error_as_the_whole_body_is_told(fixture: &dyn Fixture) {
    for fault in [ReplyFault::ErrorBody, ReplyFault::ErrorBodyAsStream] {
        let error = AdapterSetup::with_replies(fixture, [MockReply::fault(fault(Vendor::Overloaded))])
            .expect_error()
            .await;
        assert_eq!(error.kind, ErrorKind::Overloaded, "{error}");
        assert!(error.class().retryable(), "{error}");
        let error = AdapterSetup::with_replies(fixture, [MockReply::fault(fault(Vendor::ContextOverflow))])
            .expect_error()
            .await;
        assert_eq!(error.kind, ErrorKind::ContextOverflow, "{error}");
    }
}

/// A tool whose parameters the vendor does not accept: nothing to repeat, and the message says what to do.
pub async fn a_tool_that_is_not_accepted_is_explained(fixture: &dyn Fixture) {
    for (said, way) in [
        ("Invalid schema for function 'read_file': object schema missing properties.", "tools.enabled"),
        ("tools.0.custom.input_schema: JSON schema is invalid.", "tools.enabled"),
        ("GenerateContentRequest.tools[0].function_declarations[0].parameters: must be set", "tools.enabled"),
        ("this model does not support tools", "model.name"),
    ] {
        let body = Some(serde_json::json!({"error": {"message": said, "code": 400}}).to_string());
        let fault = ReplyFault::Status { code: 400, headers: Vec::new(), body };
        let error = AdapterSetup::with_replies(fixture, [MockReply::fault(fault)]).expect_error().await;
        assert_eq!(error.kind, ErrorKind::Format, "{error}");
        assert!(error.message.contains(said) && error.message.contains(way), "{error}");
    }
}

/// A provider may report trouble after it has begun to answer.
pub async fn an_error_inside_a_stream_is_told(fixture: &dyn Fixture) {
    let fault = ReplyFault::StreamError(Vendor::Overloaded);
    let error = AdapterSetup::with_replies(fixture, [MockReply::text("begun well, and").with_fault(fault)])
        .expect_error()
        .await;
    assert_eq!(error.kind, ErrorKind::Overloaded, "{error}");
    assert!(error.message.contains("overloaded"), "{error}");
}

/// The adapter repeats nothing: that is decided elsewhere.
pub async fn one_call_is_one_attempt(fixture: &dyn Fixture) {
    for reply in [
        MockReply::status(500),
        MockReply::fault(ReplyFault::Refuse),
        MockReply::fault(ReplyFault::Cut(StreamCut::MidChunk)),
    ] {
        let stage = AdapterSetup::new(fixture, ReplyScript::from_replies([reply, MockReply::text("second")]));
        stage.expect_error().await;
        assert_eq!(stage.server.model_calls().len(), 1);
    }
}

/// A redirect would carry the key to another host.
pub async fn redirects_are_not_followed(fixture: &dyn Fixture) {
    let thief = ModelServer::start(ReplyScript::always(|_| MockReply::text("thanks for the key")));
    let headers = vec![("Location".to_owned(), format!("{}/v1/chat/completions", thief.url()))];
    let fault = ReplyFault::Status { code: 307, headers, body: None };
    let error = AdapterSetup::with_replies(fixture, [MockReply::fault(fault)]).expect_error().await;
    assert_eq!(thief.request_count(), 0);
    assert!(!error.class().retryable(), "{error}");
    assert!(error.message.contains("edirect"), "{error}");
}

/// Cancelling a call closes its connection, so that the provider stops and nothing leaks.
pub async fn dropping_the_call_ends_the_request(fixture: &dyn Fixture) {
    let stage = AdapterSetup::with_replies(fixture, [MockReply::fault(ReplyFault::Hang)]);
    {
        let call = stage.model.request_reply(stage.build_request(hello_messages()), &());
        tokio::pin!(call);
        let arrived = async {
            while stage.server.request_count() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = &mut call => panic!("it never answers"),
            () = arrived => {}
        }
    }
    // The connection's own task must run to notice; it lives on this thread's runtime.
    let idle = tokio::task::spawn_blocking(move || stage.server.wait_until_idle(CASE_TIMEOUT));
    assert!(idle.await.expect("no panic"));
}

/// Not even a provider that repeats the key in its message makes it visible.
pub async fn errors_do_not_show_the_key(fixture: &dyn Fixture) {
    let body = format!(r#"{{"error": {{"message": "Incorrect API key provided: {API_KEY}", "code": 401}}}}"#);
    let fault = ReplyFault::Status { code: 401, headers: Vec::new(), body: Some(body) };
    // A provider without keys has none to hide.
    let error = AdapterSetup::with_replies(fixture, [MockReply::fault(fault)]).expect_error().await;
    assert_eq!(error.kind, ErrorKind::Auth);
    if fixture.key_header().is_some() {
        assert!(!format!("{error} {error:?}").contains(API_KEY), "{error}");
        let settings =
            ModelServerSettings { key: Some("another".to_owned()), ..ModelServerSettings::default() };
        let server = ModelServer::start_with(ReplyScript::from_replies([MockReply::text("no")]), settings)
            .expect("a server");
        assert_eq!(AdapterSetup::with_server(fixture, server).expect_error().await.kind, ErrorKind::Auth);
    }
}
