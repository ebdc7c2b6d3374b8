//! The tests' own worker: every hook, and a room that can be looked into.

mod livestore;

use lab_shared::{ItemAction, LabAction};
use partysync::streams::{MemoryStore, Options};
use partysync::worker::{LiveStore, Router};
use partysync::{
    Action, Code, Connection, Error, Handle, Job, Limits, Presence, Result, Room, SyncServer,
    params,
};
use serde_json::{Value as Json, json};
use std::cell::Cell;
use std::time::Duration;
use worker::{Context, Delay, Env, Request, Response, event};

/// A room that notes what its hooks see.
#[derive(Debug)]
pub struct Lab {
    /// Made by the constructor: another one means that the object was rebuilt.
    instance: String,
    commits: Cell<u32>,
    /// Unless the variable `HISTORY` is `no`.
    history: bool,
}

impl Lab {
    fn new(env: &Env) -> Self {
        let without = env.var("HISTORY").is_ok_and(|history| history.to_string() == "no");
        let instance = format!("{}", js_sys::Math::random());
        Self { instance, commits: Cell::new(0), history: !without }
    }
}

/// Bytes of memory that the isolate's wasm has: it grows, and never shrinks.
#[cfg(target_arch = "wasm32")]
fn memory() -> usize {
    core::arch::wasm32::memory_size(0) * 65_536
}

#[cfg(not(target_arch = "wasm32"))]
fn memory() -> usize {
    0
}

fn note(room: &Room<'_, Lab>, what: &str) -> Result<()> {
    let sql = "INSERT INTO lab_log (what) VALUES (?)";
    room.sql().execute(sql, params![what.to_owned()]).map(drop)
}

/// Writes a note behind the others.
fn append(room: &Room<'_, Lab>, text: &str) -> Result<()> {
    let sql = "INSERT INTO notes (number, text) SELECT coalesce(max(number), 0) + 1, ? FROM notes";
    room.sql().execute(sql, params![text]).map(drop)
}

/// What others do while this waits, they do.
async fn wait_and_append(room: Handle<Lab>, millis: u64, text: String) -> Result<()> {
    Delay::from(Duration::from_millis(millis)).await;
    room.run(move |room| append(room, &text)).await
}

impl SyncServer for Lab {
    type Action = LabAction;

    fn limits(&self) -> Limits {
        Limits {
            frame_bytes: 256 * 1024,
            pending_bytes: 1024 * 1024,
            // Longer than a room stays awake for.
            silent_ms: 20_000,
            ..Limits::default()
        }
    }

    fn keeps_history(&self) -> bool {
        self.history
    }

    fn may_read_history(&self, request: &http::Request<()>) -> Result<()> {
        if request.uri().query().is_some_and(|query| query.contains("history=no")) {
            return Err(Error::new(Code::Forbidden, "not this one"));
        }
        Ok(())
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        room.sql().execute("CREATE TABLE IF NOT EXISTS lab_log (what TEXT)", params![]).map(drop)
    }

    fn on_connect(
        &self,
        _: &mut Room<'_, Self>,
        connection: &mut Connection,
        request: &http::Request<()>,
    ) -> Result<()> {
        let query = request.uri().query().unwrap_or_default();
        if query.contains("refuse=me") {
            return Err(Error::reject("not you"));
        }
        connection.set_state(&query)?;
        connection.add_tag(if query.contains("vip") { "vip" } else { "guest" });
        Ok(())
    }

    fn presence(&self, room: &mut Room<'_, Self>, _topic: &str) -> Result<Presence> {
        let query = room.sender().map(Connection::state::<String>).transpose()?.flatten();
        match query {
            Some(query) if query.contains("hidden") => Ok(Presence::hidden()),
            query => Presence::shown_as(&query),
        }
    }

    fn on_close(&self, room: &mut Room<'_, Self>, connection: &Connection) -> Result<()> {
        note(room, &format!("close {}", connection.id()))
    }

