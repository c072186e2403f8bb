//! Small programs, written by hand, and how they end.

use std::{cell::RefCell, fmt::Write as _, rc::Rc};

use talka_core::quantities::{Bytes as Size, Fuel};

use super::*;

fn no_progress() -> OnProgress {
    Rc::new(|_| ())
}

/// Everything a test may want to say about a run.
struct Run {
    wat: String,
    datasets: Vec<(String, Bytes)>,
    limits: TaskLimits,
    task: TaskInput,
}

/// Imports all that the programs below use; `body` is the rest of the module.
fn program(body: &str) -> Run {
    let imports = [
        ("args_get", "i32 i32"),
        ("args_sizes_get", "i32 i32"),
        ("clock_time_get", "i32 i64 i32"),
        ("environ_get", "i32 i32"),
        ("environ_sizes_get", "i32 i32"),
        ("fd_fdstat_get", "i32 i32"),
        ("fd_prestat_dir_name", "i32 i32 i32"),
        ("fd_prestat_get", "i32 i32"),
        ("fd_read", "i32 i32 i32 i32"),
        ("fd_readdir", "i32 i32 i32 i64 i32"),
        ("fd_seek", "i32 i64 i32 i32"),
        ("fd_write", "i32 i32 i32 i32"),
        ("path_filestat_get", "i32 i32 i32 i32 i32"),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        ("path_rename", "i32 i32 i32 i32 i32 i32"),
        ("poll_oneoff", "i32 i32 i32 i32"),
        ("random_get", "i32 i32"),
        ("sock_send", "i32 i32 i32 i32 i32"),
    ];
    let mut wat = String::from("(module\n");
    for (name, parameters) in imports {
        let import = format!("(import \"{}\" \"{name}\" (func ${name}", wasi::MODULE);
        writeln!(wat, "{import} (param {parameters}) (result i32)))").expect("a string");
    }
    writeln!(wat, "(import \"{}\" \"proc_exit\" (func $proc_exit (param i32)))", wasi::MODULE)
        .expect("a string");
    wat.push_str(body);
    wat.push(')');
    let limits = TaskLimits {
        memory: Size::mib(1),
        fuel: Fuel::new(10_000_000),
        output: Size::kib(1),
        ..TaskLimits::default()
    };
    Run { wat, datasets: Vec::new(), limits, task: TaskInput::default() }
}

/// A `_start` with one page of memory; `$put` writes a range of memory to standard output.
fn main_of(body: &str) -> Run {
    program(&format!(
        r#"(memory (export "memory") 1)
        (func $put (param $at i32) (param $length i32)
            (i32.store (i32.const 65000) (local.get $at))
            (i32.store (i32.const 65004) (local.get $length))
            (drop (call $fd_write (i32.const 1) (i32.const 65000) (i32.const 1) (i32.const 65008))))
        (func $check (param $errno i32)
            (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))
        (func (export "_start") {body})"#
    ))
}

impl Run {
    fn stdin(mut self, stdin: &'static str) -> Self {
        self.task.stdin = Bytes::from(stdin);
        self
    }

    fn limits(mut self, change: impl FnOnce(&mut TaskLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    fn result(self) -> Result<Execution, NoResult> {
        let wasm = wat::parse_str(&self.wat).unwrap_or_else(|error| panic!("{error}\n{}", self.wat));
        let run = move || {
            let runner = Runner::new().expect("an engine");
            let compiled = compile(&wasm).expect("a valid module").code;
            let loaded = runner.load(&compiled).expect("just compiled");
            let Self { datasets, limits, task, .. } = self;
            let surroundings = Surroundings { datasets: &datasets, limits, seed: 7, clock_secs: 1000 };
            runner.execute(&loaded, surroundings, task, no_progress())
        };
        let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(run);
        thread.expect("a thread").join().expect("no panic")
    }

    fn run(self) -> Execution {
        self.result().expect("a result")
    }

    fn exit(self) -> Exit {
        self.run().exit
    }

    fn stdout(self) -> Vec<u8> {
        let execution = self.run();
        assert_eq!(execution.exit, Exit::Ok);
        execution.output.stdout
    }
}

fn u64s(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("8"))).collect()
}

