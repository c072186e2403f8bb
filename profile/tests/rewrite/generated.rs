//! Programs that nobody would write.
//!
//! `TALKA_FUZZ_PROGRAMS` sets how many each test runs, `TALKA_FUZZ_SEED` the first of them.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use talka_core::limits::TASK_STACK_BYTES;
use talka_profile::{Options, check, rewrite};

use crate::{
    machine::{Compiler, Exit, Machine},
    program::{Random, generate},
    scramble::scramble,
};

/// Fuel of one program: most need some hundreds or thousands.
const FUEL: u64 = 3_000_000;

/// Runs `test` for many programs on all cores. It gets the seed, to be named when something is wrong.
fn for_programs(default: u64, size: usize, test: impl Fn(u64, &[u8]) + Sync) -> u64 {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse().ok());
    let count = number("TALKA_FUZZ_PROGRAMS").unwrap_or(default);
    let first = number("TALKA_FUZZ_SEED").unwrap_or(1);
    println!("{count} programs (TALKA_FUZZ_PROGRAMS) from seed {first} on (TALKA_FUZZ_SEED)");
    let next = AtomicU64::new(first);
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            let wasm = generate(seed, size);
            assert_eq!(check(&wasm), [], "seed {seed}");
            test(seed, &wasm);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let thread = std::thread::Builder::new().stack_size(TASK_STACK_BYTES + (4 << 20));
            thread.spawn_scoped(scope, run).expect("a thread");
        }
    });
    count
}

#[test]
fn the_count_is_that_of_the_engine() {
    let (engine, machine) = (Machine::metered(), Machine::new(Compiler::Speed));
    let compared = AtomicU64::new(0);
    let done = for_programs(1000, 150, |seed, wasm| {
        let options = Options { bulk_bytes_log2: 0, settle_nans: false, ..Options::default() };
        let rewritten = rewrite(wasm, &options).expect("within the profile").wasm;
        let oracle = engine.run(&engine.compile(wasm).expect("valid"), FUEL);
        let own = machine.run(&machine.compile(&rewritten).expect("valid"), FUEL);
        match oracle.exit {
            Exit::Returned => {
                assert_eq!(own, oracle, "seed {seed}");
                compared.fetch_add(1, Ordering::Relaxed);
            }
            Exit::Trap(wasmtime::Trap::OutOfFuel) => {
                assert!(!matches!(own.exit, Exit::Returned | Exit::Code(_)), "seed {seed}: {own:?}");
            }
            // A limit may strike first: what a trap leaves uncounted differs.
            _ => assert_eq!((own.exit, own.state), (oracle.exit, oracle.state), "seed {seed}"),
        }
    });
    let compared = compared.into_inner();
    println!("{compared} counts compared");
    assert!(compared > done / 2);
}

#[test]
fn every_compiler_and_cpu_comes_to_the_same_end() {
    let speed = Machine::new(Compiler::Speed);
    let others = [Compiler::None, Compiler::Canonical, Compiler::Winch].map(Machine::new);
    let (winch, settled, fuel) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let done = for_programs(1000, 150, |seed, wasm| {
        let rewritten = rewrite(wasm, &Options::default()).expect("within the profile");
        settled.fetch_add(rewritten.settled, Ordering::Relaxed);
        let rewritten = rewritten.wasm;
        let end = speed.run(&speed.compile(&rewritten).expect("valid"), FUEL);
        fuel.fetch_add(end.fuel, Ordering::Relaxed);
        let scrambled = speed.compile(&scramble(&rewritten)).expect("valid");
        assert_eq!(speed.run(&scrambled, FUEL), end, "seed {seed}: scrambled");
        for (machine, name) in others.iter().zip(["none", "canonical", "winch"]) {
            // Winch does not know everything.
            if let Some(module) = machine.compile(&rewritten) {
                assert_eq!(machine.run(&module, FUEL), end, "seed {seed}: {name}");
                winch.fetch_add(u64::from(name == "winch"), Ordering::Relaxed);
            }
        }
    });
    let (fuel, settled, winch) = (fuel.into_inner(), settled.into_inner(), winch.into_inner());
    println!("{fuel} fuel in all, NaNs settled at {settled} places, {winch} programs on Winch");
    assert!(winch > done / 10);
}

#[test]
fn a_program_that_shows_no_nan_of_its_own_is_left_alone() {
    let (machine, canonical) = (Machine::new(Compiler::Speed), Machine::new(Compiler::Canonical));
    let same = AtomicU64::new(0);
    let done = for_programs(1000, 150, |seed, wasm| {
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
            same.fetch_add(1, Ordering::Relaxed);
        }
    });
    let same = same.into_inner();
    println!("{same} of {done} programs show no NaN that arithmetic made");
    assert!(same > done / 10 && same < done);
}

#[test]
fn ten_thousand_programs_run_twice_come_to_the_same_end_twice() {
    let machines = [Compiler::None, Compiler::Winch].map(Machine::new);
    for_programs(10_000, 12, |seed, wasm| {
        let ends = machines.each_ref().map(|machine| {
            let rewritten = rewrite(wasm, &Options::default()).expect("within the profile").wasm;
            // Winch does not know everything.
            let compiled = machine.compile(&rewritten).map(|module| machine.run(&module, FUEL));
            compiled
                .unwrap_or_else(|| machines[0].run(&machines[0].compile(&rewritten).expect("valid"), FUEL))
        });
        assert_eq!(ends[0], ends[1], "seed {seed}");
    });
}

#[test]
fn check_and_rewrite_take_any_bytes() {
    let mut random = Random(42);
    let mut within = 0;
    for seed in 0..100 {
        let wasm = generate(seed, 50);
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
