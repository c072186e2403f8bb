//! The figures, and what they should be.

use std::time::Duration;

use serde::Serialize;
use talka_worker::sandbox::measure::Variant;

use super::{SandboxConfig, kernels::Times, rounded, verdict};
use crate::output::Out;

/// Times that a task may take as long as native code: geometric mean over the kernels.
const GUEST_GOAL: f64 = 1.2;
/// An empty task in a warm executor, microseconds.
const EMPTY_WARM_US_GOAL: f64 = 50.0;
/// The pass, CPU seconds for each MB of module.
const PASS_SECS_PER_MB_GOAL: f64 = 1.0;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    empty_warm_us: f64,
    empty_cold_us: f64,
    kernels: Vec<KernelView>,
    geomean: Ratios,
    pass_secs_per_mb: f64,
    rounds: u32,
    quick: bool,
}

#[derive(Debug, Serialize)]
struct KernelView {
    name: &'static str,
    native_secs: f64,
    #[serde(flatten)]
    ratios: Ratios,
}

/// CPU time of each variant, as a multiple of the native one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Ratios {
    unmetered: f64,
    engine_fuel: f64,
    counted: f64,
    counted_nan: f64,
}

impl Ratios {
    /// `of` in the order of [`Variant::ALL`].
    fn new(of: [f64; Variant::ALL.len()]) -> Self {
        let [unmetered, engine_fuel, counted, counted_nan] = of;
        Self { unmetered, engine_fuel, counted, counted_nan }
    }

    fn values(self) -> [f64; Variant::ALL.len()] {
        [self.unmetered, self.engine_fuel, self.counted, self.counted_nan]
    }

    /// The geometric mean of each.
    fn geomean(all: &[Self]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a handful of kernels")]
        let count = all.len().max(1) as f64;
        let mut logs = [0.0; Variant::ALL.len()];
        for ratios in all {
            for (log, ratio) in logs.iter_mut().zip(ratios.values()) {
                *log += ratio.ln();
            }
        }
        Self::new(logs.map(|log| (log / count).exp()))
    }

    fn rounded(self) -> Self {
        Self::new(self.values().map(|ratio| rounded(ratio, 3)))
    }

    fn cells(self) -> [String; Variant::ALL.len()] {
        self.values().map(|ratio| format!("{ratio:.2}"))
    }
}

fn micros(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e6, 2)
}

impl Report {
    pub(super) fn new(
        config: SandboxConfig,
        empty_warm: Duration,
        empty_cold: Duration,
        kernels: Vec<Times>,
        pass_secs_per_mb: f64,
    ) -> Self {
        let ratios: Vec<Ratios> = kernels.iter().map(ratios).collect();
        let geomean = Ratios::geomean(&ratios).rounded();
        let kernels = kernels.into_iter().zip(ratios).map(|(times, ratios)| KernelView {
            name: times.name,
            native_secs: rounded(times.native.as_secs_f64(), 4),
            ratios: ratios.rounded(),
        });
        Self {
            empty_warm_us: micros(empty_warm),
            empty_cold_us: micros(empty_cold),
            kernels: kernels.collect(),
            geomean,
            pass_secs_per_mb: rounded(pass_secs_per_mb, 4),
            rounds: config.rounds,
            quick: config.quick,
        }
    }

    pub(super) fn print(&self, out: Out) -> anyhow::Result<()> {
        if out.is_json() {
            return out.json(self);
        }
        if out.is_quiet() {
            let kernels = self.kernels.iter().map(|kernel| (kernel.name, kernel.ratios.counted_nan));
            let figures = kernels.chain([
                ("geomean", self.geomean.counted_nan),
                ("empty_warm_us", self.empty_warm_us),
                ("empty_cold_us", self.empty_cold_us),
                ("pass_secs_per_mb", self.pass_secs_per_mb),
            ]);
            return figures.into_iter().try_for_each(|(name, value)| out.line(format!("{name} {value}")));
        }
        out.table(
            ["kernel", "native", "unmetered", "engine fuel", "counted", "counted, NaNs settled"],
            self.rows(),
        )?;
        out.note("Multiples of the native CPU time; tasks get the last column.");
        let warm = self.empty_warm_us;
        let pass = self.pass_secs_per_mb;
        out.fields([
            ("guest", self.guest_verdict()),
            (
                "empty, warm",
                verdict(
                    format!("{warm:.1} µs"),
                    format!("below {EMPTY_WARM_US_GOAL} µs"),
                    warm < EMPTY_WARM_US_GOAL,
                ),
            ),
            ("empty, cold", format!("{:.1} ms", self.empty_cold_us / 1000.0)),
            (
                "pass",
                verdict(
                    format!("{pass:.3} s per MB of module"),
                    format!("below {PASS_SECS_PER_MB_GOAL} s"),
                    pass < PASS_SECS_PER_MB_GOAL,
                ),
            ),
        ])
    }