#[test]
fn hello() {
    let run = main_of(r#"(call $put (i32.const 8) (i32.const 6)))(data (i32.const 8) "hello\n""#);
    assert_eq!(run.stdout(), b"hello\n");
}

#[test]
fn standard_input_comes_out_again() {
    let echo = main_of(
        "(i32.store (i32.const 0) (i32.const 100))
        (i32.store (i32.const 4) (i32.const 1000))
        (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $put (i32.const 100) (i32.load (i32.const 8)))",
    );
    assert_eq!(echo.stdin("some input").stdout(), b"some input");
}

#[test]
fn arguments_and_environment_arrive() {
    let mut run = main_of(
        "(call $check (call $args_sizes_get (i32.const 0) (i32.const 4)))
        (call $check (call $args_get (i32.const 100) (i32.const 200)))
        (call $put (i32.load (i32.const 104)) (i32.const 3))
        (call $check (call $environ_sizes_get (i32.const 8) (i32.const 12)))
        (call $check (call $environ_get (i32.const 300) (i32.const 400)))
        (call $put (i32.load (i32.const 300)) (i32.const 4))
        (call $put (i32.const 0) (i32.const 16))",
    );
    run.task.args = vec!["task".into(), "abc".into()];
    run.task.env = vec![("A".into(), "b".into())];
    let sizes = [2_u32, 9, 1, 4].map(u32::to_le_bytes).concat();
    assert_eq!(run.stdout(), [b"abc" as &[u8], b"A=b\0", &sizes].concat());
}

#[test]
fn every_way_to_end_has_its_name() {
    use talka_core::outcome::Trap::*;
    let trap = Exit::Trap;
    let cases = [
        ("", Exit::Ok),
        ("(call $proc_exit (i32.const 0))", Exit::Ok),
        ("(call $proc_exit (i32.const 3)) (unreachable)", Exit::Code(3)),
        ("(call $proc_exit (i32.const -1))", Exit::Code(u32::MAX)),
        ("(unreachable)", trap(Unreachable)),
        ("(drop (i32.load (i32.const 65533)))", trap(MemoryOutOfBounds)),
        ("(i64.store (i32.const -1) (i64.const 0))", trap(MemoryOutOfBounds)),
        ("(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))", trap(MemoryOutOfBounds)),
        ("(drop (table.get (i32.const 9)))", trap(TableOutOfBounds)),
        ("(call_indirect (i32.const 0))", trap(IndirectCallToNull)),
        ("(drop (call_indirect (result i32) (i32.const 1)))", trap(BadSignature)),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", trap(IntegerOverflow)),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", trap(DivideByZero)),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", trap(BadConversion)),
        ("(drop (i32.trunc_f64_s (f64.const 1e10)))", trap(IntegerOverflow)),
        ("(loop (br 0))", Exit::Limit(Limit::Fuel)),
    ];
    for (body, expected) in cases {
        let table = ")(table 2 funcref) (func $f) (elem (i32.const 1) $f";
        assert_eq!(main_of(&format!("{body} {table}")).exit(), expected, "{body}");
    }
}

#[test]
fn a_start_function_ends_the_program_as_any_other_code() {
    let with_start = |body: &str| {
        let memory = "(memory (export \"memory\") 1) (func (export \"_start\"))";
        program(&format!("{memory} (func $s {body}) (start $s)")).exit()
    };
    assert_eq!(with_start("(unreachable)"), Exit::Trap(Trap::Unreachable));
    assert_eq!(with_start("(call $proc_exit (i32.const 4))"), Exit::Code(4));
    assert_eq!(with_start("(loop (br 0))"), Exit::Limit(Limit::Fuel));
    assert_eq!(with_start("(call $check)) (func $check"), Exit::Ok);
    let random = "(drop (call $random_get (i32.const 65535) (i32.const 2)))";
    assert_eq!(with_start(random), Exit::Trap(Trap::BadPointer));
}

#[test]
fn initial_data_outside_of_memory_is_a_trap() {
    let run = main_of(")(data (i32.const 65535) \"ab\"");
    assert_eq!(run.exit(), Exit::Trap(Trap::MemoryOutOfBounds));
}

