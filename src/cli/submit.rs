//! `talka submit`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, builder::FalseyValueParser};
use talka_core::{
    ids::PeerId,
    job::{ErrorRate, Inputs},
    limits,
};
use talka_proto::wire;
use tokio_util::sync::CancellationToken;

use super::{
    CoordinatorFlags, EXIT_INTERRUPTED, bundle,
    job::print_end,
    program::{ONE_TASK, Program, ProgramFlags, Terms},
};
use crate::{
    client::Client,
    collect::Collector,
    error::{Code, Failure},
    inputs::{self, Packed, SplitBy},
    output::Out,
    problems::Problems,
    progress::{JobBar, bytes_bar},
    selector::parse_range,
    shutdown,
    upload::Upload,
    view::{self, Summary},
    watch,
};

/// `talka submit`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    talka submit prog.wasm --each data/*.csv -o results/    one task per file\n  \
    talka submit prog.wasm --each-line queries.txt --wait   one task per line\n  \
    talka submit prog.wasm --split big.csv --by lines:1000  one task per 1000 lines\n  \
    talka submit pi.wasm --array 0-999 -- --part {index}    one task per number\n\n\
    Without --array, --each, --each-line or --split the job is a single task without input.\n\
    Exit code with --wait: 0 when every task is done, 1 otherwise.\n\
    Ctrl-C while waiting: the job goes on.")]
pub(crate) struct SubmitFlags {
    #[command(flatten)]
    pub(crate) program: ProgramFlags,
    /// One task for each number from A to B, both included.
    #[arg(long, value_name = "A-B", env = "TALKA_ARRAY", help_heading = "Inputs")]
    pub(crate) array: Option<String>,
    /// One task for each file, which it reads from its standard input.
    #[arg(long, value_name = "FILES", num_args = 1.., env = "TALKA_EACH", help_heading = "Inputs")]
    pub(crate) each: Vec<PathBuf>,
    /// One task for each line of a file; - is standard input.
    #[arg(long, value_name = "FILE", env = "TALKA_EACH_LINE", help_heading = "Inputs")]
    pub(crate) each_line: Option<PathBuf>,
    /// One task for each piece of a file, cut as --by says; - is standard input.
    #[arg(long, value_name = "FILE", env = "TALKA_SPLIT", help_heading = "Inputs")]
    pub(crate) split: Option<PathBuf>,
    /// Where --split cuts: lines:N, bytes:N (as in bytes:1MiB) or records:FASTA.
    #[arg(long, value_name = "RULE", env = "TALKA_BY", help_heading = "Inputs")]
    pub(crate) by: Option<String>,
    /// Peers that must agree on each result [default: 2].
    #[arg(long, value_name = "NUMBER", env = "TALKA_QUORUM", help_heading = "Job")]
    pub(crate) quorum: Option<String>,
    /// Instead of a quorum: accept answers by what is known of those who gave them, so that at most so many of the
    /// results are wrong [default without a number: 0.001].
    #[arg(
        long,
        value_name = "SHARE",
        num_args = 0..=1,
        default_missing_value = "0.001",
        conflicts_with = "quorum",
        env = "TALKA_ERROR_RATE",
        help_heading = "Job"
    )]
    pub(crate) error_rate: Option<String>,
    /// With --error-rate: how many of the peers are assumed to lie of which nothing is known [default: 0.05].
    #[arg(long, value_name = "SHARE", env = "TALKA_LIARS", help_heading = "Job")]
    pub(crate) liars: Option<String>,
    /// Name of the job, for people [default: the program's file name].
    #[arg(long, value_name = "NAME", env = "TALKA_NAME", help_heading = "Job")]
    pub(crate) name: Option<String>,
    /// Among your own jobs, those of higher priority go first: -100 to 100 [default: 0].
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        env = "TALKA_PRIORITY",
        help_heading = "Job"
    )]
    pub(crate) priority: Option<String>,
    /// Only these peers get tasks of it: keys, as `talka peer list --json` shows them, with commas between.
    #[arg(long, value_name = "PEERS", value_delimiter = ',', env = "TALKA_ON", help_heading = "Job")]
    pub(crate) on: Vec<String>,
    /// Wait until the job has ended, and say what failed.
    #[arg(long, env = "TALKA_WAIT", value_parser = FalseyValueParser::new())]
    pub(crate) wait: bool,
    /// Wait, and write results into this directory as they become final: INDEX.out, results.jsonl.
    #[arg(long, short, value_name = "DIR", env = "TALKA_OUT_DIR")]
    pub(crate) out_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorFlags,
}

/// Where inputs come from, when they have to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Files(Vec<PathBuf>),
    Lines(PathBuf),
    Pieces(PathBuf, SplitBy),
}

/// A submission without mistakes in its flags.
#[derive(Debug)]
struct SubmitConfig {
    program: Program,
    /// `None`: the program's draft says it all.
    source: Option<Source>,
    wait: bool,
    out_dir: Option<PathBuf>,
    coordinator: CoordinatorFlags,
}

