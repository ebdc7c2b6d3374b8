//! WebSockets of native programs: tokio and tungstenite.

use super::{Event, Link, Sleep, Transport};
use crate::endpoint::Address;
use crate::peer::{Cause, Now};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{SinkExt, StreamExt};
use partysync::{Code, Timestamp, wire};
use rustls::{ClientConfig, RootCertStore};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

/// For so long a socket that is closed waits for the other side.
const GOODBYE: Duration = Duration::from_secs(2);

type Tls = Result<Arc<ClientConfig>, String>;

/// WebSockets over tokio; wants to be used inside a tokio runtime.
#[derive(Clone)]
pub struct NativeTransport {
    /// Or what is wrong with it, which each attempt to connect tells.
    tls: Tls,
    started: Instant,
}

impl std::fmt::Debug for NativeTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeTransport").finish_non_exhaustive()
    }
}

impl Default for NativeTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl NativeTransport {
    /// Trusts the roots that browsers trust.
    #[must_use]
    pub fn new() -> Self {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Self::with_roots(roots)
    }

    /// Trusts these roots, and no others.
    #[must_use]
    pub fn with_roots(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        let tls = config.map(Arc::new).map_err(|error| error.to_string());
        Self { tls, started: Instant::now() }
    }

    /// Uses this configuration of TLS.
    #[must_use]
    pub fn with_tls(config: ClientConfig) -> Self {
        Self { tls: Ok(Arc::new(config)), started: Instant::now() }
    }
}

impl Transport for NativeTransport {
    fn open(&self, address: &Address) -> Link {
        let (outgoing, to_send) = unbounded();
        let (told, incoming) = unbounded();
        tokio::spawn(pump(address.clone(), self.tls.clone(), to_send, told));
        Link { outgoing, incoming }
    }

    fn sleep(&self, time: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(time))
    }

    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let monotonic = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { monotonic, wall: Timestamp::from_millis(wall) }
    }

    fn random(&self) -> u64 {
        // The standard library's hasher is seeded from the system, too.
        getrandom::u64().unwrap_or_else(|_| RandomState::new().build_hasher().finish())
    }
}

/// Carries frames both ways until the link is dropped or the socket closes.
async fn pump(
    address: Address,
    tls: Tls,
    mut to_send: UnboundedReceiver<String>,
    told: UnboundedSender<Event>,
) {
    let closed = |cause: Cause| {
        // Nobody listens any more: then nobody has to be told.
        let _ = told.unbounded_send(Event::Closed(cause));
    };
    let broken = |error: Error| Cause::Code { code: 1006, reason: error.to_string() };
    let mut queue = VecDeque::new();
    let dropped = poll_fn(|context| drain(&mut to_send, &mut queue, context));
    let mut socket = tokio::select! {
        socket = connect(&address, tls) => match socket {
            Ok(socket) => socket,
            Err(cause) => return closed(cause),
        },
        () = dropped => return,
    };
    if told.unbounded_send(Event::Opened).is_err() {
        return;
    }
    loop {
        let step = poll_fn(|context| {
            if drain(&mut to_send, &mut queue, context).is_ready() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(Err(error)) = send(&mut socket, &mut queue, context) {
                return Poll::Ready(Some(Some(Err(error))));
            }
            socket.poll_next_unpin(context).map(Some)
        });
        match step.await {
            None => {
                // The other side may be gone: there is nobody left to care.
                let _ = tokio::time::timeout(GOODBYE, socket.close(None)).await;
                return;
            }
            Some(Some(Ok(Message::Text(text)))) => {
                if told.unbounded_send(Event::Text(text.as_str().to_owned())).is_err() {
                    return;
                }
            }
            Some(Some(Ok(Message::Close(frame)))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), frame.reason.as_str().to_owned())
                });
                return closed(Cause::Code { code, reason });
            }
            Some(Some(Ok(_))) => {}
            Some(Some(Err(error))) => return closed(broken(error)),
            Some(None) => return closed(Cause::gone()),
        }
    }
}

/// Takes what is to be sent; ready when the link was dropped.
fn drain(
    to_send: &mut UnboundedReceiver<String>,
    queue: &mut VecDeque<String>,
    context: &mut Context<'_>,
) -> Poll<()> {
    while let Some(text) = ready!(to_send.poll_next_unpin(context)) {
        queue.push_back(text);
    }
    Poll::Ready(())
}

/// Sends as much as the socket takes.
fn send(
    socket: &mut Socket,
    queue: &mut VecDeque<String>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    while !queue.is_empty() {
        ready!(socket.poll_ready_unpin(context))?;
        if let Some(text) = queue.pop_front() {
            socket.start_send_unpin(Message::text(text))?;
        }
    }
    socket.poll_flush_unpin(context)
}

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

fn no_address(error: impl std::fmt::Display) -> Cause {
    Cause::Address(partysync::Error::new(Code::InvalidValue, format!("no address: {error}")))
}

async fn connect(address: &Address, tls: Tls) -> Result<Socket, Cause> {
    let tls = tls.map_err(Cause::Unreachable)?;
    let mut request = address.url.as_str().into_client_request().map_err(no_address)?;
    // Something that is no port is passed over by the library, and the default taken.
    if let Some(authority) = request.uri().authority()
        && authority.port_u16().is_none()
        && authority.as_str().rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
    {
        return Err(no_address(format_args!("`{authority}` has no valid port")));
    }
    let headers = request.headers_mut();
    for (name, value) in &address.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(no_address)?;
        headers.append(name, HeaderValue::from_str(value).map_err(no_address)?);
    }
    let protocol = HeaderValue::from_static(wire::SUBPROTOCOL);
    headers.insert("sec-websocket-protocol", protocol);
    let connector = Some(Connector::Rustls(tls));
    match connect_async_tls_with_config(request, None, false, connector).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(Cause::Status(response.status().as_u16())),
        Err(error @ (Error::Url(_) | Error::HttpFormat(_))) => {
            Err(no_address(format_args!("{error} (it begins with ws:// or wss://)")))
        }
        Err(error) => Err(Cause::Unreachable(error.to_string())),
    }
}
