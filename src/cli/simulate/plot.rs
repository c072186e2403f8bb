//! Outcomes as a picture: one chart for each thing that is measured, one bar for each run.

use std::fmt::Write;

use talka_simulator::population::Outcome;

/// Sizes in pixels.
const BAR_HEIGHT: usize = 18;
const LABEL_WIDTH: usize = 150;
const BARS_WIDTH: usize = 420;
const TITLE_HEIGHT: usize = 34;

/// One chart: its title, its values, and how each is written.
struct Chart {
    title: &'static str,
    values: Vec<f64>,
    texts: Vec<String>,
}

/// The picture, as SVG.
pub(super) fn svg(outcomes: &[Outcome]) -> String {
    let charts = charts(outcomes);
    let height_of_chart = TITLE_HEIGHT + outcomes.len() * (BAR_HEIGHT + 4);
    let (width, height) = (LABEL_WIDTH + BARS_WIDTH + 120, charts.len() * height_of_chart + 16);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (number, chart) in charts.iter().enumerate() {
        chart.draw(outcomes, number * height_of_chart, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

#[expect(clippy::cast_precision_loss, reason = "shares of a picture")]
fn charts(outcomes: &[Outcome]) -> Vec<Chart> {
    let share = |outcome: &Outcome| outcome.wrong_accepted as f64 / outcome.tasks.max(1) as f64;
    let hours = |outcome: &Outcome| outcome.makespan_secs / 3600.0;
    let gib = |outcome: &Outcome| outcome.network_bytes as f64 / (1_u64 << 30) as f64;
    let chart = |title, value: &dyn Fn(&Outcome) -> f64, digits: usize| {
        let values: Vec<f64> = outcomes.iter().map(value).collect();
        let texts = values.iter().map(|value| format!("{value:.digits$}")).collect();
        Chart { title, values, texts }
    };
    vec![
        chart("wrong results accepted, as a share of all", &share, 6),
        chart("attempts per task", &Outcome::attempts_per_task, 3),
        chart("makespan in hours", &hours, 1),
        chart("network in GiB", &gib, 1),
    ]
}

impl Chart {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "pixels"
    )]
    fn draw(&self, outcomes: &[Outcome], top: usize, svg: &mut String) {
        let most = self.values.iter().copied().fold(0.0, f64::max);
        let title_at = top + 22;
        // Writing to a string never fails.
        let _ = writeln!(svg, "<text x=\"8\" y=\"{title_at}\" font-weight=\"bold\">{}</text>", self.title);
        let rows = outcomes.iter().zip(self.values.iter().zip(&self.texts));
        for (number, (outcome, (value, text))) in rows.enumerate() {
            let y = top + TITLE_HEIGHT + number * (BAR_HEIGHT + 4);
            let part = if most > 0.0 { value / most } else { 0.0 };
            let length = (part * BARS_WIDTH as f64) as usize;
            let color = if outcome.policy.to_string() == "error-rate" { "#2a7f62" } else { "#9aa5b1" };
            let (baseline, behind) = (y + 13, LABEL_WIDTH + length + 6);
            let label = format!("{}, seed {}", outcome.policy, outcome.seed);
            let _ = writeln!(
                svg,
                "<text x=\"8\" y=\"{baseline}\">{label}</text><rect x=\"{LABEL_WIDTH}\" y=\"{y}\" \
                 width=\"{length}\" height=\"{BAR_HEIGHT}\" fill=\"{color}\"/><text x=\"{behind}\" \
                 y=\"{baseline}\">{text}</text>"
            );
        }
    }
}
