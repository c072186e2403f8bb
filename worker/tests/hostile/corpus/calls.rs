//! Host calls with pointers and lengths from anywhere.

use std::{collections::BTreeSet, fmt::Write as _};

use bytes::Bytes;
use talka_core::{
    outcome::{Exit, Limit, Trap},
    quantities::Bytes as Size,
};
use talka_profile::{Word, wasi_functions};
use talka_worker::sandbox::TaskInput;

use super::super::{
    guest,
    row::{Outcome, Row, checked},
};

/// One page.
const END: i64 = 65_536;

/// What each pointer and each length is, in all combinations.
const EDGES: [i64; 6] = [0, 1, END - 1, END, 1 << 31, (1 << 32) - 1];

/// What the parameters of each function are: `d` a descriptor, `p` a pointer, a length or a number to be tried with
/// [`EDGES`], `w` a 64-bit number to be tried with edges, `r` rights, `c` the flag to create, `z` zero.
const PARAMETERS: &[(&str, &str)] = &[
    ("args_get", "pp"),
    ("args_sizes_get", "pp"),
    ("clock_res_get", "zp"),
    ("clock_time_get", "zwp"),
    ("environ_get", "pp"),
    ("environ_sizes_get", "pp"),
    ("fd_advise", "dwwp"),
    ("fd_allocate", "dww"),
    ("fd_close", "d"),
    ("fd_datasync", "d"),
    ("fd_fdstat_get", "dp"),
    ("fd_fdstat_set_flags", "dp"),
    ("fd_fdstat_set_rights", "dww"),
    ("fd_filestat_get", "dp"),
    ("fd_filestat_set_size", "dw"),
    ("fd_filestat_set_times", "dwwp"),
    ("fd_pread", "dppwp"),
    ("fd_prestat_dir_name", "dpp"),
    ("fd_prestat_get", "dp"),
    ("fd_pwrite", "dppwp"),
    ("fd_read", "dppp"),
    ("fd_readdir", "dppwp"),
    ("fd_renumber", "dd"),
    ("fd_seek", "dwpp"),
    ("fd_sync", "d"),
    ("fd_tell", "dp"),
    ("fd_write", "dppp"),
    ("path_create_directory", "dpp"),
    ("path_filestat_get", "dzppp"),
    ("path_filestat_set_times", "dzpprrz"),
    ("path_link", "dzppdpp"),
    ("path_open", "dzppcrrzp"),
    ("path_readlink", "dppppp"),
    ("path_remove_directory", "dpp"),
    ("path_rename", "dppdpp"),
    ("path_symlink", "ppdpp"),
    ("path_unlink_file", "dpp"),
    ("poll_oneoff", "pppp"),
    ("proc_exit", "p"),
    ("proc_raise", "p"),
    ("random_get", "pp"),
    ("sched_yield", ""),
    ("sock_accept", "dzp"),
    ("sock_recv", "dppppp"),
    ("sock_send", "dppzp"),
    ("sock_shutdown", "dz"),
];

/// Functions that answer without a look at their pointers, and one that never answers.
const NEVER_LOOK: [&str; 9] = [
    "fd_advise",
    "fd_fdstat_set_flags",
    "fd_filestat_set_times",
    "path_symlink",
    "proc_exit",
    "proc_raise",
    "sock_accept",
    "sock_recv",
    "sock_send",
];

/// The highest error number of WASI.
const ERRNO_MAX: u32 = 76;

pub(super) fn rows() -> Vec<Row> {
    vec![
        // The test itself holds 100,000 tasks and their outcomes.
        Row::new("pointers at every edge", dispatcher, checked(|outcomes| judge(&cases(), outcomes)))
            .extra(Size::mib(128))
            .batches(|| {
                // One batch for each function.
                let cases = cases();
                let batches = cases.chunk_by(|a, b| a.function == b.function);
                batches.map(|of_one| of_one.iter().map(Case::task).collect()).collect()
            }),
        unwritten(),
    ]
}

/// One call.
#[derive(Debug)]
struct Case {
    function: usize,
    /// Whether memory is full of ones, or of zeros: vectors and paths are then read from that.
    ones: bool,
    arguments: Vec<i64>,
}

