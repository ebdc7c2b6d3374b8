//! WebSockets of native programs: tokio and tungstenite.

use super::{Event, Link, Sleep, Transport};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{SinkExt, StreamExt};
use partysync::{Timestamp, wire};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

/// WebSockets over tokio; wants to be used inside a tokio runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeTransport;

impl Transport for NativeTransport {
    fn open(&self, url: &str) -> Link {
        let (outgoing, to_send) = unbounded();
        let (told, incoming) = unbounded();
        tokio::spawn(pump(url.to_owned(), to_send, told));
        Link { outgoing, incoming }
    }

    fn sleep(&self, time: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(time))
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn random(&self) -> u64 {
        getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15)
    }
}

/// Carries frames both ways until the link is dropped or the socket closes.
async fn pump(url: String, mut to_send: UnboundedReceiver<String>, told: UnboundedSender<Event>) {
    let closed = |code: u16, reason: String| {
        // Nobody listens any more: then nobody has to be told.
        let _ = told.unbounded_send(Event::Closed { code, reason });
    };
    let socket = match connect(&url).await {
        Ok(socket) => socket,
        Err(error) => return closed(1006, error.to_string()),
    };
    let (mut sink, mut stream) = socket.split();
    if told.unbounded_send(Event::Opened).is_err() {
        return;
    }
    loop {
        tokio::select! {
            text = to_send.next() => match text {
                Some(text) => {
                    if let Err(error) = sink.send(Message::text(text)).await {
                        return closed(1006, error.to_string());
                    }
                }
                None => {
                    // The other side may be gone: there is nobody left to care.
                    let _ = sink.close().await;
                    return;
                }
            },
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    if told.unbounded_send(Event::Text(text.as_str().to_owned())).is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame
                        .map_or((1005, String::new()), |f| (f.code.into(), f.reason.as_str().to_owned()));
                    return closed(code, reason);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return closed(1006, error.to_string()),
                None => return closed(1006, "the connection ended".to_owned()),
            },
        }
    }
}

async fn connect(
    url: &str,
) -> Result<
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
    Error,
> {
    let mut request = url.into_client_request()?;
    let protocol = HeaderValue::from_static(wire::SUBPROTOCOL);
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    Ok(connect_async(request).await?.0)
}
