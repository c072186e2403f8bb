//! What parent and child say to one another over the child's standard input and output.
//!
//! A frame is two lengths (4 bytes each, little endian), a head (`postcard`) and a body (raw bytes, so
//! that inputs, outputs and machine code are never copied through an encoder). Both lengths are checked
//! against what the reader allows before anything is read, and memory grows with what arrives, not with
//! what is announced: each side treats the other as hostile.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use talka_core::{
    ids::BlobHash,
    job::TaskLimits,
    limits,
    outcome::{Exit, NoResult},
    quantities::Fuel,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::super::{job::TaskInput, walls::Walls};

/// Largest head: a task's arguments, or the names of all its output files.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Both lengths.
const LENGTHS_BYTES: usize = 8;

/// Says that parent and child were built together.
pub(in super::super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// From the parent to an executor.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum ToExecutor<'a> {
    /// A program that jobs have. Body: machine code.
    Program {
        /// The parent's number for it.
        program: u64,
    },
    /// A dataset of the job that comes next. Body: its content.
    Dataset {
        /// Its name under `/data`.
        name: String,
    },
    /// Everything of a job is there.
    Job {
        /// The parent's number for it.
        job: u64,
        /// The parent's number for its program.
        program: u64,
        /// Bounds of each task.
        limits: TaskLimits,
        /// Seed of the random streams.
        seed: u64,
        /// Start of the clock.
        clock_secs: u64,
    },
    /// A job whose tasks have all ended.
    Forget {
        /// The parent's number for it.
        job: u64,
    },
    /// A program that none of the remaining jobs has.
    ForgetProgram {
        /// The parent's number for it.
        program: u64,
    },
    /// The task that comes next is to go on from here. Body: a snapshot, as an executor sent it.
    Resume,
    /// A task to run. Body: its standard input.
    Task {
        /// The parent's number for its job.
        job: u64,
        /// The parent's number for it.
        task: u64,
        /// Whether its checkpoints are kept.
        keep: bool,
        /// The rest.
        input: Cow<'a, TaskInput>,
    },
}

/// From an executor to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum FromExecutor {
    /// The first frame.
    Ready(Ready),
    /// A task has ended. Body: standard output, then the files, then the log.
    Done {
        /// The parent's number for it.
        task: u64,
        /// How it ended.
        result: Result<Ended, NoResult>,
    },
    /// The running task wrote to `/progress`.
    Progress {
        /// The parent's number for it.
        task: u64,
        /// Millionths of the whole.
        ppm: u32,
    },
    /// The running task may be interrupted here. Body: a snapshot, for executors only.
    Checkpoint {
        /// The parent's number for it.
        task: u64,
    },
}

/// The child is set up.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Ready {
    /// [`VERSION`] of the child.
    pub(in super::super) version: String,
    /// The walls around it.
    pub(in super::super) walls: Walls,
}

/// An execution without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Ended {
    pub(in super::super) exit: Exit,
    pub(in super::super) fuel: Fuel,
    pub(in super::super) resumed: bool,
    pub(in super::super) stdout_bytes: u64,
    pub(in super::super) files: Vec<(String, u64)>,
    pub(in super::super) stderr_bytes: u64,
}

/// From a compile process to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum FromCompiler {
    /// The first frame.
    Ready(Ready),
    /// Body: machine code.
    Compiled {
        /// The hash of what was compiled: the module, as the counting pass left it.
        transformed: BlobHash,
    },
    /// The module can't be compiled.
    Refused {
        /// In the words of the engine.
        reason: String,
    },
}

/// From the parent to a compile process.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum ToCompiler {
    /// Body: the module.
    Compile,
}

/// A message and its body.
#[derive(Debug)]
pub(in super::super) struct Frame<T> {
    pub(in super::super) head: T,
    pub(in super::super) body: Vec<u8>,
}

/// Appends a frame, but for its body, to `out`.
pub(in super::super) fn encode_head<T: Serialize>(
    out: &mut Vec<u8>,
    head: &T,
    body_bytes: usize,
) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTHS_BYTES]);
    let mut encoded = postcard::to_extend(head, std::mem::take(out)).map_err(invalid)?;
    let head_bytes = encoded.len() - start - LENGTHS_BYTES;
    let lengths = [u32::try_from(head_bytes), u32::try_from(body_bytes)];
    for (position, length) in lengths.into_iter().enumerate() {
        let at = start + position * 4;
        encoded[at..at + 4].copy_from_slice(&length.map_err(invalid)?.to_le_bytes());
    }
    *out = encoded;
    Ok(())
}

