//! What a room does at a time: scheduled by hooks, done when the alarm rings.

use super::alarm::retry_after;
use super::{Caller, Machine};
use crate::job::{Job, Repeat};
use crate::sql::Sql;
use crate::{Code, Error, Result, Room, SyncServer, Timestamp, store};

/// So many are done in a turn: what else is due comes with the next.
const IN_A_TURN: u32 = 100;
/// The longest name of a job, bytes.
const NAME: usize = 512;
/// The longest payload, bytes: what SQLite has a row for in a Durable Object.
const PAYLOAD: usize = 1 << 20;

impl<S: SyncServer> Machine<S> {
    /// Does what is due, each in a transaction of its own.
    pub(super) fn run_jobs(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        // Until the turn's end nothing else asks for the next.
        self.jobs_changed = true;
        for job in store::jobs(sql, self.meta.now, IN_A_TURN)? {
            self.run_job(server, sql, &job)?;
        }
        Ok(())
    }

    fn run_job(&mut self, server: &S, sql: &dyn Sql, job: &Job) -> Result<()> {
        // One before it in the turn may have cancelled it, or put it off.
        if store::job(sql, &job.name)?.as_ref() != Some(job) {
            return Ok(());
        }
        let now = self.meta.now;
        let done = self.hook(server, sql, Caller::Room, |room| {
            // First: the hook may schedule it again.
            if !crate::__mutated("job") {
                settle(room.sql, job, now)?;
            }
            server.on_job(room, job)
        })?;
        if let Err(error) = done {
            let wait = retry_after(job.attempts);
            let (at, attempts) = (now.plus_millis(wait), job.attempts.saturating_add(1));
            store::put_job(sql, &Job { at, attempts, ..job.clone() })?;
            let error = error.context(format_args!("it is done again in {wait} ms"));
            self.fault(format!("the job `{}`", job.name), error);
        }
        Ok(())
    }
}

/// A job is done: it is forgotten, or done again.
fn settle(sql: &dyn Sql, job: &Job, now: Timestamp) -> Result<()> {
    match &job.repeat {
        None => store::remove_job(sql, &job.name),
        Some(repeat) => {
            let next = repeat.next(job.due, now)?;
            store::put_job(sql, &Job { due: next, at: next, attempts: 0, ..job.clone() })
        }
    }
}