    fn rows(&self) -> impl Iterator<Item = [String; 6]> {
        let row = |name: &str, native: String, ratios: Ratios| {
            let [unmetered, engine_fuel, counted, counted_nan] = ratios.cells();
            [name.to_owned(), native, unmetered, engine_fuel, counted, counted_nan]
        };
        let native = |kernel: &KernelView| format!("{:.3} s", kernel.native_secs);
        let kernels = self.kernels.iter().map(move |kernel| row(kernel.name, native(kernel), kernel.ratios));
        kernels.chain([row("geometric mean", String::new(), self.geomean)])
    }

    /// The mean, and which kernels are above what it should be.
    fn guest_verdict(&self) -> String {
        let mean = self.geomean.counted_nan;
        let verdict =
            verdict(format!("{mean:.2} × native"), format!("at most {GUEST_GOAL}"), mean <= GUEST_GOAL);
        let above = self.kernels.iter().filter(|kernel| kernel.ratios.counted_nan > GUEST_GOAL);
        let above: Vec<String> =
            above.map(|kernel| format!("{} {:.2}", kernel.name, kernel.ratios.counted_nan)).collect();
        if above.is_empty() { verdict } else { format!("{verdict}; above it: {}", above.join(", ")) }
    }
}

fn ratios(times: &Times) -> Ratios {
    let native = times.native.as_secs_f64().max(f64::MIN_POSITIVE);
    Ratios::new(times.variants.map(|time| time.as_secs_f64() / native))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(millis: &[(&'static str, u64, [u64; 4])]) -> Report {
        let times = millis.iter().map(|(name, native, variants)| Times {
            name,
            native: Duration::from_millis(*native),
            variants: variants.map(Duration::from_millis),
        });
        let config = SandboxConfig { rounds: 3, quick: true };
        let (warm, cold) = (Duration::from_nanos(7_250), Duration::from_millis(21));
        Report::new(config, warm, cold, times.collect(), 0.031_25)
    }

    #[test]
    fn the_json_has_the_agreed_form() {
        let report = report(&[("a", 100, [100, 200, 110, 120]), ("b", 200, [200, 200, 220, 960])]);
        let json = serde_json::to_string(&report).expect("JSON");
        assert_eq!(
            json,
            r#"{"empty_warm_us":7.25,"empty_cold_us":21000.0,"kernels":["#.to_owned()
                + r#"{"name":"a","native_secs":0.1,"unmetered":1.0,"engine_fuel":2.0,"counted":1.1,"counted_nan":1.2},"#
                + r#"{"name":"b","native_secs":0.2,"unmetered":1.0,"engine_fuel":1.0,"counted":1.1,"counted_nan":4.8}],"#
                + r#""geomean":{"unmetered":1.0,"engine_fuel":1.414,"counted":1.1,"counted_nan":2.4},"#
                + r#""pass_secs_per_mb":0.0313,"rounds":3,"quick":true}"#
        );
    }

    #[test]
    fn a_missed_goal_names_the_kernels_that_miss_it() {
        let report = report(&[("a", 100, [100, 200, 110, 120]), ("b", 200, [200, 200, 220, 960])]);
        assert_eq!(report.guest_verdict(), "2.40 × native (goal: at most 1.2, missed); above it: b 4.80");
        let good = self::report(&[("a", 100, [100, 200, 110, 110])]);
        assert_eq!(good.guest_verdict(), "1.10 × native (goal: at most 1.2, reached)");
    }
}