#[test]
fn calls_nested_too_deep_end_the_program_at_the_same_call_each_time() {
    let deep = || {
        let run = main_of("(call $deep)) (func $deep (call $deep) (call $deep)");
        run.limits(|limits| limits.fuel = Fuel::new(1 << 40)).run()
    };
    let execution = deep();
    assert_eq!(execution.exit, Exit::Limit(Limit::CallDepth));
    assert_eq!(execution, deep());
}

#[test]
fn fuel_is_the_same_each_time_and_never_above_its_limit() {
    let work = || {
        main_of(
            "(local $i i32)
            (loop
                (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0)))
                (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))",
        )
    };
    let first = work().run();
    assert_eq!(first, work().run());
    let enough = work().limits(|limits| limits.fuel = first.fuel).run();
    assert_eq!((enough.exit, enough.fuel), (Exit::Ok, first.fuel));
    let short = Fuel::new(first.fuel.get() / 2);
    let cut = || work().limits(|limits| limits.fuel = short).run();
    assert_eq!((cut().exit, cut().fuel), (Exit::Limit(Limit::Fuel), short));
}

#[test]
fn host_calls_cost_fuel_by_what_they_move() {
    let draw = |bytes: u32| {
        main_of(&format!("(call $check (call $random_get (i32.const 0) (i32.const {bytes})))"))
            .run()
            .fuel
            .get()
    };
    assert_eq!(draw(10_000) - draw(0), 10_000 / wasi::BYTES_PER_FUEL);
    assert!(draw(0) >= wasi::CALL_FUEL);
}

#[test]
fn too_much_output_ends_the_program_at_once() {
    let run = main_of("(loop (call $put (i32.const 0) (i32.const 100)) (br 0))");
    let execution = run.run();
    assert_eq!(execution.exit, Exit::Limit(Limit::Output));
    assert_eq!(execution.output.stdout.len(), 1000, "ten whole writes fit into 1024 bytes");
    assert!(execution.fuel.get() < 10_000, "{} fuel", execution.fuel);
}

