//! A key that a host keeps from an earlier request and gives back later.

use super::stage::{KEY, PLACEHOLDER, Stage, host, kept, swap, unstarted};

#[tokio::test]
async fn a_key_that_a_host_kept_is_given_back_neither_whole_nor_in_parts() {
    let (port, seen) = host().await;
    let stage = Stage::from(unstarted(&["a.test", "b.test", "127.0.0.1"], vec![swap("a.test")]));
    // No placeholder: the key came with an earlier request.
    let ask = |host: &str, path: &str| {
        format!(
            "GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nRange: bytes=0-4\r\n\
             If-Range: \"x\"\r\nA-IM: vcdiff\r\nAccept-Charset: utf-16\r\nAccept-Encoding: gzip\r\n\r\n"
        )
    };
    let answer = stage.ask(&ask("a.test", "/")).await;
    let said = seen.lock().unwrap().pop().unwrap().to_ascii_lowercase();
    assert!(said.contains("accept-encoding: identity") && answer.status == 200, "{said}");
    for asked in ["range", "a-im", "accept-charset", "gzip"] {
        assert!(!said.contains(asked), "{asked}: {said}");
    }
    for path in ["/gzip", "/part", "/claimed", "/ranges", "/patched"] {
        let answer = stage.ask(&ask("a.test", path)).await;
        assert_eq!(answer.status, 502, "{path}: {answer:?}");
        assert!(!answer.body.contains(&KEY[..5]), "{answer:?}");
    }
    let answer = stage.ask(&ask("a.test", "/kept")).await;
    let all = format!("{}{}", answer.head, answer.body);
    assert!(all.matches(PLACEHOLDER).count() >= 13, "{all:?}");
    let all_forms = kept();
    for form in all_forms.split(' ').map(|form| &form[form.len() / 2..]) {
        assert!(!all.contains(form), "{form:?}: {all:?}");
    }
    // The request to a host without a key is unchanged.
    assert_eq!(stage.ask(&ask("b.test", "/part")).await.status, 206);
    assert!(seen.lock().unwrap().pop().unwrap().contains("Range: bytes=0-4"));
}
