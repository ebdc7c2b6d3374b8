//! The WebSocket of a page.

use super::{Event, Link, Nudges, Sleep, Transport};
use crate::endpoint::Address;
use crate::peer::{Cause, Now};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::channel::oneshot;
use futures::{Stream, StreamExt};
use partysync::{Code, Error, Result, Timestamp, wire};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    CloseEvent, DomException, EventTarget, MessageChannel, MessageEvent, MessagePort,
    PageTransitionEvent, VisibilityState, WebSocket,
};

/// The longest wait of `setTimeout`, ms; a longer one would end at once.
const LONGEST_SLEEP: u32 = i32::MAX as u32;

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
    let part = |value: std::result::Result<String, JsValue>| {
        value.map_err(|_| Error::new(Code::Internal, "the page has no address"))
    };
    let scheme = if part(location.protocol())? == "https:" { "wss" } else { "ws" };
    let room = String::from(js_sys::encode_uri_component(room));
    Ok(format!("{scheme}://{}/parties/{party}/{room}", part(location.host())?))
}

impl Transport for WebTransport {
    fn open(&self, address: &Address) -> Link {
        let (outgoing, mut to_send) = unbounded::<String>();
        let (told, incoming) = unbounded();
        match WebSocket::new_with_str(address.url(), wire::SUBPROTOCOL) {
            Err(error) => tell(&told, Event::Closed(refused(&error))),
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

    /// Ends early when it is longer than a browser can wait. No time lets the page go on, and is
    /// not made longer for a page that is hidden.
    fn sleep(&self, time: Duration) -> Sleep {
        if time.is_zero() {
            return Box::pin(next_turn());
        }
        let millis = u32::try_from(time.as_millis()).unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        Box::pin(gloo_timers::future::TimeoutFuture::new(millis))
    }

    /// A page that is hidden has no frames, and may soon be gone.
    fn shown(&self) -> Option<Sleep> {
        let document = web_sys::window().and_then(|window| window.document());
        document.filter(|document| document.visibility_state() == VisibilityState::Visible)?;
        Some(Box::pin(next_turn()))
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn now(&self) -> Now {
        // A worker has no window, and its clock under the same name.
        let performance = js_sys::Reflect::get(&js_sys::global(), &"performance".into());
        let performance = performance.ok().and_then(|p| p.dyn_into::<web_sys::Performance>().ok());
        Now {
            monotonic: performance.map_or(0.0, |performance| performance.now()) as u64,
            wall: Timestamp::from_millis(js_sys::Date::now() as i64),
        }
    }

    fn nudges(&self) -> Nudges {
        Box::pin(PageNudges::listen())
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        let crypto = web_sys::window().and_then(|window| window.crypto().ok());
        if crypto.is_some_and(|c| c.get_random_values_with_u8_array(&mut bytes).is_ok()) {
            return u64::from_le_bytes(bytes);
        }
        let half = || (js_sys::Math::random() * 4_294_967_296.0) as u64;
        half() << 32 | half()
    }
}

/// Ends when what waits in the page's event loop was done. Timers are late there.
async fn next_turn() {
    let Ok(channel) = MessageChannel::new() else { return };
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let handler = Closure::<dyn FnMut()>::new(move || {
        if let Some(tell) = tell.take() {
            // Whoever waited may be gone.
            let _ = tell.send(());
        }
    });
    channel.port1().set_onmessage(Some(handler.as_ref().unchecked_ref()));
    let turn = Turn { port: channel.port1(), _handler: handler };
    if channel.port2().post_message(&JsValue::NULL).is_ok() {
        // It ends with the handler, which is here.
        let _ = told.await;
    }
    drop(turn);
}

/// A message on its way; a wait that is given up does not hear it any more.
struct Turn {
    port: MessagePort,
    _handler: Closure<dyn FnMut()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.port.set_onmessage(None);
        self.port.close();
    }
}

/// Why a browser does not even try to connect.
fn refused(error: &JsValue) -> Cause {
    let error = error.dyn_ref::<DomException>();
    let message = error.map_or_else(|| "no socket".to_owned(), DomException::message);
    match error {
        Some(error) if error.name() == "SyntaxError" => {
            Cause::Address(Error::new(Code::InvalidValue, format!("no address: {message}")))
        }
        _ => Cause::Unreachable(message),
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
            let (code, reason) = (event.code(), event.reason());
            tell(&sender, Event::Closed(Cause::Code { code, reason }));
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

/// Tells when the network is back, or the page is seen or runs again.
struct PageNudges {
    events: UnboundedReceiver<()>,
    _listeners: Vec<Listener>,
}

impl Stream for PageNudges {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.events.poll_next_unpin(context)
    }
}

impl PageNudges {
    fn listen() -> Self {
        let (nudge, events) = unbounded();
        let mut listeners = Vec::new();
        let Some(window) = web_sys::window() else {
            return Self { events, _listeners: listeners };
        };
        let mut on = |target: &EventTarget, event, when: fn(&web_sys::Event) -> bool| {
            let nudge = nudge.clone();
            listeners.extend(Listener::on(target, event, move |event| {
                if when(event) {
                    // A client that has ended is not told.
                    let _ = nudge.unbounded_send(());
                }
            }));
        };
        on(&window, "online", |_| true);
        // The page comes out of the back/forward cache.
        on(&window, "pageshow", |event| {
            event.dyn_ref::<PageTransitionEvent>().is_some_and(PageTransitionEvent::persisted)
        });
        if let Some(document) = window.document() {
            // It was frozen.
            on(&document, "resume", |_| true);
            on(&document, "visibilitychange", |_| {
                let document = web_sys::window().and_then(|window| window.document());
                document.is_some_and(|d| d.visibility_state() == VisibilityState::Visible)
            });
        }
        Self { events, _listeners: listeners }
    }
}

/// An event listener; it is removed when it is dropped.
struct Listener {
    target: EventTarget,
    event: &'static str,
    handler: Closure<dyn FnMut(web_sys::Event)>,
}

impl Listener {
    fn on(
        target: &EventTarget,
        event: &'static str,
        mut heard: impl FnMut(&web_sys::Event) + 'static,
    ) -> Option<Self> {
        let handler = Closure::<dyn FnMut(web_sys::Event)>::new(move |event| heard(&event));
        let function = handler.as_ref().unchecked_ref();
        target.add_event_listener_with_callback(event, function).ok()?;
        Some(Self { target: target.clone(), event, handler })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let function = self.handler.as_ref().unchecked_ref();
        // One that is not there need not be removed.
        let _ = self.target.remove_event_listener_with_callback(self.event, function);
    }
}
