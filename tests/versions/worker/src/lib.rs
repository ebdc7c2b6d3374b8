//! The rooms of an application in two versions, each a class of its own: `before.mjs` and `now.mjs`
//! deploy one of them under the same name.

use partysync::worker::Router;
use partysync::{
    Action, Error, Handle, Key, Migrated, Migration, Result, Room, SyncServer, params, sql::Sql,
};
use versions_shared::{before, now};
use worker::{Context, Env, Request, Response, event};

/// As it was.
#[derive(Debug, Default)]
pub struct BoardBefore;

impl SyncServer for BoardBefore {
    type Action = before::BoardAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: before::BoardAction) -> Result<()> {
        action.apply(room.sql())
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| run(room.sql(), &request)).await
    }
}

/// As it is now.
#[derive(Debug)]
pub struct BoardNow {
    /// The card whose migration fails.
    odd: Option<String>,
}

impl SyncServer for BoardNow {
    type Action = now::BoardAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: now::BoardAction) -> Result<()> {
        action.apply(room.sql())
    }

    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        let sql = room.sql();
        match (step.table(), step.to()) {
            ("cards", 2) => step.each(sql, 100, |id| {
                if self.odd.as_deref() == Some(&*id.to_string()) {
                    return Err(Error::reject("this card is odd"));
                }
                add_colors(sql, id)
            }),
            _ => Err(step.unknown()),
        }
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| run(room.sql(), &request)).await
    }
}

fn add_colors(sql: &dyn Sql, id: &Key) -> Result<()> {
    let add = "UPDATE cards SET labels = (SELECT json_group_array(
        json_object('name', value, 'color', 'grey')) FROM json_each(labels)) WHERE id = ?";
    sql.exec(add, &params![id])
}

/// What is posted to a room is SQL.
fn run(sql: &dyn Sql, request: &http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>> {
    let changed = sql.execute(&String::from_utf8_lossy(request.body()), params![])?;
    Ok(http::Response::new(changed.to_string().into_bytes()))
}

partysync::durable_object!(BoardBefore);
partysync::durable_object!(
    BoardNow = |env| BoardNow { odd: env.var("ODD").ok().map(|odd| odd.to_string()) }
);

#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
    Router::new().party("board", "BOARD").route(request, &env).await
}