impl Case {
    fn task(&self) -> TaskInput {
        let mut stdin = Vec::with_capacity(88);
        stdin.extend(u32::try_from(self.function).expect("46 functions").to_le_bytes());
        stdin.extend(u32::from(self.ones).to_le_bytes());
        for position in 0..9 {
            stdin.extend(self.arguments.get(position).unwrap_or(&0).to_le_bytes());
        }
        stdin.extend(b"and more");
        let args = vec!["program".into(), "argument".into()];
        TaskInput { stdin: Bytes::from(stdin), args, env: vec![("NAME".into(), "value".into())], index: 0 }
    }
}

/// Every case, in the order of the functions.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (function, ((name, parameters), known)) in PARAMETERS.iter().zip(wasi_functions()).enumerate() {
        assert_eq!(*name, known.name, "the table has every function, sorted");
        let words =
            parameters.chars().map(|kind| if matches!(kind, 'w' | 'r') { Word::I64 } else { Word::I32 });
        assert!(words.eq(known.params.iter().copied()), "{name}");
        let many = parameters.matches('p').count() >= 4 || parameters.matches('d').count() > 1;
        for ones in [false, true] {
            let mut all = vec![Vec::new()];
            for kind in parameters.chars() {
                let values: &[i64] = match kind {
                    'd' if many => &[3, 99],
                    'd' => &[0, 1, 3, 4, 99],
                    'p' => &EDGES,
                    'w' => &[0, 1, 1 << 62, -1],
                    'r' => &[66],
                    'c' => &[1],
                    _ => &[0],
                };
                let with = |arguments: &Vec<i64>, value: i64| [&arguments[..], &[value]].concat();
                all = all.iter().flat_map(|before| values.iter().map(|value| with(before, *value))).collect();
            }
            cases.extend(all.into_iter().map(|arguments| Case { function, ones, arguments }));
        }
    }
    assert_eq!(PARAMETERS.len(), wasi_functions().len());
    cases
}

/// Reads which function to call with what, and ends with its answer as exit code.
fn dispatcher() -> Vec<u8> {
    let mut fields = String::from("(type $call (func))\n(table funcref (elem");
    let (mut functions, mut globals, mut load) = (String::new(), String::new(), String::new());
    for function in wasi_functions() {
        let name = function.name;
        write!(fields, " $call_{name}").expect("a string");
        write!(functions, "(func $call_{name} ").expect("a string");
        let mut call = format!("(call ${name}");
        for (position, word) in function.params.iter().enumerate() {
            match word {
                Word::I32 => write!(call, " (i32.wrap_i64 (global.get $a{position}))"),
                Word::I64 => write!(call, " (global.get $a{position})"),
            }
            .expect("a string");
        }
        call.push(')');
        if function.results.is_empty() {
            writeln!(functions, "{call})").expect("a string");
        } else {
            writeln!(functions, "(call $proc_exit {call}))").expect("a string");
        }
    }
    for position in 0..9 {
        writeln!(globals, "(global $a{position} (mut i64) (i64.const 0))").expect("a string");
        writeln!(load, "(global.set $a{position} (i64.load (i32.const {})))", 2056 + 8 * position)
            .expect("a string");
    }
    let start = format!(
        "(local $function i32) (local $fill i32)
        (call $is (call $read (i32.const 2048) (i32.const 80)) (i32.const 80))
        (call $is (call $open (i32.const 100) (i32.const 8) (i32.const 1)) (i32.const 4))
        {load}
        (local.set $function (i32.load (i32.const 2048)))
        (local.set $fill (i32.sub (i32.const 0) (i32.load (i32.const 2052))))
        (memory.fill (i32.const 0) (local.get $fill) (i32.const {END}))
        (call_indirect (type $call) (local.get $function))"
    );
    guest::program_of("(memory (export \"memory\") 1)", &format!("{fields}))\n{functions}{globals}"), &start)
}

