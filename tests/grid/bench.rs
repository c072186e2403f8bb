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

#[test]
fn a_swarm_is_measured_with_peers_that_send_wrong_bytes() {
    let home = tempfile::tempdir().expect("a directory");
    let args = ["bench", "swarm", "--peers", "3", "--mib", "2", "--poisoners", "34%", "--json"];
    let report = Talka::new(home.path(), args).run().success().json();
    assert_eq!((&report["peers"], &report["mib"]), (&3.into(), &2.into()), "{report}");
    assert_positive(&report, &["seed_upload_ratio", "wall_secs", "cpu_secs"]);
    assert!(report["uplink_mb_s"].is_null() && report["fluid_bound_secs"].is_null(), "{report}");
    let poisoned = &report["poisoned"];
    assert_positive(poisoned, &["wall_secs", "times_clean", "seed_upload_ratio"]);
    assert_eq!((&poisoned["poisoners"], &poisoned["fetchers"]), (&1.into(), &3.into()), "{report}");
    assert!(poisoned["poisoners_fetched_bytes"].as_u64() > Some(0), "it fetches as others do: {report}");
    assert_eq!((&poisoned["wrong_bytes"], &poisoned["honest_banned"]), (&0.into(), &0.into()), "{report}");
}

#[test]
fn dispatching_is_measured_with_workers_that_run_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let args = ["bench", "dispatch", "--tasks", "3000", "--batch", "32", "--workers", "2", "--quorum", "2"];
    let report = Talka::new(home.path(), args).arg("--json").run().success().json();
    assert_eq!((&report["tasks"], &report["attempts"]), (&3000.into(), &6000.into()));
    let fields = ["wall_secs", "tasks_per_sec", "coordinator_cpu_us_per_attempt", "rss_mib"];
    assert_positive(&report, &fields);
    assert_positive(&report, &["wire_bytes_per_task", "disk_bytes_per_task"]);
    for field in ["lease_ms", "report_ms"] {
        assert_positive(&report[field], &["p50", "p99"]);
    }
    assert!(report.get("details").is_none() && report.get("idle").is_none(), "{report}");
}

#[test]
fn dispatching_is_measured_with_workers_that_run_the_program() {
    let home = tempfile::tempdir().expect("a directory");
    let args = ["bench", "dispatch", "--run", "--tasks", "2000", "--workers", "1", "--idle", "3"];
    let report = Talka::new(home.path(), args).args(["--details", "--json"]).run().success().json();
    assert_eq!(report["attempts"], 2000);
    assert_positive(&report, &["tasks_per_sec", "coordinator_cpu_us_per_attempt"]);
    assert_positive(&report["details"], &["submit_ms"]);
    assert_eq!(report["idle"]["sessions"], 3);
    assert!(report["lease_ms"].is_null() && report["wire_bytes_per_task"].is_null(), "{report}");
}

#[test]
fn the_time_to_a_result_is_measured() {
    let home = tempfile::tempdir().expect("a directory");
    let report = Talka::new(home.path(), ["bench", "latency", "-n", "5", "--json"]).run().success().json();
    assert_eq!(report["n"], 5);
    assert_positive(&report, &["p50_ms", "p99_ms"]);
}

#[test]
fn a_restart_with_open_attempts_is_measured() {
    let home = tempfile::tempdir().expect("a directory");
    let report =
        Talka::new(home.path(), ["bench", "restart", "--open", "3000", "--json"]).run().success().json();
    assert_eq!(report["open"], 3000);
    assert_positive(&report, &["secs", "rss_mib"]);
}