#[test]
fn memory_grows_to_its_limit_and_not_further() {
    let grow = |declared: &str, pages: i64| {
        let body = format!(
            "(memory (export \"memory\") {declared})
            (func (export \"_start\") (call $proc_exit (memory.grow (i32.const {pages}))))"
        );
        program(&body).exit()
    };
    let refused = Exit::Code(u32::MAX);
    assert_eq!(grow("1", 15), Exit::Code(1), "16 pages are 1 MiB");
    assert_eq!(grow("1", 16), refused);
    assert_eq!(grow("1", -1), refused, "above what 32 bits address");
    assert_eq!(grow("1 3", 2), Exit::Code(1));
    assert_eq!(grow("1 3", 3), refused, "above the module's own maximum");
    assert_eq!(grow("16", 0), Exit::Code(16));
    assert_eq!(grow("17", 0), Exit::Limit(Limit::Memory));
    assert_eq!(grow("65536", 0), Exit::Limit(Limit::Memory));
}

#[test]
fn all_of_4_gib_can_be_had() {
    let run = program(
        "(memory (export \"memory\") 1)
        (func (export \"_start\")
            (drop (memory.grow (i32.const 65535)))
            (i32.store8 (i32.const 0xffffffff) (i32.const 7))
            (call $proc_exit (i32.load8_u (i32.const 0xffffffff))))",
    );
    assert_eq!(run.limits(|limits| limits.memory = Size::new(4 << 30)).exit(), Exit::Code(7));
}

#[test]
fn memory_is_zero_again_in_the_next_instance() {
    let wat = main_of(
        "(drop (memory.grow (i32.const 15)))
        (call $put (i32.const 100) (i32.const 8))
        (call $put (i32.const 1000000) (i32.const 8))
        (i64.store (i32.const 100) (i64.const -1))
        (i64.store (i32.const 1000000) (i64.const -1))",
    )
    .wat;
    let wasm = wat::parse_str(wat).expect("valid");
    let runner = Runner::new().expect("an engine");
    let loaded = runner.load(&compile(&wasm).expect("valid").code).expect("compiled");
    let limits = TaskLimits { fuel: Fuel::new(1 << 30), ..TaskLimits::default() };
    let surroundings = Surroundings { datasets: &[], limits, seed: 0, clock_secs: 0 };
    for _ in 0..3 {
        let execution = runner.execute(&loaded, surroundings, TaskInput::default(), no_progress());
        assert_eq!(execution.expect("a result").output.stdout, [0; 16]);
    }
}

#[test]
fn tables_grow_to_their_limit_and_not_further() {
    let grow = |elements: u64| {
        main_of(&format!(
            "(call $proc_exit (table.grow (ref.null func) (i32.const {elements}))))
            (table 2 funcref"
        ))
        .limits(|limits| limits.fuel = Fuel::new(1 << 40))
        .exit()
    };
    assert_eq!(grow(limits::MODULE_TABLE_ELEMENTS_MAX - 2), Exit::Code(2));
    assert_eq!(grow(limits::MODULE_TABLE_ELEMENTS_MAX - 1), Exit::Code(u32::MAX));
}

#[test]
fn the_clock_moves_by_its_own_rule() {
    let run = main_of(
        "(call $check (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 0)))
        (call $check (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 8)))
        ;; sleep 5 s by the monotonic clock
        (i64.store (i32.const 100) (i64.const 42))
        (i32.store (i32.const 116) (i32.const 1))
        (i64.store (i32.const 124) (i64.const 5000000000))
        (call $check (call $poll_oneoff (i32.const 100) (i32.const 200) (i32.const 1) (i32.const 300)))
        (call $check (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 16)))
        (call $put (i32.const 0) (i32.const 24))
        (call $put (i32.const 200) (i32.const 8))",
    );
    let ms = 1_000_000;
    assert_eq!(u64s(&run.stdout()), [ms, 1_000_000_000_000 + 2 * ms, 5000 * ms + 4 * ms, 42]);
}

#[test]
fn sleeping_costs_no_time_and_has_an_end() {
    let hour = 3_600_000_000_000_u64;
    let run = main_of(&format!(
        "(i64.store (i32.const 124) (i64.const {hour}))
        (loop
            (call $check (call $poll_oneoff (i32.const 100) (i32.const 200) (i32.const 1) (i32.const 300)))
            (br 0))"
    ));
    assert_eq!(run.exit(), Exit::Limit(Limit::Sleep));
}

#[test]
fn polling_tells_which_files_are_ready() {
    // A read of standard input, a read of a closed descriptor, and a timer that must not strike.
    let run = main_of(
        "(i64.store (i32.const 100) (i64.const 1)) (i32.store8 (i32.const 108) (i32.const 1))
        (i64.store (i32.const 148) (i64.const 2)) (i32.store8 (i32.const 156) (i32.const 1))
        (i32.store (i32.const 164) (i32.const 77))
        (i64.store (i32.const 196) (i64.const 3)) (i64.store (i32.const 220) (i64.const 1000))
        (call $check (call $poll_oneoff (i32.const 100) (i32.const 400) (i32.const 3) (i32.const 0)))
        (call $put (i32.const 0) (i32.const 8))
        (call $put (i32.const 400) (i32.const 64))",
    );
    let numbers = u64s(&run.stdin("abc").stdout());
    let read = 1 << 16;
    assert_eq!(numbers, [2, 1, read, 3, 0, 2, 8 | read, 0, 0]);
}

#[test]
fn randomness_depends_on_seed_and_index_alone() {
    let draw = |index| {
        let mut run = main_of(
            "(call $check (call $random_get (i32.const 0) (i32.const 20)))
            (call $put (i32.const 0) (i32.const 20))",
        );
        run.task.index = index;
        run.stdout()
    };
    let mut expected = [0; 20];
    let mut hasher = blake3::Hasher::new_derive_key("talka-1 random");
    hasher.update(&7_u64.to_le_bytes()).update(&3_u64.to_le_bytes());
    hasher.finalize_xof().fill(&mut expected);
    assert_eq!(draw(3), expected);
    assert_ne!(draw(4), expected);
}

/// Opens the path at 1000, of `length` bytes, with the flags and rights; the descriptor goes to 500.
fn open(length: usize, how: u32, rights: u64) -> String {
    format!(
        "(call $check (call $path_open (i32.const 3) (i32.const 0) (i32.const 1000) (i32.const {length})
            (i32.const {how}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 500)))"
    )
}