    fn on_message(&self, room: &mut Room<'_, Self>, message: Json) -> Result<()> {
        if message == json!("to vips") {
            let vips: Vec<_> =
                room.connections_with_tag("vip").map(|c| c.id().to_owned()).collect();
            return vips.iter().try_for_each(|id| room.send(id, &"hello vip"));
        }
        if let Some(after) = message.get("alarm_after_ms").and_then(Json::as_i64) {
            room.set_alarm(room.now().plus_millis(after));
            return Ok(());
        }
        if let Some(after) = message.get("job_after_ms").and_then(Json::as_i64) {
            let name = message.get("name").and_then(Json::as_str).unwrap_or("job");
            return room.schedule(room.now().plus_millis(after), name, &message);
        }
        if let Some(after) = message.get("begun_after_ms").and_then(Json::as_u64) {
            let begun = wait_and_append(room.handle(), after, "begun".to_owned());
            room.spawn(async move {
                if let Err(error) = begun.await {
                    worker::console_error!("not written: {error}");
                }
            });
            return Ok(());
        }
        let from = room.sender().map(|sender| sender.id().to_owned());
        let who = room.identity::<Json>()?;
        room.broadcast(&json!({ "from": from, "message": message, "who": who }))
    }

    fn on_alarm(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let sql = "INSERT INTO notes (number, text) VALUES (?, 'by the alarm')";
        room.sql().execute(sql, params![room.now()]).map(drop)
    }

    fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
        let message: Json = job.payload()?;
        if message.get("traps").is_some() {
            std::process::abort();
        }
        if message
            .get("fails")
            .and_then(Json::as_u64)
            .is_some_and(|n| u64::from(job.attempts()) < n)
        {
            return Err(Error::retry("not yet"));
        }
        append(room, job.name())
    }

    async fn before_action(
        &self,
        room: &Handle<Self>,
        _: &Connection,
        action: &LabAction,
    ) -> Result<()> {
        let LabAction::Notes(lab_shared::NoteAction::Write { text, .. }) = action else {
            return Ok(());
        };
        if let Some(wait) = text.strip_prefix("wait ").and_then(|ms| ms.parse().ok()) {
            Delay::from(Duration::from_millis(wait)).await;
        }
        if text == "asks" {
            wait_and_append(room.clone(), 1, "asked".to_owned()).await?;
        }
        if text == "forbidden" {
            return Err(Error::new(Code::Forbidden, "another service says no"));
        }
        Ok(())
    }

    async fn after_commit(&self, _: &Handle<Self>, _: &Connection, action: LabAction) {
        if let LabAction::Notes(lab_shared::NoteAction::Write { text, .. }) = &action
            && text == "count later"
        {
            Delay::from(Duration::from_millis(1)).await;
        }
        self.commits.set(self.commits.get() + 1);
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: LabAction) -> Result<()> {
        let insert = "INSERT INTO items (id, name) VALUES (?, ?)";
        match &action {
            LabAction::Items(ItemAction::FailHalfway { id }) => {
                room.sql().execute(insert, params![id.clone(), "half".to_owned()])?;
                room.broadcast(&"never sent")?;
                Err(Error::reject("failed halfway"))
            }
            LabAction::Items(ItemAction::Trap { id }) => {
                room.sql().execute(insert, params![id.clone(), "trapped".to_owned()])?;
                room.set_alarm(room.now().plus_millis(1));
                let disarmed = "SELECT EXISTS (SELECT 1 FROM lab_log WHERE what = 'no traps')";
                if room.sql().query_one(disarmed, [], |row| row.get(0))? {
                    return Ok(());
                }
                std::process::abort()
            }
            LabAction::Items(ItemAction::Fill { count, size }) => {
                let name = "x".repeat(usize::try_from(*size).unwrap_or(0));
                for n in 0..*count {
                    room.sql()
                        .execute(insert, params![format!("fill-{n:06}"), format!("{name}{n}")])?;
                }
                Ok(())
            }
            LabAction::Items(ItemAction::TouchNotes { up_to }) => {
                let touch = "UPDATE notes SET text = text || '!' WHERE number <= ?";
                room.sql().execute(touch, params![*up_to]).map(drop)
            }
            LabAction::Notes(lab_shared::NoteAction::Write { number, text })
                if text == "answer" =>
            {
                room.answer(&json!({ "number": number, "instance": self.instance }))?;
                action.apply(room.sql())
            }
            _ => action.apply(room.sql()),
        }
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        if request.method() == http::Method::PUT {
            let wait = String::from_utf8_lossy(request.body()).parse().unwrap_or_default();
            wait_and_append(room.clone(), wait, "requested".to_owned()).await?;
            return Ok(http::Response::default());
        }
        let (instance, commits) = (self.instance.clone(), self.commits.get());
        room.run(move |room| {
            // A POST is SQL to be run: whatever it changes has to reach every client.
            if request.method() == http::Method::POST {
                let sql = String::from_utf8_lossy(request.body()).into_owned();
                let changed = room.sql().execute(&sql, params![])?;
                return Ok(http::Response::new(changed.to_string().into_bytes()));
            }
            let log =
                room.sql().query_map("SELECT what FROM lab_log", [], |row| row.get::<String>(0))?;
            let connections: Vec<_> = room
                .connections()
                .map(|c| {
                    let (state, who) = (c.state::<String>().ok(), c.identity::<Json>().ok());
                    json!({ "id": c.id(), "tags": c.tags(), "state": state, "who": who })
                })
                .collect();
            let body = json!({
                "instance": instance,
                "name": room.name(),
                "who": room.identity::<Json>()?,
                "version": room.version(),
                "commits": commits,
                "memory": memory(),
                "connections": connections,
                "log": log,
            });
            let mut response = http::Response::new(body.to_string().into_bytes());
            response.headers_mut().insert("x-lab", http::HeaderValue::from_static("yes"));
            Ok(response)
        })
        .await
    }
}

