//! Programs that nobody would write, from two generators: one that knows what the pass has to get right, and
//! wasm-smith, which knows nothing of it.
//!
//! `TALKA_FUZZ_PROGRAMS` sets how many each test runs, `TALKA_FUZZ_SEED` the first of them. A failure names its seed:
//!
//! ```text
//! TALKA_FUZZ_SEED=4711 TALKA_FUZZ_PROGRAMS=1 cargo test --release --test rewrite generated
//! ```

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use talka_core::limits::TASK_STACK_BYTES;
use talka_profile::{Options, check, rewrite};

use crate::{
    machine::{COMPILERS, Compiler, Exit, Machine},
    program::{Random, generate},
    scramble::{rich_in_nans, scramble, without_start_section},
};

/// Fuel of one program: most need some hundreds or thousands, and the others never end.
const FUEL: u64 = 1_000_000;

/// Where programs come from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The generator beside this file, with functions of that size.
    Own(usize),
    /// wasm-smith.
    Smith,
}

impl Source {
    /// The program of that seed, unless the profile refuses it.
    fn program(self, seed: u64) -> Option<Vec<u8>> {
        match self {
            Self::Own(size) => {
                let wasm = generate(seed, size);
                assert_eq!(check(&wasm), [], "seed {seed}");
                Some(wasm)
            }
            Self::Smith => Some(talka_generator::program(seed)).filter(|wasm| check(wasm).is_empty()),
        }
    }
}

/// Runs `test` for many programs on all cores. It gets the seed, to be named when something is wrong. Returns
/// how many programs there were.
fn for_programs(default: u64, source: Source, test: impl Fn(u64, &[u8]) + Sync) -> u64 {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse().ok());
    let count = number("TALKA_FUZZ_PROGRAMS").unwrap_or(default);
    let first = number("TALKA_FUZZ_SEED").unwrap_or(1);
    println!("{count} programs (TALKA_FUZZ_PROGRAMS) from seed {first} on (TALKA_FUZZ_SEED), {source:?}");
    let (next, ran) = (AtomicU64::new(first), AtomicU64::new(0));
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            if let Some(wasm) = source.program(seed) {
                test(seed, &wasm);
                ran.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let thread = std::thread::Builder::new().stack_size(TASK_STACK_BYTES + (4 << 20));
            thread.spawn_scoped(scope, run).expect("a thread");
        }
    });
    let ran = ran.into_inner();
    assert!(ran > count / 2, "{ran} programs of {count} are within the profile");
    ran
}

/// How often something happened to how many programs.
#[derive(Default)]
struct Tally(AtomicU64);

