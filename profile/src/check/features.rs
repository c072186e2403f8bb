//! Which proposals beyond the profile a module uses, by name and not as a validator's message.
//!
//! The module is validated with what the profile allows; as long as that fails for want of a proposal, the
//! proposal is reported, allowed, and the module is validated again. So every proposal is named in one
//! go, and what is still wrong at the end is wrong under any WebAssembly.

use wasmparser::{Error, Validator, WasmFeatures};

use super::problem::{Problems, Rule};

/// WebAssembly 2.0 without `externref`, and constant expressions with arithmetic.
const ALLOWED: WasmFeatures =
    WasmFeatures::WASM2.difference(WasmFeatures::GC_TYPES).union(WasmFeatures::EXTENDED_CONST);

/// A group of proposals, and what a submitter does about it.
struct Refused {
    features: WasmFeatures,
    rule: Rule,
    what: &'static str,
    remedy: &'static str,
}

const REFUSED: &[Refused] = &[
    Refused {
        features: WasmFeatures::THREADS.union(WasmFeatures::SHARED_EVERYTHING_THREADS),
        rule: Rule::Threads,
        what: "threads, atomic operators or shared memory, whose outcome depends on timing",
        remedy: "build without -pthread, for wasm32-wasip1 and not wasm32-wasip1-threads; the grid runs many tasks \
                 at once instead",
    },
    Refused {
        features: WasmFeatures::MEMORY64,
        rule: Rule::Memory64,
        what: "64-bit memories or tables",
        remedy: "build for wasm32",
    },
    Refused {
        features: WasmFeatures::RELAXED_SIMD,
        rule: Rule::RelaxedSimd,
        what: "relaxed SIMD, whose results differ between CPUs",
        remedy: "build with -msimd128 (or +simd128) and without -mrelaxed-simd",
    },
    Refused {
        features: WasmFeatures::EXCEPTIONS.union(WasmFeatures::LEGACY_EXCEPTIONS),
        rule: Rule::Exceptions,
        what: "exceptions",
        remedy: "build with -fno-exceptions, without setjmp, or with panic = \"abort\"",
    },
    Refused {
        features: WasmFeatures::GC
            .union(WasmFeatures::GC_TYPES)
            .union(WasmFeatures::FUNCTION_REFERENCES)
            .union(WasmFeatures::CUSTOM_DESCRIPTORS),
        rule: Rule::Gc,
        what: "garbage-collected types, externref or typed function references",
        remedy: "use a compiler that manages memory in linear memory, as those of C, C++, Rust, Go and Zig do",
    },
    Refused {
        features: WasmFeatures::TAIL_CALL,
        rule: Rule::TailCalls,
        what: "tail calls",
        remedy: "build with -mno-tail-call",
    },
    Refused {
        features: WasmFeatures::WIDE_ARITHMETIC,
        rule: Rule::WideArithmetic,
        what: "128-bit arithmetic",
        remedy: "build without -mwide-arithmetic",
    },
    Refused {
        features: WasmFeatures::STACK_SWITCHING,
        rule: Rule::StackSwitching,
        what: "stack switching",
        remedy: "build for released WebAssembly, 2.0",
    },
    Refused {
        features: WasmFeatures::CUSTOM_PAGE_SIZES,
        rule: Rule::CustomPageSizes,
        what: "memory pages that are not 64 KiB",
        remedy: "link without --page-size",
    },
];

/// All that a core module could use, refused or not.
const EVERYTHING: WasmFeatures = WasmFeatures::all();

/// Reports proposals that a module with that many memories uses.
pub(super) fn check(wasm: &[u8], memories: u64, problems: &mut Problems) {
    let mut features = ALLOWED;
    // The validator has no name for a second memory, and the survey has reported it.
    features.set(WasmFeatures::MULTI_MEMORY, memories > 1);
    // Each turn allows at least one more feature, so this ends.
    while let Err(error) = Validator::new_with_features(features).validate_all(wasm) {
        if features == EVERYTHING {
            problems.add(Rule::Invalid, invalid(&error));
            return;
        }
        let missing = error.missing_wasm_feature().unwrap_or(WasmFeatures::empty()).difference(features);
        if missing.is_empty() {
            // Not every message tells its feature; with all of them on, what remains is a plain error.
            if Validator::new_with_features(EVERYTHING).validate_all(wasm).is_ok() {
                proposal(&error, problems);
                return;
            }
            features = EVERYTHING;
            continue;
        }
        if let Some(refused) = REFUSED.iter().find(|refused| refused.features.intersects(missing)) {
            let Refused { rule, what, remedy, .. } = refused;
            let at = error.offset();
            problems.add(*rule, format!("the module uses {what} (at offset {at:#x}); {remedy}"));
            features |= refused.features;
        } else {
            proposal(&error, problems);
            features |= missing;
        }
    }
}

fn proposal(error: &Error, problems: &mut Problems) {
    if !problems.has(Rule::Proposal) {
        problems.add(
            Rule::Proposal,
            format!(
                "the module needs more than WebAssembly 2.0: {error}; build for released WebAssembly, 2.0"
            ),
        );
    }
}

fn invalid(error: &Error) -> String {
    let remedy = if error.message().contains("unexpected end") {
        "the file looks cut short; copy or download it again"
    } else {
        "build it again, and report this to the makers of its compiler if it stays"
    };
    let message: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
    format!("the module is not valid WebAssembly: {message}; {remedy}")
}
