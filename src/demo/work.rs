//! The two jobs of the demo: what they run, and following them to their end.

use std::{path::Path, time::Duration};

use anyhow::Context;
use talka_core::{
    job::Inputs,
    quantities::{Bytes, Span},
};
use talka_proto::wire;

use super::{
    QUORUM, documents,
    picture::{SIZE, TILES},
    screen::Screen,
};
use crate::{
    cli::{Program, ProgramFlags, Terms},
    client::Client,
    collect::Collector,
    format::secs_between,
    inputs::Packed,
    problems::Problems,
    upload::Upload,
    watch,
};

/// The modules, built from `sample-tasks`.
const MANDELBROT: &[u8] = include_bytes!("../../sample-tasks/wasm/mandelbrot.wasm");
const WORDCOUNT: &[u8] = include_bytes!("../../sample-tasks/wasm/wordcount.wasm");

/// A job that is ready to be submitted.
#[derive(Debug)]
pub(super) struct Work {
    name: &'static str,
    /// What one task makes.
    unit: &'static str,
    about: String,
    module: &'static [u8],
    program: Program,
    inputs: Option<Packed>,
}

/// A job that the coordinator took on.
#[derive(Debug)]
pub(super) struct Submitted {
    name: &'static str,
    unit: &'static str,
    job: u64,
    tasks: u64,
}

/// A job that has ended, and whose results are in files.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) name: &'static str,
    pub(super) info: wire::JobInfo,
}

impl Work {
    /// A picture in tiles.
    pub(super) fn picture() -> anyhow::Result<Self> {
        let tiles = (TILES * TILES) as u64;
        let args = vec![SIZE.to_string(), TILES.to_string()];
        Ok(Self {
            name: "picture",
            unit: "tiles",
            about: format!("{SIZE} × {SIZE} pixels of the Mandelbrot set in {tiles} tiles"),
            module: MANDELBROT,
            program: program("mandelbrot", Inputs::Array { first: 0, count: tiles }, args)?,
            inputs: None,
        })
    }

    /// Real texts, one task each.
    pub(super) fn words() -> anyhow::Result<Self> {
        let packed = documents::packed();
        let (count, bytes) = (packed.index.count(), Bytes::new(packed.index.total()));
        // The inputs take the place of the array when they are uploaded.
        Ok(Self {
            name: "words",
            unit: "documents",
            about: format!("the words of {count} documents of this project, {bytes}"),
            module: WORDCOUNT,
            program: program("wordcount", Inputs::Array { first: 0, count }, Vec::new())?,
            inputs: Some(packed),
        })
    }

    /// Hands it over.
    pub(super) async fn submit(self, client: &Client, screen: &Screen) -> anyhow::Result<Submitted> {
        let Self { name, unit, about, module, program, inputs } = self;
        let doing = || format!("the job {name} could not be submitted");
        let upload = Upload::prepare(program, module.to_vec(), inputs).await.with_context(doing)?;
        let info = upload.submit(client, screen.out()).await.with_context(doing)?;
        let job = info.job;
        screen.say(format!("job {job} is submitted: {about}, each computed by {QUORUM} workers"));
        Ok(Submitted { name, unit, job, tasks: info.tasks })
    }
}

impl Submitted {
    /// Shows how it goes and collects its results in `dir`.
    pub(super) async fn follow(
        self,
        client: &Client,
        dir: &Path,
        screen: &Screen,
    ) -> anyhow::Result<Finished> {
        let Self { name, unit, job, tasks } = self;
        let bar = screen.bar(name, unit, tasks);
        let mut quarters = 0;
        let watched = watch::until_final(client, job, screen.out(), |info| {
            bar.update(info);
            // Where no bar moves, a line now and then.
            let now = info.done * 4 / info.tasks.max(1);
            if now > quarters && now < 4 && !screen.is_live() {
                screen.say(format!("job {job}: {} of {} {unit}", info.done, info.tasks));
            }
            quarters = now;
            Ok(())
        });
        let collector = Collector::new(client, screen.out(), job);
        let show = |print: &mut dyn FnMut()| screen.suspend(print);
        let collected = collector.into_dir(dir, true, &show);
        let (info, _) =
            tokio::try_join!(watched, collected).with_context(|| format!("the job {name} failed"))?;
        bar.end();
        let secs = secs_between(info.submitted_millis, info.ended_millis);
        let span = Span(Duration::try_from_secs_f64(secs).unwrap_or_default());
        screen.say(format!("job {job} has ended: {} of {} {unit} in {span}", info.done, info.tasks));
        Ok(Finished { name, info })
    }
}

fn program(name: &str, inputs: Inputs, args: Vec<String>) -> anyhow::Result<Program> {
    let flags = ProgramFlags { module: format!("{name}.wasm").into(), args, ..ProgramFlags::default() };
    let mut problems = Problems::default();
    let program = flags.validate(inputs, Terms { quorum: QUORUM, ..Terms::default() }, &mut problems);
    Ok(problems.into_result(program)?)
}