impl Tally {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn the_count_is_that_of_the_engine(count: u64, source: Source) {
    let (engine, machine) = (Machine::metered(), Machine::new(Compiler::Speed));
    let compared = Tally::default();
    let done = for_programs(count, source, |seed, wasm| {
        // Where the engine counts, that would run before it does.
        let wasm = &without_start_section(wasm);
        let options = Options { bulk_bytes_log2: 0, settle_nans: false, ..Options::default() };
        let rewritten = rewrite(wasm, &options).expect("within the profile").wasm;
        let oracle = engine.run(&engine.compile(wasm).expect("valid"), FUEL);
        let own = machine.run(&machine.compile(&rewritten).expect("valid"), FUEL);
        match oracle.exit {
            Exit::Returned => {
                assert_eq!(own, oracle, "seed {seed}");
                compared.add(1);
            }
            Exit::Trap(wasmtime::Trap::OutOfFuel) => {
                assert!(!matches!(own.exit, Exit::Returned | Exit::Code(_)), "seed {seed}: {own:?}");
            }
            // Its own stack is full before the depth that the profile allows, or after.
            Exit::Trap(wasmtime::Trap::StackOverflow) => {}
            // A limit may strike first: what a trap leaves uncounted differs.
            _ => assert_eq!((own.exit, own.state), (oracle.exit, oracle.state), "seed {seed}"),
        }
    });
    println!("{} counts compared, {source:?}", compared.get());
    assert!(compared.get() > done / 3);
}

#[test]
fn the_count_is_that_of_the_engine_for_own_programs() {
    the_count_is_that_of_the_engine(300, Source::Own(150));
}

#[test]
fn the_count_is_that_of_the_engine_for_programs_of_wasm_smith() {
    the_count_is_that_of_the_engine(400, Source::Smith);
}

fn every_engine_and_cpu_comes_to_the_same_end(count: u64, source: Source) {
    let [speed, others @ ..] = COMPILERS.map(Machine::new);
    let compared = others.each_ref().map(|_| Tally::default());
    let (settled, fuel) = (Tally::default(), Tally::default());
    let (returned, trapped, limited) = (Tally::default(), Tally::default(), Tally::default());
    let done = for_programs(count, source, |seed, wasm| {
        let rewritten = rewrite(wasm, &Options::default()).expect("within the profile");
        settled.add(rewritten.settled);
        let rewritten = rewritten.wasm;
        let end = speed.run(&speed.compile(&rewritten).expect("valid"), FUEL);
        fuel.add(end.fuel);
        let kind = match end.exit {
            Exit::Returned | Exit::Code(_) => &returned,
            Exit::Trap(_) => &trapped,
            Exit::Limit(_) => &limited,
        };
        kind.add(1);
        let scrambled = speed.compile(&scramble(&rewritten)).expect("valid");
        assert_eq!(speed.run(&scrambled, FUEL), end, "seed {seed}: scrambled");
        for (machine, compared) in others.iter().zip(&compared) {
            // Not each engine knows everything.
            if let Some(module) = machine.compile(&rewritten) {
                assert_eq!(machine.run(&module, FUEL), end, "seed {seed}: {:?}", machine.compiler);
                compared.add(1);
            }
        }
    });
    println!(
        "{} returned, {} trapped, {} hit a limit; {} fuel in all, NaNs settled at {} places, {source:?}",
        returned.get(),
        trapped.get(),
        limited.get(),
        fuel.get(),
        settled.get()
    );
    assert!(returned.get() > done / 4, "most programs that trap do so at once");
    for (machine, compared) in others.iter().zip(compared) {
        println!("{} programs on {:?}, {source:?}", compared.get(), machine.compiler);
        assert!(compared.get() > done * 9 / 10, "{:?}", machine.compiler);
    }
}

#[test]
fn every_engine_and_cpu_comes_to_the_same_end_for_own_programs() {
    every_engine_and_cpu_comes_to_the_same_end(250, Source::Own(150));
}

#[test]
fn every_engine_and_cpu_comes_to_the_same_end_for_programs_of_wasm_smith() {
    every_engine_and_cpu_comes_to_the_same_end(500, Source::Smith);
}

/// Against the engine's own canonicalisation, which does by brute force what the profile does where it shows.
fn the_nan_rule_gives_what_the_engine_gives(count: u64, source: Source) {
    let canonical = Machine::new(Compiler::Canonical);
    let plain = [Compiler::Speed, Compiler::Winch, Compiler::Pulley].map(Machine::new);
    let (compared, matters) = (plain.each_ref().map(|_| Tally::default()), Tally::default());
    let done = for_programs(count, source, |seed, wasm| {
        let wasm = rich_in_nans(wasm);
        let [open, settled] = [false, true].map(|settle_nans| {
            let options = Options { settle_nans, ..Options::default() };
            rewrite(&wasm, &options).expect("within the profile").wasm
        });
        let oracle = canonical.run(&canonical.compile(&open).expect("valid"), FUEL);
        for (machine, compared) in plain.iter().zip(&compared) {
            if let Some(module) = machine.compile(&settled) {
                assert_eq!(machine.run(&module, FUEL), oracle, "seed {seed}: {:?}", machine.compiler);
                compared.add(1);
            }
        }
        let awkward = plain[0].run(&plain[0].compile(&scramble(&open)).expect("valid"), FUEL);
        matters.add(u64::from(awkward != oracle));
    });
    println!("the rule matters to {} programs of {done}, {source:?}", matters.get());
    // wasm-smith seldom stores a float.
    let least = if matches!(source, Source::Smith) { done / 1000 } else { done / 10 };
    assert!(matters.get() > least, "programs whose NaNs nobody sees prove nothing");
    assert!(compared.iter().all(|compared| compared.get() > done * 9 / 10));
}

#[test]
fn the_nan_rule_gives_what_the_engine_gives_for_own_programs() {
    the_nan_rule_gives_what_the_engine_gives(250, Source::Own(150));
}

#[test]
fn the_nan_rule_gives_what_the_engine_gives_for_programs_of_wasm_smith() {
    the_nan_rule_gives_what_the_engine_gives(700, Source::Smith);
}

#[test]
fn a_program_that_shows_no_nan_of_its_own_is_left_alone() {
    let (machine, canonical) = (Machine::new(Compiler::Speed), Machine::new(Compiler::Canonical));
    let same = Tally::default();
    let done = for_programs(250, Source::Own(150), |seed, wasm| {
        let open = Options { settle_nans: false, ..Options::default() };
        let open = rewrite(wasm, &open).expect("within the profile").wasm;
        let end = machine.run(&machine.compile(&open).expect("valid"), FUEL);
        let others = [
            canonical.run(&canonical.compile(&open).expect("valid"), FUEL),
            machine.run(&machine.compile(&scramble(&open)).expect("valid"), FUEL),
        ];
        if others.iter().all(|other| *other == end) {
            let settled = rewrite(wasm, &Options::default()).expect("within the profile").wasm;
            let settled = machine.run(&machine.compile(&settled).expect("valid"), FUEL);
            assert_eq!(settled, end, "seed {seed}");
            same.add(1);
        }
    });
    println!("{} of {done} programs show no NaN that arithmetic made", same.get());
    assert!(same.get() > done / 10 && same.get() < done);
}

/// From the program on: generated, rewritten, compiled and run anew, by another compiler the second time.
fn a_program_comes_to_the_same_end_twice(count: u64, source: Source) {
    let machines = [Compiler::None, Compiler::Winch].map(Machine::new);
    let apart = Tally::default();
    let done = for_programs(count, source, |seed, first| {
        let second = source.program(seed).expect("within the profile, as before");
        let runs = [(&machines[0], first), (&machines[1], &second)].map(|(machine, wasm)| {
            let rewritten = rewrite(wasm, &Options::default()).expect("within the profile").wasm;
            let module = machine.compile(&rewritten);
            apart.add(u64::from(module.is_some()));
            // Winch does not know everything.
            let end = match module {
                Some(module) => machine.run(&module, FUEL),
                None => machines[0].run(&machines[0].compile(&rewritten).expect("valid"), FUEL),
            };
            (rewritten, end)
        });
        assert_eq!(runs[0], runs[1], "seed {seed}");
    });
    println!("{done} programs twice, {} on another compiler the second time, {source:?}", apart.get() - done);
}

#[test]
fn ten_thousand_own_programs_come_to_the_same_end_twice() {
    a_program_comes_to_the_same_end_twice(10_000, Source::Own(12));
}

#[test]
fn programs_of_wasm_smith_come_to_the_same_end_twice() {
    a_program_comes_to_the_same_end_twice(1500, Source::Smith);
}

#[test]
fn threads_rewrite_a_program_into_the_same_bytes() {
    let programs: Vec<_> = (1..=150).filter_map(|seed| Source::Smith.program(seed)).collect();
    assert!(programs.len() > 100);
    let all = || {
        let rewrite = |wasm: &Vec<u8>| rewrite(wasm, &Options::default()).expect("within the profile");
        programs.iter().map(rewrite).collect::<Vec<_>>()
    };
    let here = all();
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(all)).collect();
        for other in others {
            assert!(other.join().expect("no panic") == here);
        }
    });
}

#[test]
fn check_and_rewrite_take_any_bytes() {
    let mut random = Random(42);
    let mut within = 0;
    for seed in 0..200 {
        let wasm = if seed % 2 == 0 { generate(seed, 50) } else { talka_generator::program(seed) };
        for _ in 0..50 {
            let mut mutated = wasm.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(mutated.len());
                mutated[at] = random.next().to_le_bytes()[0];
            }
            mutated.truncate(mutated.len() - random.below(2) * random.below(mutated.len()));
            within += u32::from(check(&mutated).is_empty());
            // What is within the profile is rewritten into something valid, whatever it means.
            if let Ok(rewritten) = rewrite(&mutated, &Options::default()) {
                wasmparser::Validator::new().validate_all(&rewritten.wasm).expect("valid");
            }
        }
    }
    assert!(within > 0);
}
