//! The local server that receives the browser's callback (RFC 8252, 7.3).

use super::{LoginEndpoints, LoginError};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use url::form_urlencoded;

/// Largest size in bytes of a request.
const MAX_REQUEST_BYTES: usize = 32 << 10;
/// Time after which an idle connection is closed; browsers open connections that they never use.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// A server that listens for the browser until it is dropped.
#[derive(Debug)]
pub(super) struct CallbackServer {
    port: u16,
    answers: mpsc::Receiver<CallbackRequest>,
    _listeners: JoinSet<()>,
}

/// A callback from the browser, and the connection for the reply.
#[derive(Debug)]
pub(super) struct CallbackRequest {
    query: Vec<(String, String)>,
    page: oneshot::Sender<ResultPage>,
    written: oneshot::Receiver<()>,
}

/// The page that the browser shows.
#[derive(Debug)]
struct ResultPage {
    status: &'static str,
    title: String,
    text: String,
}

impl CallbackServer {
    /// Listens on the loopback addresses.
    pub(super) async fn listen(endpoints: &LoginEndpoints) -> Result<Self, LoginError> {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, endpoints.port)).await;
        let four = four.map_err(|error| LoginError::PortTaken {
            provider: endpoints.provider.clone(),
            port: endpoints.port,
            why: error.to_string(),
        })?;
        let port = four.local_addr().map_or(endpoints.port, |address: SocketAddr| address.port());
        // Some browsers resolve `localhost` to IPv6 first; a machine without IPv6 does not need this listener.
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok();
        let (sender, answers) = mpsc::channel(4);
        let mut listeners = JoinSet::new();
        for listener in [Some(four), six].into_iter().flatten() {
            listeners.spawn(accept_connections(listener, endpoints.path.clone(), sender.clone()));
        }
        Ok(Self { port, answers, _listeners: listeners })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the next callback from the browser.
    pub(super) async fn next_request(&mut self) -> CallbackRequest {
        match self.answers.recv().await {
            Some(answer) => answer,
            // The listeners live as long as this value, so this does not happen.
            None => std::future::pending().await,
        }
    }
}

impl CallbackRequest {
    /// Returns a parameter of the callback.
    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Shows the outcome in the browser.
    pub(super) async fn respond(self, provider: &str, error: Option<&LoginError>) {
        let page = match error {
            None => ResultPage {
                status: "200 OK",
                title: "You are logged in".to_owned(),
                text: format!("Forge may now use your account at {provider}. You can close this page."),
            },
            Some(error) => ResultPage {
                status: "400 Bad Request",
                title: "You are not logged in".to_owned(),
                text: format!("{error}."),
            },
        };
        if self.page.send(page).is_ok() {
            // The browser may have disconnected; the login does not depend on it.
            let _ = tokio::time::timeout(Duration::from_secs(2), self.written).await;
        }
    }
}

async fn accept_connections(listener: TcpListener, path: String, answers: mpsc::Sender<CallbackRequest>) {
    let mut open = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (path, answers) = (path.clone(), answers.clone());
                open.spawn(async move {
                    let _ =
                        tokio::time::timeout(CONNECTION_TIMEOUT, serve_connection(stream, &path, &answers))
                            .await;
                });
            }
            // Probably out of file descriptors; other connections must close first.
            Err(_) => tokio::task::yield_now().await,
        }
        while open.try_join_next().is_some() {}
    }
}

async fn serve_connection(mut stream: TcpStream, path: &str, answers: &mpsc::Sender<CallbackRequest>) {
    let Some(target) = read_target(&mut stream).await else { return };
    let (found, query) = target.split_once('?').unwrap_or((&target, ""));
    let page = if found == path {
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let (sender, page) = oneshot::channel();
        let (done, shown) = oneshot::channel();
        if answers.send(CallbackRequest { query, page: sender, written: shown }).await.is_err() {
            return;
        }
        let Ok(page) = page.await else { return };
        write_page(&mut stream, &page).await;
        let _ = done.send(());
        return;
    } else {
        ResultPage {
            status: "404 Not Found",
            title: "Not found".to_owned(),
            text: "Forge expects the login on another path.".to_owned(),
        }
    };
    write_page(&mut stream, &page).await;
}

/// Returns the target of a GET request once its head is complete.
async fn read_target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 2048];
        let read = stream.read(&mut piece).await.ok()?;
        head.extend_from_slice(&piece[..read]);
        if read == 0 || head.len() > MAX_REQUEST_BYTES {
            return None;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("GET"), Some(target)) => Some(target.to_owned()),
        _ => None,
    }
}

async fn write_page(stream: &mut TcpStream, page: &ResultPage) {
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Forge: {title}</title><body><h1>{title}</h1>\
         <p>{text}</p></body></html>\n",
        title = escape_html(&page.title),
        text = escape_html(&page.text)
    );
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         content-security-policy: default-src 'none'\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n",
        page.status,
        body.len()
    );
    // The page is optional; a browser that has disconnected does not need it.
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
