//! The jobs of a room. Their table is made when the first is scheduled: a room without any pays
//! nothing for them.

use crate::job::{Job, Repeat};
use crate::sql::{Row, Sql};
use crate::{Result, Timestamp, params};

pub(super) const TABLE: &str = "_partysync_job";

const COLUMNS: &str = "name, due, at, attempts, payload, repeat";

fn read(row: &Row<'_>) -> Result<Job> {
    let repeat = row.get::<Option<String>>(5)?;
    Ok(Job {
        name: row.get(0)?,
        due: row.get(1)?,
        at: row.get(2)?,
        attempts: row.get(3)?,
        payload: row.get(4)?,
        repeat: repeat.as_deref().map(Repeat::read).transpose()?,
    })
}

/// Whether the table is there.
pub(crate) fn has_jobs(sql: &dyn Sql) -> Result<bool> {
    let known = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)";
    sql.query_one(known, params![TABLE], |row| row.get(0))
}

/// Makes the table, unless it is there.
pub(crate) fn make_jobs(sql: &dyn Sql) -> Result<()> {
    sql.exec(
        "CREATE TABLE IF NOT EXISTS _partysync_job (
            name TEXT NOT NULL PRIMARY KEY, due INTEGER NOT NULL, at INTEGER NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0, payload TEXT NOT NULL, repeat TEXT)
            STRICT, WITHOUT ROWID",
        &[],
    )?;
    sql.exec("CREATE INDEX IF NOT EXISTS _partysync_job_at ON _partysync_job (at)", &[])
}

/// Keeps a job in place of one of its name.
pub(crate) fn put_job(sql: &dyn Sql, job: &Job) -> Result<()> {
    let Job { name, due, at, attempts, payload, repeat } = job;
    let put = format!("INSERT OR REPLACE INTO {TABLE} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)");
    let repeat = repeat.as_ref().map(Repeat::to_string);
    sql.exec(&put, &params![&**name, *due, *at, *attempts, &**payload, repeat])
}

/// Forgets the job of this name.
pub(crate) fn remove_job(sql: &dyn Sql, name: &str) -> Result<()> {
    sql.exec("DELETE FROM _partysync_job WHERE name = ?", &params![name])
}

/// The job of this name.
pub(crate) fn job(sql: &dyn Sql, name: &str) -> Result<Option<Job>> {
    let find = format!("SELECT {COLUMNS} FROM {TABLE} WHERE name = ?");
    sql.query_opt(&find, params![name], read)
}

/// The jobs that run by `until`, by their time: so many at most.
pub(crate) fn jobs(sql: &dyn Sql, until: Timestamp, most: u32) -> Result<Vec<Job>> {
    let due = format!("SELECT {COLUMNS} FROM {TABLE} WHERE at <= ? ORDER BY at, name LIMIT ?");
    sql.query_map(&due, params![until, most], read)
}

/// All jobs, by their time.
pub(crate) fn all_jobs(sql: &dyn Sql) -> Result<Vec<Job>> {
    jobs(sql, Timestamp::from_millis(i64::MAX), u32::MAX)
}

/// When the next job runs.
pub(crate) fn next_job(sql: &dyn Sql) -> Result<Option<Timestamp>> {
    sql.query_one("SELECT min(at) FROM _partysync_job", [], |row| row.get(0))
}
