//! Ends of the connections of commands that only look.
use crate::{
    net::FiveTuple,
    report::Error,
    runtime::Engine,
    stack::{Flow, Phase, Stack},
};
use std::time::Duration;

/// Time for a peer to close after netkat's FIN, before it is reset.
const LINGER: Duration = Duration::from_millis(500);

/// Closes a connection by a FIN, since services may log a reset as an error; resets it where the peer does not close in
/// turn.
pub(super) fn close(engine: &mut Engine, tuple: &FiveTuple) -> Result<(), Error> {
    if engine.stack.peek(tuple).is_none_or(|flow| flow.phase() != Phase::Open) {
        return Ok(());
    }
    engine.stack.flow(tuple).map(Flow::close);
    let until = Some(engine.reactor.now() + LINGER);
    let closed =
        |stack: &mut Stack| stack.peek(tuple).is_none_or(|flow| flow.phase() == Phase::Closed).then_some(());
    engine.run_until(until, closed)?;
    engine.stack.flow(tuple).map(Flow::abort);
    Ok(engine.egress(engine.reactor.now()).map(drop)?)
}

/// Resets a connection whose run has failed, by a signal among others.
pub(super) fn reset_on_error<T>(
    engine: &mut Engine,
    tuple: &FiveTuple,
    result: Result<T, Error>,
) -> Result<T, Error> {
    if result.is_err() && engine.stack.flow(tuple).map(Flow::abort).is_some() {
        let now = engine.reactor.now();
        // The first error counts.
        let _ = engine.egress(now);
    }
    result
}
