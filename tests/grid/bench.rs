//! `talka bench`: what it prints, never how fast anything was.

use serde_json::Value;

use crate::harness::Talka;

/// The variants that are compared with native code.
const VARIANTS: [&str; 4] = ["unmetered", "engine_fuel", "counted", "counted_nan"];

fn assert_positive(value: &Value, fields: &[&str]) {
    for field in fields {
        let number = value[field].as_f64().unwrap_or_else(|| panic!("{field} is no number: {value}"));
        assert!(number.is_finite() && number > 0.0, "{field}: {value}");
    }
}

/// The command itself fails when a kernel prints anything else in the sandbox than natively.
#[test]
fn the_sandbox_is_measured_against_native_code() {
    let home = tempfile::tempdir().expect("a directory");
    let args = ["bench", "sandbox", "--quick", "--rounds", "1", "--json"];
    let report = Talka::new(home.path(), args).run().success().json();
    assert_positive(&report, &["empty_warm_us", "empty_cold_us", "pass_secs_per_mb"]);
    assert_positive(&report["geomean"], &VARIANTS);
    let kernels = report["kernels"].as_array().expect("a list");
    let names: Vec<&str> = kernels.iter().filter_map(|kernel| kernel["name"].as_str()).collect();
    assert_eq!(names, ["sha256", "nbody", "matmul", "sieve", "mandelbrot"]);
    for kernel in kernels {
        assert_positive(kernel, &["native_secs"]);
        assert_positive(kernel, &VARIANTS);
    }
}

#[test]
fn a_wrong_number_of_rounds_is_refused_before_anything_is_measured() {
    let home = tempfile::tempdir().expect("a directory");
    let ended = Talka::new(home.path(), ["bench", "sandbox", "--rounds", "0", "--json"]).run();
    let (code, message) = ended.error();
    assert_eq!(code, "usage");
    assert!(message.contains("--rounds"), "{message}");
}