impl TryFrom<SubmitFlags> for SubmitConfig {
    type Error = Failure;

    fn try_from(flags: SubmitFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let given =
            [flags.array.is_some(), !flags.each.is_empty(), flags.each_line.is_some(), flags.split.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            problems.add(
                "--array, --each, --each-line and --split exclude each other: a job has one kind of input",
            );
        }
        let by = problems.optional("--by", flags.by.as_deref());
        if flags.split.is_some() != flags.by.is_some() {
            problems
                .add("--split and --by belong together: --split FILE --by lines:N, bytes:N or records:FASTA");
        }
        let inputs = match flags.array.as_deref().map(|text| (text, parse_range(text))) {
            None => ONE_TASK,
            Some((_, Some(range))) => Inputs::Array {
                first: *range.start(),
                count: (range.end() - range.start()).saturating_add(1),
            },
            Some((text, None)) => {
                problems.add(format!("--array {text}: write it as A-B with A ≤ B, as in 0-99"));
                ONE_TASK
            }
        };
        let source = match (flags.each_line, flags.split.zip(by)) {
            (Some(path), _) => Some(Source::Lines(path)),
            (None, Some((path, by))) => Some(Source::Pieces(path, by)),
            (None, None) if flags.each.is_empty() => None,
            (None, None) => Some(Source::Files(flags.each)),
        };
        let quorum = problems.parsed("--quorum", flags.quorum.as_deref(), limits::QUORUM_DEFAULT);
        let usual = ErrorRate::default();
        let error = problems.parsed("--error-rate", flags.error_rate.as_deref(), usual.error);
        let liars = problems.parsed("--liars", flags.liars.as_deref(), usual.liars);
        if flags.liars.is_some() && flags.error_rate.is_none() {
            problems.add("--liars goes with --error-rate: a quorum asks nobody who they are");
        }
        let error_rate = flags.error_rate.is_some().then_some(ErrorRate { error, liars });
        let priority = problems.parsed("--priority", flags.priority.as_deref(), 0);
        let on = flags.on.iter().map(|text| {
            if text.len() < 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                problems.add(format!(
                    "--on {text}: it takes the whole key of a peer, as talka --quiet peer list shows it"
                ));
                return None;
            }
            problems.optional("--on", Some(text))
        });
        // A peer that is misspelled is one problem, and not one more that there are too few.
        let on = on.collect::<Vec<_>>().into_iter().collect::<Option<Vec<PeerId>>>().unwrap_or_default();
        let terms = Terms { name: flags.name, quorum, error_rate, priority, on };
        let program = flags.program.validate(inputs, terms, &mut problems);
        problems.into_result(Self {
            program,
            source,
            wait: flags.wait || flags.out_dir.is_some(),
            out_dir: flags.out_dir,
            coordinator: flags.coordinator,
        })
    }
}

impl SubmitFlags {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let config = SubmitConfig::try_from(self)?;
        let module = bundle::load(&config.program.module)?;
        let signals = shutdown::on_signals().context("cannot listen for signals")?;
        let client = Client::connect(&config.coordinator).await?;
        let submission = async {
            client.check().await?;
            let packed = pack(config.source, out).await?;
            Upload::prepare(config.program, module, packed).await?.submit(&client, out).await
        };
        let accepted = tokio::select! {
            accepted = submission => accepted,
            () = signals.cancelled() => {
                let message = "interrupted before the coordinator accepted the job";
                Err(Failure::new(Code::Interrupted, message).into())
            }
        };
        let code = match accepted {
            Ok(info) if config.wait => wait(&client, out, &info, config.out_dir.as_deref(), &signals).await,
            Ok(info) => accept(out, &info).map(|()| ExitCode::SUCCESS),
            Err(error) => Err(error),
        };
        client.close().await;
        code
    }
}

async fn pack(source: Option<Source>, out: Out) -> anyhow::Result<Option<Packed>> {
    let Some(source) = source else { return Ok(None) };
    let bar = bytes_bar(out, "reading inputs", None);
    let reading = bar.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let on_bytes = |bytes| reading.inc(bytes);
        match source {
            Source::Files(paths) => inputs::pack_files(&paths, on_bytes),
            Source::Lines(path) => inputs::pack_lines(&path, on_bytes),
            Source::Pieces(path, by) => inputs::pack_pieces(&path, by, on_bytes),
        }
    });
    let packed = packed.await.context("reading the inputs failed")?;
    bar.finish_and_clear();
    packed.map(Some)
}

/// Tells the user what the job is called and what can be done with it.
fn accept(out: Out, info: &wire::JobInfo) -> anyhow::Result<()> {
    let (job, tasks) = (info.job, info.tasks);
    if out.is_json() {
        return out.json(&serde_json::json!({ "job": job, "tasks": tasks }));
    }
    if out.is_quiet() {
        return out.line(job);
    }
    out.line(submitted(job, tasks))?;
    out.note(format!(
        "  watch:    talka job progress {job}\n  \
           results:  talka job results {job} --follow -o results/\n  \
           cancel:   talka job cancel {job}"
    ));
    Ok(())
}

