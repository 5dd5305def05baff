//! What two hosts of a network in memory are joined by.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// The line between two hosts.
#[derive(Default)]
pub(super) struct Wire(Mutex<State>);

#[derive(Default)]
struct State {
    condition: Condition,
    /// How often the line was cut. A connection is broken once this has changed since it was made.
    cuts: u64,
    ends: u64,
    /// Who waits, by end and half: whoever changes the condition wakes all.
    waiting: HashMap<(u64, Half), Waker>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Condition {
    #[default]
    Up,
    Silent,
    Cut,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Half {
    Read,
    Write,
}

impl Wire {
    pub(super) fn cut(&self) {
        self.change(Condition::Cut);
    }

    pub(super) fn silence(&self) {
        self.change(Condition::Silent);
    }

    pub(super) fn heal(&self) {
        self.change(Condition::Up);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state().condition == Condition::Cut
    }

    pub(super) fn is_silent(&self) -> bool {
        self.state().condition == Condition::Silent
    }

    fn change(&self, condition: Condition) {
        let mut state = self.state();
        state.condition = condition;
        state.cuts += u64::from(condition == Condition::Cut);
        state.waiting.drain().for_each(|(_, waker)| waker.wake());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection.
pub(super) struct WireEnd {
    wire: Arc<Wire>,
    line: DuplexStream,
    end: u64,
    cuts: u64,
}

impl WireEnd {
    pub(super) fn new(wire: Arc<Wire>, line: DuplexStream) -> Self {
        let mut state = wire.state();
        state.ends += 1;
        let (end, cuts) = (state.ends, state.cuts);
        drop(state);
        WireEnd { wire, line, end, cuts }
    }

    /// Whether bytes get through. Registers for the next change.
    fn poll_up(&self, half: Half, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.wire.state();
        if state.cuts != self.cuts {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        state.waiting.insert((self.end, half), cx.waker().clone());
        // A kernel takes what is written to a silent line, until its buffers are full.
        if state.condition == Condition::Silent && half == Half::Read {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for WireEnd {
    fn drop(&mut self) {
        let mut state = self.wire.state();
        state.waiting.retain(|&(end, _), _| end != self.end);
    }
}

impl AsyncRead for WireEnd {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_up(Half::Read, cx))?;
        Pin::new(&mut self.line).poll_read(cx, buf)
    }
}

impl AsyncWrite for WireEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_up(Half::Write, cx))?;
        match Pin::new(&mut self.line).poll_write(cx, buf) {
            // That the other end is gone is not to be learned over a silent line: the kernel keeps what is written.
            Poll::Ready(Err(_)) if self.wire.is_silent() => Poll::Ready(Ok(buf.len())),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_up(Half::Write, cx))?;
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}