#[test]
fn a_dataset_is_copied_to_a_file() {
    let (data, out) = ("data/words", "out/copy");
    let mut run = main_of(&format!(
        "{}
        (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 300))
        (call $check (call $fd_read (i32.load (i32.const 500)) (i32.const 0) (i32.const 1) (i32.const 8)))
        (memory.copy (i32.const 1000) (i32.const 2000) (i32.const 100))
        {}
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (call $check (call $fd_write (i32.load (i32.const 500)) (i32.const 0) (i32.const 1) (i32.const 8)))
        ) (data (i32.const 1000) \"{data}\") (data (i32.const 2000) \"{out}\"",
        open(data.len(), 0, 2),
        open(out.len(), 9, 64),
    ));
    run.datasets = vec![("words".into(), Bytes::from("neighbours"))];
    let execution = run.run();
    assert_eq!(execution.exit, Exit::Ok);
    assert_eq!(execution.output.files, [("copy".into(), b"neighbours".to_vec())].into());
}

#[test]
fn the_root_is_preopened_and_its_listing_sorted() {
    let run = main_of(
        "(call $check (call $fd_prestat_get (i32.const 3) (i32.const 0)))
        (call $check (call $fd_prestat_dir_name (i32.const 3) (i32.const 8) (i32.const 1)))
        (call $put (i32.const 0) (i32.const 9))
        (call $check (call $fd_readdir (i32.const 3) (i32.const 100) (i32.const 1000) (i64.const 2)
            (i32.const 16)))
        (call $put (i32.const 100) (i32.load (i32.const 16)))
        (call $proc_exit (call $fd_prestat_get (i32.const 4) (i32.const 0)))",
    );
    let execution = run.run();
    assert_eq!(execution.exit, Exit::Code(8), "EBADF tells a C library that there are no more");
    let (prestat, listing) = execution.output.stdout.split_at(9);
    assert_eq!(prestat, [0, 0, 0, 0, 1, 0, 0, 0, b'/']);
    let mut names = Vec::new();
    let mut rest = listing;
    while let Some((head, tail)) = rest.split_at_checked(24) {
        let length = head[16] as usize;
        assert_eq!(&head[21..], [0; 3], "padding is written too");
        names.push((String::from_utf8_lossy(&tail[..length]).into_owned(), head[20]));
        rest = &tail[length..];
    }
    let expected = [("checkpoint", 3), ("data", 3), ("out", 3), ("progress", 4)];
    assert_eq!(names, expected.map(|(name, kind)| (name.to_owned(), kind)));
}

#[test]
fn a_full_listing_buffer_is_cut_and_continued() {
    let run = main_of(
        "(call $check (call $fd_readdir (i32.const 3) (i32.const 100) (i32.const 30) (i64.const 0)
            (i32.const 16)))
        (call $proc_exit (i32.load (i32.const 16)))",
    );
    assert_eq!(run.exit(), Exit::Code(30));
}

