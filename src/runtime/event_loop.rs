//! The event loop: frames in, the task's turn, frames out, and a wait when nothing moved.
use super::{Engine, Error, reactor::BUSY_TURNS};
use crate::{
    stack::{ReceivedData, Stack},
    stdio::Interest,
};
use std::time::Duration;

/// The result of a task's turn.
#[derive(Debug)]
pub(crate) enum Turn<T> {
    /// Nothing moved.
    Idle,
    /// Something moved, and more may move at once.
    Busy,
    /// The task is complete.
    Done(T),
}

impl<T> Turn<T> {
    /// Returns busy or idle.
    pub(crate) fn of(busy: bool) -> Turn<T> {
        if busy { Turn::Busy } else { Turn::Idle }
    }
}

/// A task for the event loop.
pub(crate) trait Task {
    /// The task's result.
    type Output;
    /// The reason why the task fails.
    type Error: From<Error>;

    /// Writes out data that has just come in order and lies in its frame, as far as that is possible without waiting.
    /// The rest is copied into the connection's buffer.
    ///
    /// # Errors
    /// The task's.
    fn deliver(&mut self, _now: Duration, _data: ReceivedData<'_>) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Returns whether to receive frames; until then they wait in the packet socket's buffer.
    fn takes_frames(&self, _stack: &Stack) -> bool {
        true
    }

    /// Moves data as far as possible without waiting.
    ///
    /// # Errors
    /// The task's.
    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<Self::Output>, Self::Error>;

    /// Adds the descriptors that a turn waits for. Returns when a turn is due even if none becomes ready.
    fn waits_for<'a>(
        &'a self,
        now: Duration,
        stack: &Stack,
        interests: &mut Vec<Interest<'a>>,
    ) -> Option<Duration>;
}

impl Engine {
    /// Runs a task until it is done. A later run of the same task continues it.
    ///
    /// # Errors
    /// The task's; [`Error::Interrupted`] for a signal that ends the run.
    pub(crate) fn run<T: Task>(&mut self, task: &mut T) -> Result<T::Output, T::Error> {
        let mut busy_turns = 0;
        loop {
            let now = self.reactor.now();
            let takes = task.takes_frames(&self.stack);
            let mut busy = takes && self.ingress(now, task)?;
            self.drained = takes && !busy;
            match task.turn(now, self)? {
                Turn::Idle => {}
                Turn::Busy => busy = true,
                Turn::Done(output) => {
                    // Sends what the last turn has produced.
                    self.egress(now)?;
                    return Ok(output);
                }
            }
            busy |= self.egress(now)?;
            busy_turns = if busy { busy_turns + 1 } else { 0 };
            if !busy || busy_turns >= BUSY_TURNS {
                let mut interests = Vec::new();
                let due = task.waits_for(now, &self.stack, &mut interests);
                let due = if busy { Some(now) } else { due };
                let frames = task.takes_frames(&self.stack);
                self.wait(&interests, due, frames)?;
                busy_turns = 0;
            }
        }
    }

    /// Runs until `done` returns an answer; `None` if `deadline` passes before.
    ///
    /// # Errors
    /// As for [`Engine::run`].
    pub(crate) fn run_until<T>(
        &mut self,
        deadline: Option<Duration>,
        done: impl FnMut(&mut Stack) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.run(&mut Until { deadline, done })
    }
}

/// A task that only looks at the stack.
struct Until<F> {
    deadline: Option<Duration>,
    done: F,
}

impl<T, F: FnMut(&mut Stack) -> Option<T>> Task for Until<F> {
    type Output = Option<T>;
    type Error = Error;

    fn turn(&mut self, now: Duration, engine: &mut Engine) -> Result<Turn<Option<T>>, Error> {
        // The answer may depend on what is about to be sent.
        let busy = engine.egress(now)?;
        let answer = (self.done)(&mut engine.stack);
        match answer.is_some() || self.deadline.is_some_and(|at| at <= now) {
            true => Ok(Turn::Done(answer)),
            false => Ok(Turn::of(busy)),
        }
    }

    fn waits_for<'a>(&'a self, _: Duration, _: &Stack, _: &mut Vec<Interest<'a>>) -> Option<Duration> {
        self.deadline
    }
}
