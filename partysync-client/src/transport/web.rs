//! The WebSocket of a page.

use super::{Event, Link, Sleep, Transport};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use partysync::{Code, Error, Result, Timestamp, wire};
use std::time::Duration;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{CloseEvent, MessageEvent, WebSocket};

/// The WebSocket, clock and timers of a page.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebTransport;

/// The URL of a room on the server that the page came from.
///
/// # Errors
/// [`Code::Internal`] where there is no page.
pub fn room_url(party: &str, room: &str) -> Result<String> {
    let location = web_sys::window()
        .map(|window| window.location())
        .ok_or_else(|| Error::new(Code::Internal, "there is no window here"))?;
    let part = |value: std::result::Result<String, wasm_bindgen::JsValue>| {
        value.map_err(|_| Error::new(Code::Internal, "the page has no address"))
    };
    let scheme = if part(location.protocol())? == "https:" { "wss" } else { "ws" };
    let room = String::from(js_sys::encode_uri_component(room));
    Ok(format!("{scheme}://{}/parties/{party}/{room}", part(location.host())?))
}

impl Transport for WebTransport {
    fn open(&self, url: &str) -> Link {
        let (outgoing, mut to_send) = unbounded::<String>();
        let (told, incoming) = unbounded();
        match WebSocket::new_with_str(url, wire::SUBPROTOCOL) {
            Err(_) => tell(&told, Event::Closed { code: 1006, reason: "not a URL".to_owned() }),
            Ok(socket) => {
                let handlers = Handlers::on(&socket, &told);
                wasm_bindgen_futures::spawn_local(async move {
                    while let Some(text) = to_send.next().await {
                        // A socket that is closing says so in its close event.
                        let _ = socket.send_with_str(&text);
                    }
                    handlers.off(&socket);
                    let _ = socket.close();
                });
            }
        }
        Link { outgoing, incoming }
    }

    fn sleep(&self, time: Duration) -> Sleep {
        Box::pin(gloo_timers::future::sleep(time))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(js_sys::Date::now() as i64)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn random(&self) -> u64 {
        let half = || (js_sys::Math::random() * 4_294_967_296.0) as u64;
        half() << 32 | half()
    }
}

fn tell(told: &UnboundedSender<Event>, event: Event) {
    // Nobody listens any more: then nobody has to be told.
    let _ = told.unbounded_send(event);
}

/// The socket's event handlers; they live as long as the link.
struct Handlers {
    _open: Closure<dyn FnMut()>,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _close: Closure<dyn FnMut(CloseEvent)>,
}

impl Handlers {
    fn on(socket: &WebSocket, told: &UnboundedSender<Event>) -> Self {
        let sender = told.clone();
        let open = Closure::<dyn FnMut()>::new(move || tell(&sender, Event::Opened));
        let sender = told.clone();
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            if let Some(text) = event.data().as_string() {
                tell(&sender, Event::Text(text));
            }
        });
        let sender = told.clone();
        let close = Closure::<dyn FnMut(CloseEvent)>::new(move |event: CloseEvent| {
            tell(&sender, Event::Closed { code: event.code(), reason: event.reason() });
        });
        socket.set_onopen(Some(open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(close.as_ref().unchecked_ref()));
        Self { _open: open, _message: message, _close: close }
    }

    fn off(self, socket: &WebSocket) {
        socket.set_onopen(None);
        socket.set_onmessage(None);
        socket.set_onclose(None);
    }
}
