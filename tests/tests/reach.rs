//! What stands between a native client and its room: TLS, refusals, addresses that make no sense,
//! and credentials that are renewed.

use futures::{SinkExt, StreamExt};
use partysync::wire::SUBPROTOCOL;
use partysync::{Action, Code, Record, Result};
use partysync_client::transport::NativeTransport;
use partysync_client::{Address, Endpoint, Options, Phase, SyncClient};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String },
}

type Client = SyncClient<NoteAction>;

/// The deadline is for failing tests only.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = tokio::time::timeout(Duration::from_secs(60), future).await;
    limit.unwrap_or_else(|_| panic!("did not happen: {what}"))
}

/// Speaks for a room without rows; upgrades that `allows` refuses are answered so.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    allows: impl Fn(&Request) -> std::result::Result<(), u16>,
) {
    // The library's own type of error.
    #[allow(clippy::result_large_err)]
    let check = |request: &Request, mut response: Response| {
        if let Err(status) = allows(request) {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = status.try_into().unwrap();
            return Err(refusal);
        }
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if !message.to_text().is_ok_and(|text| text.contains("hello")) {
            continue;
        }
        let welcome = r#"{"type":"welcome","epoch":"e","version":0,"connection":"c","now":0}"#;
        let page = r#"{"type":"catch_up","channel":"notes","from":null,"to":0,"rows":[],"gone":[],"sent":0,"total":0,"more":false}"#;
        for frame in [welcome, page] {
            if socket.send(Message::text(frame)).await.is_err() {
                return;
            }
        }
    }
}

/// A room behind TLS, with the root that vouches for it.
async fn tls_room() -> (String, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, |_| Ok(())).await;
                }
            });
        }
    });
    (format!("wss://localhost:{port}/parties/notes/mine"), roots)
}

/// A room that lets in whom `allows` does.
async fn room(
    allows: impl Fn(&Request) -> std::result::Result<(), u16> + Clone + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, allows.clone()));
        }
    });
    format!("ws://127.0.0.1:{port}/parties/notes/mine")
}

#[tokio::test]
async fn a_room_behind_tls_is_reached_with_its_root_and_not_without() -> Result<()> {
    let (url, roots) = tls_room().await;
    let transport = NativeTransport::with_roots(roots);
    let (client, driver) = Client::make(Endpoint::from(&url), Options::default(), transport);
    tokio::spawn(driver);
    within("live", client.ready()).await?;

    let stranger = Client::connect(&url).await?;
    let offline = |client: &Client| matches!(client.status().phase, Phase::Offline { .. });
    within("offline", stranger.until(offline)).await?;
    let Phase::Offline { error, .. } = stranger.status().phase else { unreachable!() };
    assert!(error.message().contains("certificate"), "{error}");
    Ok(())
}

#[tokio::test]
async fn what_refuses_a_client_is_told() -> Result<()> {
    for (status, code) in [(401, Code::Unauthorized), (403, Code::Forbidden)] {
        let client = Client::connect(room(move |_| Err(status)).await).await?;
        let error = within("refused", client.ready()).await.unwrap_err();
        assert_eq!(error.code(), code, "{status}");
    }
    // It may be there later.
    let client = Client::connect(room(|_| Err(404)).await).await?;
    let offline = |client: &Client| matches!(client.status().phase, Phase::Offline { .. });
    within("offline", client.until(offline)).await?;
    let Phase::Offline { error, .. } = client.status().phase else { unreachable!() };
    assert_eq!(error.message(), "the server answered 404");

    for nonsense in [
        "",
        "not a url",
        "http//x",
        "ws://",
        "ws://a b/",
        "ftp://example.com/x",
        "ws://127.0.0.1:99999/",
    ] {
        let client = Client::connect(nonsense).await?;
        let error = within("refused", client.ready()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidValue, "{nonsense}: {error}");
    }
    // A server that answers with something else, and one that is not there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"220 this is not HTTP\r\n").await;
    });
    let client = Client::connect(format!("ws://127.0.0.1:{port}/")).await?;
    within("offline", client.until(offline)).await?;
    let Phase::Offline { error, .. } = client.status().phase else { unreachable!() };
    assert_eq!(error.code(), Code::Unavailable);
    Ok(())
}

#[tokio::test]
async fn credentials_are_asked_for_at_each_attempt() -> Result<()> {
    let wanted = Arc::new(Mutex::new("token-2".to_owned()));
    let good = wanted.clone();
    let url = room(move |request: &Request| {
        let header = request.headers().get("authorization").and_then(|h| h.to_str().ok());
        if header == Some(good.lock().unwrap().as_str()) { Ok(()) } else { Err(401) }
    })
    .await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let endpoint = Endpoint::new(move || {
        let attempt = count.fetch_add(1, Ordering::Relaxed) + 1;
        let address =
            Address::new(url.as_str()).header("authorization", format!("token-{attempt}"));
        std::future::ready(Ok(address))
    });
    // The first token is old; the second is good.
    let client = Client::with(endpoint, Options::default()).await?;
    within("live", client.ready()).await?;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // It is not good any more when the connection is made anew: the client says so and waits.
    *wanted.lock().unwrap() = "token-5".to_owned();
    client.reconnect();
    let error = within("refused", client.ready()).await.unwrap_err();
    assert_eq!((error.code(), asked.load(Ordering::Relaxed)), (Code::Unauthorized, 4));
    client.reconnect();
    within("live", client.ready()).await?;
    assert_eq!(asked.load(Ordering::Relaxed), 5);
    Ok(())
}

#[tokio::test]
async fn a_provider_that_fails_is_asked_again() -> Result<()> {
    let url = room(|_| Ok(())).await;
    let asked = Arc::new(AtomicU32::new(0));
    let endpoint = Endpoint::new(move || {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        let address = Address::new(url.as_str());
        let down = partysync::Error::new(Code::Unavailable, "the login service is down");
        std::future::ready(if first { Err(down) } else { Ok(address) })
    });
    let client = Client::with(endpoint, Options::default()).await?;
    let offline = |client: &Client| matches!(client.status().phase, Phase::Offline { .. });
    within("offline", client.until(offline)).await?;
    let Phase::Offline { error, .. } = client.status().phase else { unreachable!() };
    assert_eq!(error.message(), "the login service is down");
    within("live", client.ready()).await
}