impl<S> Room<'_, S> {
    /// Has [`SyncServer::on_job`] called at this time, also if the room was asleep: a reminder, a
    /// deadline, something to be tried later. There may be any number of jobs, each with a name of
    /// its own: one that is scheduled again is in place of the one before.
    ///
    /// It is kept with what the hook writes, and so it is not there if the hook fails. When it is done
    /// it is forgotten with what [`on_job`](SyncServer::on_job) writes: what it does to the room
    /// happens once.
    ///
    /// ```
    /// use partysync::{Action, Job, Record, Result, Room, SyncServer, Timestamp, params};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Record, Clone, Debug, PartialEq)]
    /// #[record(table = "notes")]
    /// struct Note {
    ///     #[record(key)]
    ///     id: String,
    ///     until: Timestamp,
    /// }
    ///
    /// #[derive(Action, Clone, Debug)]
    /// #[action(record = Note)]
    /// enum NoteAction {
    ///     #[action(insert)]
    ///     Pin { id: String, until: Timestamp },
    ///     #[action(delete)]
    ///     Remove { id: String },
    /// }
    ///
    /// /// What the room does at a time.
    /// #[derive(Serialize, Deserialize)]
    /// enum Task {
    ///     TakeDown { id: String },
    /// }
    ///
    /// struct Notes;
    ///
    /// impl SyncServer for Notes {
    ///     type Action = NoteAction;
    ///
    ///     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    ///         match &action {
    ///             NoteAction::Pin { id, until } => {
    ///                 let task = Task::TakeDown { id: id.clone() };
    ///                 room.schedule(*until, &format!("take down {id}"), &task)?;
    ///             }
    ///             NoteAction::Remove { id } => {
    ///                 room.cancel(&format!("take down {id}"))?;
    ///             }
    ///         }
    ///         action.apply(room.sql())
    ///     }
    ///
    ///     fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
    ///         match job.payload()? {
    ///             Task::TakeDown { id } => {
    ///                 room.sql().execute("DELETE FROM notes WHERE id = ?", params![id]).map(drop)
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// let until = room.now().plus_millis(60_000);
    /// room.act(NoteAction::Pin { id: "a".into(), until })?;
    /// room.run_for(59_999)?;
    /// assert_eq!(room.rows::<Note>()?.len(), 1);
    /// room.run_for(1)?;
    /// assert_eq!(room.rows::<Note>()?, []);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the name is empty or longer than 512 bytes, or the payload has no
    /// JSON form, or one of more than 1 MiB.
    pub fn schedule<T: serde::Serialize + ?Sized>(
        &mut self,
        at: Timestamp,
        name: &str,
        payload: &T,
    ) -> Result<()> {
        self.put(job(at, name, payload)?)
    }

    /// Has [`SyncServer::on_job`] called again and again, first at the next of these times. If a job of
    /// this name is repeated so already, its next time stays: call it in
    /// [`on_start`](SyncServer::on_start). What was slept through is done once.
    ///
    /// # Errors
    /// As for [`schedule`](Self::schedule), and when there is no such time.
    pub fn repeat<T: serde::Serialize + ?Sized>(
        &mut self,
        repeat: &Repeat,
        name: &str,
        payload: &T,
    ) -> Result<()> {
        let first = repeat.next(self.now, self.now)?;
        let mut wanted = Job { repeat: Some(repeat.clone()), ..job(first, name, payload)? };
        if let Some(known) = self.job(name)?.filter(|known| known.repeat == wanted.repeat) {
            (wanted.due, wanted.at, wanted.attempts) = (known.due, known.at, known.attempts);
            if known == wanted {
                return Ok(());
            }
        }
        self.put(wanted)
    }

    fn put(&mut self, job: Job) -> Result<()> {
        if !self.has_jobs && !self.output.jobs {
            store::make_jobs(self.sql)?;
        }
        self.output.jobs = true;
        store::put_job(self.sql, &job)
    }

    /// Takes a job back; whether there was one.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn cancel(&mut self, name: &str) -> Result<bool> {
        let known = self.job(name)?.is_some();
        if known {
            self.output.jobs = true;
            store::remove_job(self.sql, name)?;
        }
        Ok(known)
    }

    /// The job of this name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn job(&self, name: &str) -> Result<Option<Job>> {
        if self.has_jobs || self.output.jobs { store::job(self.sql, name) } else { Ok(None) }
    }

    /// All jobs, by their time.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let ever = Timestamp::from_millis(i64::MAX);
        match self.has_jobs || self.output.jobs {
            true => store::jobs(self.sql, ever, u32::MAX),
            false => Ok(Vec::new()),
        }
    }
}

fn job<T: serde::Serialize + ?Sized>(at: Timestamp, name: &str, payload: &T) -> Result<Job> {
    let invalid = |message: String| Error::new(Code::InvalidValue, message);
    if name.is_empty() || name.len() > NAME {
        let message = format!("the name of a job has 1 to {NAME} bytes, not {}", name.len());
        return Err(invalid(message));
    }
    let payload = serde_json::to_string(payload)
        .map_err(|error| invalid(format!("the payload of the job `{name}`: {error}")))?;
    if payload.len() > PAYLOAD {
        let message = format!(
            "the payload of the job `{name}` has {} bytes, and {PAYLOAD} are possible",
            payload.len()
        );
        return Err(invalid(message));
    }
    Ok(Job { name: name.to_owned(), due: at, at, attempts: 0, payload, repeat: None })
}