/// An error number, or the end for a bad pointer or too much of something; never anything else.
fn judge(cases: &[Case], outcomes: &[Outcome]) -> Result<(), String> {
    let (mut trapped, mut answered) = (BTreeSet::new(), BTreeSet::new());
    for (case, outcome) in cases.iter().zip(outcomes) {
        let (name, _) = PARAMETERS[case.function];
        let described = || format!("{name} with {case:?} ended with {outcome:?}");
        match outcome.as_ref().map(|run| run.exit).map_err(|_| described())? {
            Exit::Trap(Trap::BadPointer) => {
                trapped.insert(name);
            }
            Exit::Ok | Exit::Code(1..=ERRNO_MAX) => {
                answered.insert(name);
            }
            Exit::Limit(Limit::Output) if matches!(name, "fd_allocate" | "fd_filestat_set_size") => {}
            Exit::Code(_) if name == "proc_exit" => {}
            _ => return Err(described()),
        }
    }
    for (name, parameters) in PARAMETERS {
        if !answered.contains(name) {
            return Err(format!("{name} never answered"));
        }
        if trapped.contains(name) != (parameters.contains('p') && !NEVER_LOOK.contains(name)) {
            return Err(format!("{name} has met bad pointers: {}", trapped.contains(name)));
        }
    }
    if cases.len() == outcomes.len() { Ok(()) } else { Err("an outcome is missing".into()) }
}

/// Where a call writes less than it may, or records with gaps, the rest of the program's memory stays as it was and
/// the gaps are zeros.
fn unwritten() -> Row {
    const WINDOW: usize = 256;
    const UNTOUCHED: u8 = 0xaa;
    // Bytes written, and which of them must be zeros.
    let windows: [(usize, &[std::ops::Range<usize>]); 10] = [
        (5, &[]),
        (24, &[1..2, 4..8]),
        (64, &[17..24, 40..64]),
        (8, &[1..2, 2..4]),
        (172, &[21..24, 46..49, 72..75, 106..109, 134..137, 161..164]),
        (32, &[11..16, 16..32]),
        (8, &[]),
        (1, &[]),
        (0, &[]),
        (0, &[]),
    ];
    let at = |number: usize| 4096 + WINDOW * number;
    let whole = WINDOW * windows.len();
    let start = format!(
        "(memory.fill (i32.const 4096) (i32.const {UNTOUCHED}) (i32.const {whole}))
        (drop (call $read (i32.const {}) (i32.const 64)))
        (call $ok (call $fd_fdstat_get (i32.const 3) (i32.const {})))
        (call $ok (call $fd_filestat_get (i32.const 3) (i32.const {})))
        (call $ok (call $fd_prestat_get (i32.const 3) (i32.const {})))
        (call $ok (call $fd_readdir (i32.const 3) (i32.const {}) (i32.const 256) (i64.const 0) (i32.const 16)))
        (call $ok (call $poll_oneoff (i32.const 2048) (i32.const {}) (i32.const 1) (i32.const 16)))
        (call $ok (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const {})))
        (call $ok (call $fd_prestat_dir_name (i32.const 3) (i32.const {}) (i32.const 64)))
        (call $is (call $read (i32.const {}) (i32.const 256)) (i32.const 0))
        (drop (call $open (i32.const 100) (i32.const 8) (i32.const 1)))
        (call $buffer (i32.const {}) (i32.const 256))
        (call $ok (call $fd_pread (i32.const 4) (i32.const 8) (i32.const 1) (i64.const 0) (i32.const 16)))
        (call $put (i32.const 1) (i32.const 4096) (i32.const {whole}))",
        at(0),
        at(1),
        at(2),
        at(3),
        at(4),
        at(5),
        at(6),
        at(7),
        at(8),
        at(9),
    );
    let check = move |outcomes: &[Outcome]| {
        for outcome in outcomes {
            let run = outcome.as_ref().map_err(|reason| format!("no result: {reason}"))?;
            if run.exit != Exit::Ok || run.output.stdout.len() != whole {
                return Err(format!("ended with {:?} and {} bytes", run.exit, run.output.stdout.len()));
            }
            for (number, (window, (written, zeros))) in
                run.output.stdout.chunks(WINDOW).zip(windows).enumerate()
            {
                if window[written..].iter().any(|byte| *byte != UNTOUCHED) {
                    return Err(format!("call {number} wrote more than {written} bytes: {window:?}"));
                }
                if zeros.iter().cloned().any(|gap| window[gap].iter().any(|byte| *byte != 0)) {
                    return Err(format!("call {number} left something in a gap: {window:?}"));
                }
            }
        }
        Ok(())
    };
    Row::text("memory that the host did not write", "", start, checked(check)).inputs(&["hello", "hello"])
}
