//! Writing behind the work: while one run of bytes is written, the next is made.

use bytes::Bytes;
use std::io::{Error, ErrorKind, Result, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Runs that wait to be written at most.
const AHEAD: usize = 2;

/// Bytes of a run at most, as long as it can be cut there.
pub const RUN: usize = 2 << 20;

enum Chunk {
    /// Made here; its buffer comes back.
    Own(Vec<u8>),
    /// A slice of what is there anyway.
    Shared(Bytes),
}

/// Where bytes go, in order.
pub struct Stream {
    to: SyncSender<Chunk>,
    spent: Receiver<Vec<u8>>,
}

impl Stream {
    /// A buffer to fill: an empty one, or one that was written before, with what it held.
    pub fn buffer(&self) -> Vec<u8> {
        self.spent.try_recv().unwrap_or_default()
    }

    /// Writes a buffer.
    ///
    /// # Errors
    /// That the writer has stopped; why, [`behind`] says.
    pub fn own(&self, buffer: Vec<u8>) -> Result<()> {
        self.send(Chunk::Own(buffer))
    }

    /// Writes bytes that are stored elsewhere.
    ///
    /// # Errors
    /// As [`Stream::own`].
    pub fn shared(&self, bytes: Bytes) -> Result<()> {
        self.send(Chunk::Shared(bytes))
    }

    fn send(&self, chunk: Chunk) -> Result<()> {
        self.to.send(chunk).map_err(|_| ErrorKind::BrokenPipe.into())
    }
}

/// Does `work` here and writes what it streams on a thread of its own. Memory: three runs and one in the making.
///
/// # Errors
/// What the writer says, else what `work` says.
pub fn behind<R>(out: &mut (dyn Write + Send), work: impl FnOnce(&Stream) -> Result<R>) -> Result<R> {
    let (to, chunks) = sync_channel::<Chunk>(AHEAD);
    let (back, spent) = sync_channel::<Vec<u8>>(AHEAD + 2);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<()> {
            for chunk in chunks {
                match chunk {
                    Chunk::Own(buffer) => {
                        out.write_all(&buffer)?;
                        // A buffer that nobody waits for any more is freed.
                        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = back.try_send(buffer) {}
                    }
                    Chunk::Shared(bytes) => out.write_all(&bytes)?,
                }
            }
            Ok(())
        });
        let stream = Stream { to, spent };
        let made = work(&stream);
        drop(stream);
        let written = writer.join().unwrap_or_else(|_| Err(Error::other("the writer panicked")));
        written.and(made)
    })
}