/// Reads a frame; `None` at a clean end of the stream.
pub(in super::super) fn read<T: DeserializeOwned>(
    from: &mut impl Read,
    body_bytes_max: u64,
) -> io::Result<Option<Frame<T>>> {
    let mut lengths = [0; LENGTHS_BYTES];
    match from.read(&mut lengths[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut lengths[1..])?,
    }
    let (head_bytes, body_bytes) = check_lengths(lengths, body_bytes_max)?;
    let mut head = vec![0; head_bytes];
    from.read_exact(&mut head)?;
    let head = decode_head(&head)?;
    let mut body = Vec::new();
    from.take(body_bytes).read_to_end(&mut body)?;
    complete(body.len(), body_bytes)?;
    Ok(Some(Frame { head, body }))
}

/// The same from an asynchronous stream. `scratch` is there to be used again.
pub(in super::super) async fn read_async<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    body_bytes_max: u64,
    scratch: &mut Vec<u8>,
) -> io::Result<Frame<T>> {
    let mut lengths = [0; LENGTHS_BYTES];
    from.read_exact(&mut lengths).await?;
    let (head_bytes, body_bytes) = check_lengths(lengths, body_bytes_max)?;
    scratch.resize(head_bytes, 0);
    from.read_exact(scratch).await?;
    let head = decode_head(scratch)?;
    let mut body = Vec::new();
    if body_bytes > 0 {
        from.take(body_bytes).read_to_end(&mut body).await?;
    }
    complete(body.len(), body_bytes)?;
    Ok(Frame { head, body })
}

/// Whether `buffered` begins with a whole frame, so that reading it will not wait.
pub(super) fn is_whole(buffered: &[u8]) -> bool {
    let Some((lengths, rest)) = buffered.split_first_chunk::<LENGTHS_BYTES>() else { return false };
    let (head, body) = split_lengths(*lengths);
    rest.len() as u64 >= u64::from(head) + u64::from(body)
}

fn split_lengths(lengths: [u8; LENGTHS_BYTES]) -> (u32, u32) {
    let both = u64::from_le_bytes(lengths);
    #[expect(clippy::cast_possible_truncation, reason = "the lower and the upper half")]
    (both as u32, (both >> 32) as u32)
}

fn check_lengths(lengths: [u8; LENGTHS_BYTES], body_bytes_max: u64) -> io::Result<(usize, u64)> {
    let (head, body) = split_lengths(lengths);
    match usize::try_from(head) {
        Ok(head) if head <= HEAD_BYTES_MAX && u64::from(body) <= body_bytes_max => Ok((head, body.into())),
        _ => Err(invalid("a frame is above its limit")),
    }
}

fn decode_head<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((head, [])) => Ok(head),
        Ok(_) => Err(invalid("a frame has a tail")),
        Err(error) => Err(invalid(error)),
    }
}

fn complete(got: usize, announced: u64) -> io::Result<()> {
    if got as u64 == announced { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Largest body that an executor may send: everything that a task with that limit may write, or a checkpoint if they are
/// kept.
pub(in super::super) fn done_bytes_max(limits: TaskLimits, keep: bool) -> u64 {
    let output = limits.output.get().min(limits::TASK_OUTPUT_BYTES_MAX);
    let done = output + limits::TASK_STDERR_BYTES_MAX as u64;
    if keep { done.max(limits::TASK_CHECKPOINT_BYTES_MAX) } else { done }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head = FromCompiler::Refused { reason: "because".into() };
        encode_head(&mut bytes, &head, body.len()).expect("small");
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_frame_comes_back_whole() {
        let bytes = [encoded(b"body"), encoded(b"")].concat();
        let mut rest = &bytes[..];
        for expected in [&b"body"[..], b""] {
            let frame: Frame<FromCompiler> = read(&mut rest, 4).expect("valid").expect("a frame");
            assert_eq!(frame.body, expected);
            assert!(matches!(frame.head, FromCompiler::Refused { reason } if reason == "because"));
        }
        assert!(read::<FromCompiler>(&mut rest, 4).expect("the end").is_none());
    }

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte() {
        let bytes = encoded(b"body");
        for length in 0..bytes.len() {
            assert!(!is_whole(&bytes[..length]), "{length}");
        }
        assert!(is_whole(&bytes));
    }

    #[test]
    fn every_cut_and_every_flip_is_an_error_or_another_frame_but_never_a_panic() {
        let bytes = encoded(b"body");
        for length in 1..bytes.len() {
            assert!(read::<FromCompiler>(&mut &bytes[..length], 100).is_err(), "{length}");
        }
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[position] ^= 1 << bit;
                drop(read::<FromCompiler>(&mut &flipped[..], 100));
                drop(read::<FromExecutor>(&mut &flipped[..], 100));
            }
        }
    }

    #[test]
    fn lengths_above_the_limit_are_refused_before_anything_is_read() {
        let refused = |head: u32, body: u32| {
            let bytes = [head.to_le_bytes(), body.to_le_bytes()].concat();
            let error = read::<FromCompiler>(&mut &bytes[..], 100).expect_err("too long");
            error.kind() == io::ErrorKind::InvalidData
        };
        assert!(refused(u32::MAX, 0));
        assert!(refused(0, 101));
        assert!(!refused(8, 100), "this one only ends too early");
    }
}