#[test]
fn progress_is_told_while_the_program_runs() {
    let path = "progress";
    let wat = main_of(&format!(
        "{}
        (i32.store (i32.const 0) (i32.const 2000)) (i32.store (i32.const 4) (i32.const 4))
        (call $check (call $fd_write (i32.load (i32.const 500)) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $check (call $fd_write (i32.load (i32.const 500)) (i32.const 0) (i32.const 1) (i32.const 8)))
        ) (data (i32.const 1000) \"{path}\") (data (i32.const 2000) \"0.5\\n\"",
        open(path.len(), 8, 64)
    ))
    .wat;
    let runner = Runner::new().expect("an engine");
    let compiled = compile(&wat::parse_str(wat).expect("valid")).expect("valid").code;
    let loaded = runner.load(&compiled).expect("compiled");
    let told = Rc::new(RefCell::new(Vec::new()));
    let sink = told.clone();
    let surroundings = Surroundings { datasets: &[], limits: TaskLimits::default(), seed: 0, clock_secs: 0 };
    let on_progress = Rc::new(move |value| sink.borrow_mut().push(value));
    let execution = runner.execute(&loaded, surroundings, TaskInput::default(), on_progress);
    assert_eq!(execution.map(|execution| execution.exit), Ok(Exit::Ok));
    assert_eq!(*told.borrow(), [0.5]);
}

#[test]
fn sockets_are_refused_by_name() {
    let send = |fd: i32| {
        let call = format!("(call $sock_send (i32.const {fd}) {})", "(i32.const 0)".repeat(4));
        main_of(&format!("(call $proc_exit {call})")).exit()
    };
    assert_eq!(send(1), Exit::Code(57));
    assert_eq!(send(9), Exit::Code(8));
}

/// A function that makes the call: `?` stands for the pointer, `!` for the length, `L` ends an `i64`.
fn one_call(call: &str, (number, (pointer, length)): (usize, &(u32, u32))) -> String {
    let mut words = call.split(' ');
    let mut code = format!("(func $f{number} (drop (call ${}", words.next().expect("a name"));
    for word in words {
        match (word, word.strip_suffix('L')) {
            ("?", _) => write!(code, " (i32.const {pointer})"),
            ("!", _) => write!(code, " (i32.const {length})"),
            (_, Some(long)) => write!(code, " (i64.const {long})"),
            (short, None) => write!(code, " (i32.const {short})"),
        }
        .expect("a string");
    }
    code + ")))\n"
}

/// Every pointer argument of every call, at every edge.
#[test]
fn no_pointer_reaches_outside_of_memory() {
    let calls = [
        "args_sizes_get ? 0",
        "args_sizes_get 0 ?",
        "args_get ? 0",
        "args_get 0 ?",
        "environ_get 0 ?",
        "clock_time_get 0 0L ?",
        "fd_fdstat_get 1 ?",
        "fd_prestat_get 3 ?",
        "fd_prestat_dir_name 3 ? 1",
        "fd_read 0 ? 1 0",
        "fd_read 0 ? ! 0",
        "fd_read 0 8 1 ?",
        "fd_write 1 ? 1 0",
        "fd_write 1 ? ! 0",
        "fd_write 1 8 1 ?",
        "fd_readdir 3 ? ! 0L 0",
        "fd_readdir 3 0 0 0L ?",
        "fd_seek 3 0L 0 ?",
        "path_filestat_get 3 0 ? ! 0",
        "path_filestat_get 3 0 16 3 ?",
        "path_open 3 0 ? ! 0 2L 0L 0 0",
        "path_open 3 0 16 3 0 2L 0L 0 ?",
        "path_rename 3 ? ! 3 16 3",
        "path_rename 3 16 3 3 ? !",
        "poll_oneoff ? 0 1 0",
        "poll_oneoff ? 0 ! 0",
        "poll_oneoff 100 ? 1 0",
        "poll_oneoff 100 200 1 ?",
        "random_get ? !",
    ];
    let end: u32 = 0x1_0000;
    let edges = [0, u32::MAX, end - 1, end, 1 << 31, u32::MAX - 1];
    let lengths = [0, 1, u32::MAX, end - 1, end, 1 << 31];
    for call in calls {
        let all_lengths: &[u32] = if call.contains('!') { &lengths } else { &[1] };
        let cases: Vec<(u32, u32)> =
            edges.iter().flat_map(|edge| all_lengths.iter().map(|length| (*edge, *length))).collect();
        let functions: String = cases.iter().enumerate().map(|case| one_call(call, case)).collect();
        let names: Vec<_> = (0..cases.len()).map(|number| format!("$f{number}")).collect();
        let names = names.join(" ");
        // The first byte of the input says which case is meant.
        let run = main_of(&format!(
            r#"(i32.store (i32.const 0) (i32.const 32)) (i32.store (i32.const 4) (i32.const 1))
            (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)))
            (call_indirect $cases (i32.load8_u (i32.const 32))))
            (table $cases funcref (elem {names})) {functions}
            (data (i32.const 8) "\90\01\00\00\04\00\00\00") (data (i32.const 16) "out""#,
        ));
        let wasm = wat::parse_str(&run.wat).unwrap_or_else(|error| panic!("{error}\n{}", run.wat));
        let runner = Runner::new().expect("an engine");
        let loaded = runner.load(&compile(&wasm).expect("valid").code).expect("compiled");
        let surroundings = Surroundings { datasets: &[], limits: run.limits, seed: 0, clock_secs: 0 };
        let mut refused = 0;
        for (number, case) in cases.iter().enumerate() {
            let task = TaskInput {
                stdin: [&[u8::try_from(number).expect("few")], &b"more"[..]].concat().into(),
                args: vec!["task".into()],
                env: vec![("A".into(), "b".into())],
                ..TaskInput::default()
            };
            let execution = runner.execute(&loaded, surroundings, task, no_progress()).expect("a result");
            let bad = execution.exit == Exit::Trap(Trap::BadPointer);
            refused += usize::from(bad);
            let fine = matches!(execution.exit, Exit::Ok | Exit::Limit(Limit::Output | Limit::Fuel));
            assert!(bad || fine, "{call} {case:?}: {}", execution.exit);
        }
        assert!(refused > 0 && refused < cases.len(), "{call}: {refused} of {} refused", cases.len());
    }
}