partysync::durable_object!(Lab = |env| Lab::new(env));

partysync::stream_server!(
    LabStreams: MemoryStore = |_, _| Ok(MemoryStore::new()),
    |_| Options { root: "/guarded/streams".into(), ..Options::default() }
);

#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
    let guarded = Router::new()
        .prefix("guarded/rooms")
        .party("lab", "LAB")
        .streams("guarded/streams", "LAB_STREAMS", "all")
        .cors("https://app.example")
        .allow_origins(["https://app.example"])
        .on_before_connect(|request, _, _| Box::pin(check(request)))
        .on_before_request(|request, _, _| Box::pin(check(request)));
    if let Some(response) = guarded.try_route(request.clone()?, &env).await? {
        return Ok(response);
    }
    let known = Router::new().prefix("known").party("lab", "LAB");
    let known = known.identify(|request, _, _| Box::pin(who(request)));
    let known = known.on_error(|fault| worker::console_warn!("told of {:?}", fault.id()));
    if let Some(response) = known.try_route(request.clone()?, &env).await? {
        return Ok(response);
    }
    let open = Router::new().prefix("open").party("lab", "LAB").allow_origins(["*"]);
    if let Some(response) = open.try_route(request.clone()?, &env).await? {
        return Ok(response);
    }
    let stores = LiveStore::new("LAB_STORE").admin("open sesame");
    if let Some(response) = stores.try_route(request.clone()?, &env).await? {
        return Ok(response);
    }
    if request.path() == "/" {
        return Response::ok("lab");
    }
    let parties = [("lab", "LAB"), ("second-name", "LAB"), ("unbound", "NOT_THERE")];
    let router = parties.into_iter().fold(Router::new(), |all, (party, to)| all.party(party, to));
    router.cors("*").route(request, &env).await
}

/// Whoever the address says.
async fn who(request: &Request) -> Result<Json> {
    let url = request.url()?;
    let user = url.query_pairs().find(|(name, _)| name == "user").map(|(_, user)| user);
    match user.as_deref() {
        Some("unknown") => Err(Error::new(Code::Internal, "the sessions do not answer")),
        Some("nobody") => Err(Error::new(Code::Forbidden, "nobody may come in")),
        Some(user) => Ok(json!({ "name": user, "number": u64::MAX })),
        None => Err(Error::new(Code::Unauthorized, "who are you?")),
    }
}

async fn check(request: &Request) -> Result<()> {
    let url = request.url()?;
    let token = url.query_pairs().find(|(name, _)| name == "token").map(|(_, token)| token);
    match token.as_deref() {
        Some("good") => Ok(()),
        Some(_) => Err(Error::new(Code::Forbidden, "the token is not valid")),
        None => Err(Error::new(Code::Unauthorized, "a token is needed")),
    }
}
