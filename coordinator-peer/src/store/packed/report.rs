//! A report on a task that is not final, and what a program wrote.
//!
//! ```text
//! report: form: varint | (no result) reason: varint
//!                      | (execution) outcome: 32 | input: 32 | exit: 2 varints | fuel: varint | output
//! output: stdout: framed | files: varint | files × (name: framed, data: framed) | stderr: framed
//! ```
//!
//! A form is where the output is, and [`RESUMED`] more when the attempt went on from a checkpoint.

use std::{collections::BTreeMap, sync::Arc};

use talka_core::{
    coordinator::{PendingOutput, PendingReport},
    outcome::{NoResult, Output},
    packing::put_varint,
    quantities::Fuel,
};

use super::{Source, Undecodable, blob, put_blob, put_exit, put_framed};

const NO_RESULT: u64 = 0;
const INLINE: u64 = 1;
const REPEATED: u64 = 2;
const REMOTE: u64 = 3;
const RESUMED: u64 = 4;

/// Appends a report.
pub(in crate::store) fn put_report(out: &mut Vec<u8>, report: &PendingReport) {
    let (outcome, input, exit, fuel, resumed, output) = match report {
        PendingReport::NoResult(reason) => {
            put_varint(out, NO_RESULT);
            put_varint(out, reason.to_code().into());
            return;
        }
        PendingReport::Execution { outcome, input, exit, fuel, resumed, output } => {
            (outcome, input, exit, fuel, *resumed, output)
        }
    };
    let form = match output {
        PendingOutput::Inline(_) => INLINE,
        PendingOutput::Repeated => REPEATED,
        PendingOutput::Remote(_) => REMOTE,
    };
    put_varint(out, form | if resumed { RESUMED } else { 0 });
    out.extend_from_slice(outcome.as_bytes());
    out.extend_from_slice(input.as_bytes());
    put_exit(out, *exit);
    put_varint(out, fuel.get());
    match output {
        PendingOutput::Inline(output) => put_output(out, output),
        PendingOutput::Repeated => {}
        PendingOutput::Remote(blob) => put_blob(out, blob),
    }
}

/// The inverse of [`put_report`].
pub(in crate::store) fn report(bytes: &[u8]) -> Result<PendingReport, Undecodable> {
    let mut source = Source(bytes);
    let form = source.number()?;
    if form == NO_RESULT {
        let reason = NoResult::from_code(source.number32()?).ok_or(Undecodable)?;
        return source.finish(PendingReport::NoResult(reason));
    }
    let (outcome, input) = (source.hash()?, source.hash()?);
    let (exit, fuel) = (source.exit()?, Fuel::new(source.number()?));
    let resumed = form & RESUMED != 0;
    let output = match form & !RESUMED {
        INLINE => PendingOutput::Inline(Arc::new(output(source.0)?)),
        REPEATED => source.finish(PendingOutput::Repeated)?,
        REMOTE => PendingOutput::Remote(blob(source.0)?),
        _ => return Err(Undecodable),
    };
    Ok(PendingReport::Execution { outcome, input, exit, fuel, resumed, output })
}

/// Appends an output.
pub(in crate::store) fn put_output(out: &mut Vec<u8>, output: &Output) {
    put_framed(out, &output.stdout);
    put_varint(out, output.files.len() as u64);
    for (name, data) in &output.files {
        put_framed(out, name.as_bytes());
        put_framed(out, data);
    }
    put_framed(out, &output.stderr);
}

/// The inverse of [`put_output`].
pub(in crate::store) fn output(bytes: &[u8]) -> Result<Output, Undecodable> {
    let mut source = Source(bytes);
    let stdout = source.framed()?.to_vec();
    let mut files = BTreeMap::new();
    for _ in 0..source.number()? {
        let name = String::from_utf8(source.framed()?.to_vec()).map_err(|_| Undecodable)?;
        files.insert(name, source.framed()?.to_vec());
    }
    let stderr = source.framed()?.to_vec();
    source.finish(Output { stdout, files, stderr })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use talka_core::{
        ids::{BlobHash, InputDigest, OutcomeDigest},
        job::BlobRef,
        outcome::{Exit, Trap},
        quantities::Bytes,
    };

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..300)
    }

    prop_compose! {
        fn outputs()(
            stdout in bytes(),
            stderr in bytes(),
            files in prop::collection::btree_map("[a-zä]{1,8}", bytes(), 0..4),
        ) -> Output {
            Output { stdout, files, stderr }
        }
    }

    proptest! {
        #[test]
        fn reports_round_trip(
            output in prop_oneof![
                Just(PendingOutput::Repeated),
                outputs().prop_map(|output| PendingOutput::Inline(Arc::new(output))),
                any::<([u8; 32], u64)>().prop_map(|(hash, size)| PendingOutput::Remote(BlobRef {
                    hash: BlobHash::new(hash),
                    size: Bytes::new(size),
                })),
            ],
            outcome: [u8; 32],
            input: [u8; 32],
            fuel: u64,
            resumed: bool,
        ) {
            let given = PendingReport::Execution {
                outcome: OutcomeDigest::new(outcome),
                input: InputDigest::new(input),
                exit: Exit::Trap(Trap::DivideByZero),
                fuel: Fuel::new(fuel),
                resumed,
                output,
            };
            let mut bytes = vec![];
            put_report(&mut bytes, &given);
            prop_assert_eq!(report(&bytes), Ok(given));
        }

        #[test]
        fn damaged_reports_are_refused_without_panic(bytes in bytes()) {
            let _ = report(&bytes);
            let _ = output(&bytes);
        }
    }

    #[test]
    fn every_reason_round_trips() {
        for reason in NoResult::ALL {
            let mut bytes = vec![];
            put_report(&mut bytes, &PendingReport::NoResult(reason));
            assert_eq!(report(&bytes), Ok(PendingReport::NoResult(reason)));
        }
    }

    #[test]
    fn bytes_after_the_end_are_damage() {
        let mut bytes = vec![];
        put_output(&mut bytes, &Output::default());
        assert_eq!(output(&bytes), Ok(Output::default()));
        bytes.push(0);
        assert_eq!(output(&bytes), Err(Undecodable));
    }
}