#[test]
fn what_the_profile_forbids_is_not_compiled() {
    let rest = "(memory (export \"memory\") 1) (func (export \"_start\"))";
    let modules = [
        ("(import \"env\" \"gettimeofday\" (func))", rest, "gettimeofday"),
        ("", "(func (export \"_start\"))", "memory"),
        ("", "(memory (export \"memory\") 1)", "_start"),
        ("(func $f (return_call $f))", rest, "tail"),
    ];
    for (first, rest, what) in modules {
        let wasm = wat::parse_str(format!("(module {first} {rest})")).expect(what);
        let error = compile(&wasm).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    assert!(compile(&wat::parse_str(format!("(module {rest})")).expect("valid")).is_ok());
    assert!(compile(b"\0asm").is_err());
    assert!(compile(b"").is_err());
}

/// The profile is checked before; should that ever miss something, the engine has it switched off as well.
#[test]
fn what_the_profile_forbids_is_off_in_the_engine_too() {
    let engine = Engine::new(&config()).expect("an engine");
    let modules = [
        ("(module (memory 1 1 shared))", "threads"),
        ("(module (memory i64 1))", "memory64"),
        ("(module (memory 1) (memory 1))", "multiple memories"),
        (
            "(module (func (result v128) (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
            "relaxed",
        ),
        ("(module (func $f (return_call $f)))", "tail calls"),
        ("(module (tag))", "exceptions"),
        ("(module (type (struct)))", "gc"),
    ];
    for (wat, what) in modules {
        let wasm = wat::parse_str(wat).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(engine.precompile_module(&wasm).is_err(), "{what}");
    }
}

#[test]
fn every_function_of_the_standard_is_there() {
    let runner = Runner::new().expect("an engine");
    let host = Host {
        world: World::new(Setting::default()).expect("a world"),
        memory: None,
        counters: None,
        growth: Growth::new(0),
        budget: Budget::default(),
        on_progress: no_progress(),
        on_checkpoint: None,
    };
    let mut store = Store::new(&runner.engine, host);
    let word = |word: &talka_profile::Word| word.to_string();
    for function in talka_profile::wasi_functions() {
        let found = runner.linker.get(&mut store, wasi::MODULE, function.name).expect(function.name);
        let ty = found.into_func().expect("a function").ty(&store);
        let params: Vec<_> = ty.params().map(|ty| ty.to_string()).collect();
        let results: Vec<_> = ty.results().map(|ty| ty.to_string()).collect();
        assert_eq!(params, function.params.iter().map(word).collect::<Vec<_>>(), "{}", function.name);
        assert_eq!(results, function.results.iter().map(word).collect::<Vec<_>>(), "{}", function.name);
    }
}
