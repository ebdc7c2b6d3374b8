//! What a room does at a time: scheduled by hooks, done when the alarm rings.

use super::alarm::retry_after;
use super::{Caller, Machine};
use crate::job::{FURTHEST, Job, Repeat};
use crate::sql::Sql;
use crate::{Code, Error, Result, Room, SyncServer, Timestamp, store};

/// So many are done in a turn: what else is due comes with the next.
const IN_A_TURN: u32 = 100;
/// The longest name of a job, bytes.
const NAME: usize = 512;
/// The longest payload, bytes: all that are done in a turn are in memory at once.
const PAYLOAD: usize = 1 << 16;

impl<S: SyncServer> Machine<S> {
    /// Does what is due, each in a transaction of its own.
    pub(super) fn run_jobs(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        // Until the turn's end nothing else asks for the next.
        self.jobs_changed = true;
        let most = if self.careful { 1 } else { IN_A_TURN };
        for job in store::jobs(sql, self.meta.now, most)? {
            self.run_job(server, sql, &job)?;
        }
        Ok(())
    }

    /// The turn in which the alarm rang was lost: maybe by the first job that is due. It counts as one
    /// that has failed, and the others are done one by one, so that the next of its kind is the first.
    pub(super) fn put_off_lost(&mut self, sql: &dyn Sql) -> Result<()> {
        let due = self.meta.job_at.is_some_and(|at| at <= self.meta.now);
        // What is done before jobs was lost, if it is due.
        if !due || self.meta.alarm_at.is_some_and(|at| at <= self.meta.now) {
            return Ok(());
        }
        for job in &store::jobs(sql, self.meta.now, 1)? {
            let message = "the turn in which it was to be done was lost: it has panicked, or taken \
                           too long, or the process has ended";
            self.try_again(sql, job, Error::new(Code::Internal, message))?;
        }
        self.careful = true;
        self.meta.job_at = store::next_job(sql)?;
        self.jobs_changed = true;
        Ok(())
    }

    /// Has a job that has failed done again, later each time.
    fn try_again(&mut self, sql: &dyn Sql, job: &Job, error: Error) -> Result<()> {
        let wait = retry_after(job.attempts);
        let at = self.meta.now.plus_millis(wait).min(FURTHEST);
        let attempts = job.attempts.saturating_add(1);
        store::put_job(sql, &Job { at, attempts, ..job.clone() })?;
        let error = error.context(format_args!("it is done again in {wait} ms"));
        self.fault(format!("the job `{}`", job.name), error);
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
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.try_again(sql, job, error),
        }
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
    /// [`Code::InvalidValue`] when the time is after the year 2200, the name is empty or longer than 512
    /// bytes, or the payload has no JSON form, or one of more than 64 KiB.
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
        // What the hook has taken back of it itself is made again.
        if !self.has_jobs {
            store::make_jobs(self.sql)?;
        }
        self.output.jobs = true;
        store::put_job(self.sql, &job)
    }

    fn has_jobs(&self) -> Result<bool> {
        Ok(self.has_jobs || self.output.jobs && store::has_jobs(self.sql)?)
    }

    /// In [`on_job`](SyncServer::on_job): has the same job done once more at this time, also if the hook
    /// succeeds. It counts as one that has failed ([`Job::attempts`]), keeps its
    /// [`due`](Job::due) time, and is [finished](Self::finish) by what it has begun. Returns the job as it
    /// is then. See [`spawn`](Self::spawn).
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the time is after the year 2200.
    pub fn put_off(&mut self, job: &Job, at: Timestamp) -> Result<Job> {
        let attempts = job.attempts.saturating_add(1);
        let job = Job { at: bounded(at)?, attempts, ..job.clone() };
        self.put(job.clone())?;
        Ok(job)
    }

    /// A job that was [put off](Self::put_off) is done: it is forgotten, or if it is repeated done at its
    /// next time. Whether it was still that one: one of its name that was scheduled meanwhile, or put off
    /// again, stays.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn finish(&mut self, job: &Job) -> Result<bool> {
        let is_it = self.job(&job.name)?.as_ref() == Some(job);
        if is_it {
            self.output.jobs = true;
            settle(self.sql, job, self.now)?;
        }
        Ok(is_it)
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
        if self.has_jobs()? { store::job(self.sql, name) } else { Ok(None) }
    }

    /// All jobs, by their time.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        if self.has_jobs()? { store::all_jobs(self.sql) } else { Ok(Vec::new()) }
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
    let at = bounded(at)?;
    Ok(Job { name: name.to_owned(), due: at, at, attempts: 0, payload, repeat: None })
}

/// A time that an alarm can be set to; one that is past is now.
fn bounded(at: Timestamp) -> Result<Timestamp> {
    if at > FURTHEST {
        let message =
            format!("{} ms is after the year 2200: no alarm is set to it", at.as_millis());
        return Err(Error::new(Code::InvalidValue, message));
    }
    Ok(at.max(Timestamp::from_millis(0)))
}
