//! A native server of streams: [`router`], for axum.
//!
//! The streams live on a thread of their own, as they live in an object elsewhere: requests reach
//! it through a channel, one at a time as far as they decide something, and wait there together
//! as far as they wait.

use super::life::AFTER_FAULT;
use super::{Body, Options, Platform, Post, Store, Streams};
use crate::{Code, Error, Result, Timestamp};
use axum::Router;
use axum::body::{Body as AxumBody, Bytes};
use axum::extract::Request;
use futures::future::LocalBoxFuture;
use futures::stream::StreamExt;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

type Job = (http::Request<AxumBody>, oneshot::Sender<Response<AxumBody>>);

/// How many requests may wait for the thread before a client has to.
const QUEUE: usize = 1024;

/// How many pieces of a live answer may wait for a slow reader.
const PIECES: usize = 8;

/// A router that serves the streams of the store that `open` opens, under [`Options::root`]. The
/// store is closed when the router and all its clones are gone.
///
/// ```no_run
/// use partysync::sql::Sqlite;
/// use partysync::streams::{Options, SqlStore, router};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let app = router(|| SqlStore::new(Sqlite::open("streams.db")?), Options::default()).await?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:4437").await?;
/// axum::serve(listener, app).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// What `open` returns, and [`Code::Internal`] when no thread can be started.
pub async fn router<S: Store>(
    open: impl FnOnce() -> Result<S> + Send + 'static,
    options: Options,
) -> Result<Router> {
    let (jobs, inbox) = mpsc::channel(QUEUE);
    let (opened, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("streams".to_owned())
        .spawn(move || run(open, options, inbox, opened))
        .map_err(|e| Error::new(Code::Internal, format!("no thread for the streams: {e}")))?;
    told.await.map_err(|_| Error::new(Code::Internal, "the streams' thread ended"))??;
    Ok(Router::new().fallback(move |request: Request| {
        let jobs = jobs.clone();
        async move {
            let (sender, answer) = oneshot::channel();
            // The thread ends with the router: while this runs, it is there.
            if jobs.send((request, sender)).await.is_ok()
                && let Ok(response) = answer.await
            {
                return response;
            }
            let mut response = Response::new(AxumBody::empty());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }))
}

fn run<S: Store>(
    open: impl FnOnce() -> Result<S>,
    options: Options,
    inbox: mpsc::Receiver<Job>,
    opened: oneshot::Sender<Result<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ready = runtime
        .map_err(|e| Error::new(Code::Internal, e.to_string()))
        .and_then(|runtime| Ok((runtime, open()?)));
    match ready {
        Ok((runtime, store)) => {
            // Nobody waits any more if the caller is gone; the inbox is closed then.
            let _ = opened.send(Ok(()));
            let native = Native::default();
            let streams = Streams::new(store, native.clone(), options);
            LocalSet::new().block_on(&runtime, serve(streams, native, inbox));
        }
        Err(error) => drop(opened.send(Err(error))),
    }
}

async fn serve<S: Store>(
    streams: Streams<S, Native>,
    native: Native,
    mut inbox: mpsc::Receiver<Job>,
) {
    let alarm = spawn_local(ring(streams.clone(), native));
    while let Some((request, sender)) = inbox.recv().await {
        let streams = streams.clone();
        spawn_local(async move {
            let (parts, body) = request.into_parts();
            let body = body.into_data_stream().map(|part| match part {
                Ok(bytes) => Ok(bytes.to_vec()),
                Err(e) => Err(Error::new(Code::Closed, e.to_string())),
            });
            let mut request = http::Request::from_parts(parts, body.boxed_local());
            *request.uri_mut() = absolute(request.uri(), request.headers().get(header::HOST));
            let mut sender = sender;
            let response = tokio::select! {
                response = streams.handle(request) => response,
                // The reader has hung up.
                () = sender.closed() => return,
            };
            let _ = sender.send(response.map(outgoing));
        });
    }
    alarm.abort();
}

/// The URI with its host, which HTTP/1 says in a header.
fn absolute(uri: &Uri, host: Option<&HeaderValue>) -> Uri {
    let mut parts = uri.clone().into_parts();
    if parts.authority.is_none() {
        parts.authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
        parts.scheme = parts.authority.is_some().then_some(http::uri::Scheme::HTTP);
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn outgoing(body: Body) -> AxumBody {
    let mut pieces = match body {
        Body::Full(bytes) => return AxumBody::from(bytes),
        Body::Live(pieces) => pieces,
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    spawn_local(async move {
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = sender.closed() => None,
            };
            let Some(piece) = piece else { break };
            if sender.send(piece.map(Bytes::from)).await.is_err() {
                break;
            }
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    AxumBody::from_stream(pieces)
}

/// Wakes the streams when they want to be.
async fn ring<S: Store>(streams: Streams<S, Native>, native: Native) {
    loop {
        let failed = streams.wake().await.err().map(|error| {
            native.report("what is due could not be done", &error);
            native.now().plus_millis(i64::try_from(AFTER_FAULT.as_millis()).unwrap_or(i64::MAX))
        });
        // An alarm that is set anew is waited for: who sets it has done what is due. To wake for
        // it would set it again, and leave no time to the tasks that it is set for.
        loop {
            let changed = native.alarm.changed.notified();
            let Some(at) = failed.or_else(|| native.alarm.at.get()) else {
                changed.await;
                continue;
            };
            let millis = at.as_millis().saturating_sub(native.now().as_millis()).max(0);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(millis.unsigned_abs())) => break,
                () = changed => {}
            }
        }
    }
}

/// The platform of a native server: tokio, the system's clock and randomness, reqwest.
#[derive(Clone, Debug, Default)]
struct Native {
    alarm: Rc<Alarm>,
    clients: Rc<[OnceCell<reqwest::Client>; 2]>,
}

#[derive(Debug, Default)]
struct Alarm {
    at: Cell<Option<Timestamp>>,
    changed: Notify,
}

impl Platform for Native {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn random(&self) -> Result<[u8; 32]> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        Ok(bytes)
    }

    fn sleep(&self, time: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        spawn_local(task);
    }

    fn wake_at(&self, at: Option<Timestamp>) {
        if self.alarm.at.replace(at) != at {
            self.alarm.changed.notify_one();
        }
    }

    fn report(&self, what: &str, error: &Error) {
        tracing::error!(%error, "{what}");
    }

    fn post(&self, post: Post) -> LocalBoxFuture<'static, Result<(u16, Vec<u8>)>> {
        let client = client(&self.clients, post.local);
        Box::pin(async move {
            let failed = |e: reqwest::Error| Error::new(Code::Closed, e.to_string());
            let mut request = client?.post(&post.url).header("content-type", "application/json");
            for (name, text) in &post.headers {
                request = request.header(name, text);
            }
            let response = request.body(post.body).send().await.map_err(failed)?;
            let status = response.status().as_u16();
            let (mut body, mut pieces) = (Vec::new(), response.bytes_stream());
            while body.len() < Post::ANSWER_BYTES
                && let Some(piece) = pieces.next().await
            {
                body.extend_from_slice(&piece.map_err(failed)?);
            }
            Ok((status, body))
        })
    }
}

fn client(clients: &[OnceCell<reqwest::Client>; 2], local: bool) -> Result<reqwest::Client> {
    let [public, own] = clients;
    let kept = if local { own } else { public };
    if let Some(client) = kept.get() {
        return Ok(client.clone());
    }
    let fault = |e: &dyn std::fmt::Display| Error::new(Code::Internal, e.to_string());
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Post::TIMEOUT);
    if !local {
        builder = builder.dns_resolver(Arc::new(Public));
    }
    let client = builder.build().map_err(|e| fault(&e))?;
    Ok(kept.get_or_init(|| client).clone())
}

/// Resolves names to public addresses only: a name may point into the own network.
struct Public;

impl reqwest::dns::Resolve for Public {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let all = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = all
                .filter(|address: &SocketAddr| {
                    super::subscription::webhook::is_public(address.ip())
                })
                .collect();
            if public.is_empty() {
                return Err("the name has no public address".into());
            }
            Ok(Box::new(public.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
