//! Programs at random, from a generator that knows nothing of the profile: wasm-smith.
//!
//! [`program`] gives valid modules in the shape of a task's program: a function `_start`, one memory, a global of each
//! type whose last value can be looked at, and no import but WASI's. What they do is up to chance, and most of what the profile
//! allows occurs: unstructured jumps, dead code, several results, tables and segments, vectors, NaNs of any bits. Loops seldom
//! end and many programs trap, so whoever runs one needs a limit, and should compare how it ended.
//!
//! Nothing but tests depends on this crate. It is a crate, and a member that each build selects, because wasm-smith
//! switches on a feature of a library that the engine uses, too: as a dependency of tests alone, it
//! would have `cargo test` compile the whole engine a second time.
//!
//! ```
//! assert_eq!(talka_generator::program(7), talka_generator::program(7));
//! assert_ne!(talka_generator::program(7), talka_generator::program(8));
//! ```

use arbitrary::Unstructured;
use wasm_smith::{Config, Module};

/// Bytes that a program is made of: enough for its last function, which is `_start`.
const CHANCE_BYTES: usize = 12 << 10;

/// What each program exports.
const EXPORTS: &str = r#"(module
    (memory (export "memory") 1 3)
    (global (export "i32") (mut i32) (i32.const 0))
    (global (export "i64") (mut i64) (i64.const 0))
    (global (export "f32") (mut f32) (f32.const 0))
    (global (export "f64") (mut f64) (f64.const 0))
    (func (export "_start")))"#;

/// The export that only programs with vectors have.
const VECTOR_EXPORT: &str = r#"(global (export "v128") (mut v128) (v128.const i64x2 0 0))"#;

/// What programs import, if anything.
const IMPORTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))))"#;

/// The program of that seed. One in four may use references; of those, some use `externref`, which the profile refuses.
pub fn program(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let config = config(&mut random);
    loop {
        let chance: Vec<u8> = (0..CHANCE_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        // It gives up on bytes that it can make nothing of.
        if let Ok(module) = Module::new(config.clone(), &mut Unstructured::new(&chance)) {
            return module.to_bytes();
        }
    }
}

fn config(random: &mut Random) -> Config {
    let vectors = !random.next().is_multiple_of(3);
    let exports = if vectors {
        EXPORTS.replacen("(func", &format!("{VECTOR_EXPORT} (func"), 1)
    } else {
        EXPORTS.into()
    };
    let parse = |text: &str| Some(wat::parse_str(text).expect("the text of a module"));
    Config {
        exports: parse(&exports),
        available_imports: parse(IMPORTS),
        simd_enabled: vectors,
        reference_types_enabled: random.next().is_multiple_of(4),
        // Otherwise most programs end by a trap, and soon.
        disallow_traps: !random.next().is_multiple_of(3),
        max_funcs: 4,
        max_imports: 4,
        max_types: 12,
        max_globals: 8,
        max_data_segments: 2,
        max_element_segments: 4,
        max_elements: 20,
        max_instructions: 150,
        // The one that is exported comes on top.
        max_memories: 0,
        max_tables: 2,
        max_table_elements: 100,
        table_max_size_required: true,
        memory_max_size_required: true,
        // What the profile refuses.
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        ..Config::default()
    }
}

/// The sequence of Steele, Lea and Flood's `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