fn submitted(job: u64, tasks: u64) -> String {
    format!("job {job} submitted: {tasks} {}", if tasks == 1 { "task" } else { "tasks" })
}

async fn wait(
    client: &Client,
    out: Out,
    info: &wire::JobInfo,
    dir: Option<&Path>,
    signals: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let job = info.job;
    out.note(submitted(job, info.tasks));
    let bar = JobBar::new(out);
    let work = follow(client, out, job, dir, &bar);
    let ended = tokio::select! {
        ended = work => ended,
        () = signals.cancelled() => {
            bar.clear();
            return interrupted(out, job);
        }
    };
    bar.clear();
    let info = ended?;
    if info.failed > 0 && dir.is_none() {
        Collector::new(client, out, job).show_failures().await?;
    }
    if out.is_json() {
        out.json(&Summary::from(&info))?;
    } else {
        print_end(out, &info)?;
        if let Some(dir) = dir {
            out.note(format!("results are in {}", dir.display()));
        }
    }
    Ok(if view::is_success(&info) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Until the job has ended and everything that it left is written.
async fn follow(
    client: &Client,
    out: Out,
    job: u64,
    dir: Option<&Path>,
    bar: &JobBar,
) -> anyhow::Result<wire::JobInfo> {
    let watched = watch::until_final(client, job, out, |info| {
        bar.update(info);
        Ok(())
    });
    let Some(dir) = dir else { return watched.await };
    let collector = Collector::new(client, out, job);
    let show = |print: &mut dyn FnMut()| bar.suspend(print);
    let collected = collector.into_dir(dir, true, &show);
    let (info, _) = tokio::try_join!(watched, collected)?;
    Ok(info)
}

/// The command ends, the job does not.
fn interrupted(out: Out, job: u64) -> anyhow::Result<ExitCode> {
    let message =
        format!("job {job} goes on; watch it: talka job progress {job}; cancel it: talka job cancel {job}");
    if out.is_json() {
        return Err(Failure::new(Code::Interrupted, message).into());
    }
    out.remark(message);
    Ok(ExitCode::from(EXIT_INTERRUPTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> SubmitFlags {
        let program = ProgramFlags { module: "x.wasm".into(), ..ProgramFlags::default() };
        SubmitFlags { program, ..SubmitFlags::default() }
    }

    #[test]
    fn without_inputs_a_job_is_one_task_of_two_peers() {
        let config = SubmitConfig::try_from(flags()).expect("valid");
        assert_eq!(config.program.draft.inputs, Inputs::Array { first: 0, count: 1 });
        assert_eq!(config.program.draft.quorum, 2);
        assert_eq!((config.source, config.wait), (None, false));
    }

    #[test]
    fn an_array_includes_both_ends() {
        let config = SubmitFlags { array: Some("100-199".into()), ..flags() };
        let config = SubmitConfig::try_from(config).expect("valid");
        assert_eq!(config.program.draft.inputs, Inputs::Array { first: 100, count: 100 });
    }

    #[test]
    fn a_directory_for_results_implies_waiting() {
        let config = SubmitFlags { out_dir: Some("results".into()), ..flags() };
        assert!(SubmitConfig::try_from(config).expect("valid").wait);
    }

    #[test]
    fn a_quorum_is_of_the_peers_that_the_job_is_meant_for() {
        let key = |digit: &str| digit.repeat(64);
        let on = |on: Vec<String>| SubmitConfig::try_from(SubmitFlags { on, ..flags() });
        assert_eq!(on(vec![key("a"), key("b")]).expect("two for two").program.draft.on.len(), 2);
        let message = on(vec![key("a"), key("a")]).expect_err("one for two").to_string();
        assert!(message.contains("quorum 2 can't be reached by the 1 peer(s)"), "{message}");
        let message = on(vec![key("a"), "bob".into()]).expect_err("a name").to_string();
        assert!(message.contains("--on bob: ") && !message.contains("quorum"), "{message}");
    }

    #[test]
    fn all_problems_are_named() {
        let flags = SubmitFlags {
            array: Some("9-1".into()),
            each_line: Some("-".into()),
            by: Some("words:9".into()),
            quorum: Some("99".into()),
            name: Some("a\nb".into()),
            priority: Some("101".into()),
            on: vec!["nobody".into()],
            ..flags()
        };
        let message = SubmitConfig::try_from(flags).expect_err("broken").to_string();
        let parts = [
            "exclude each other",
            "belong together",
            "--by words:9: ",
            "--array 9-1: ",
            "quorum 99",
            "name must be",
            "priority 101",
            "--on nobody",
        ];
        for part in parts {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let whole = SubmitFlags { array: Some("0-18446744073709551615".into()), ..self::flags() };
        let message = SubmitConfig::try_from(whole).expect_err("too many").to_string();
        assert!(message.contains("above the limit"), "{message}");
    }
}
