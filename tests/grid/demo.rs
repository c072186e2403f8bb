//! `talka demo`: what it makes, and that it leaves nothing else.

use std::{fs, io::BufReader, path::Path};

use crate::harness::{Talka, number, sample, text};

/// Processes whose command line names a path.
fn processes_that_name(path: &Path) -> Vec<String> {
    let path = path.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&path)).collect()
}

#[test]
fn the_demo_renders_a_picture_counts_words_and_leaves_only_the_picture() {
    let home = tempfile::tempdir().expect("a directory");
    let tmp = home.path().join("tmp");
    fs::create_dir(&tmp).expect("a directory");
    let demo = Talka::new(home.path(), ["demo", "--json"]).env("TMPDIR", &tmp);
    let report = demo.run().success().json();

    let tasks = number(&report, "tasks");
    assert!(tasks >= 64 + 5, "{report}");
    assert_eq!((number(&report, "done"), number(&report, "failed")), (tasks, 0), "{report}");
    assert!(number(&report, "attempts") >= 2 * tasks, "{report}");
    assert!(number(&report, "bytes_from_coordinator") > 0, "{report}");
    assert!(number(&report, "bytes_from_peers") > 0, "workers fetch from each other, too: {report}");
    let total = report["credit_total"].as_f64().expect("a number");
    let workers = report["workers"].as_array().expect("a list");
    let credit: f64 = workers.iter().map(|row| row["credit"].as_f64().expect("a number")).sum();
    let validated: u64 = workers.iter().map(|row| number(row, "validated")).sum();
    assert!(workers.len() == 3 && total > 0.0 && (credit - total).abs() < 1e-6, "{report}");
    assert_eq!(validated, 2 * tasks, "{report}");

    // The picture that 64 tasks made is the one that a single task makes.
    let picture = text(&report, "picture");
    assert_eq!(Path::new(&picture).file_name().expect("a name"), "talka-demo.png");
    let file = BufReader::new(fs::File::open(&picture).expect("the picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("a picture");
    assert_eq!((info.width, info.height, info.color_type), (768, 768, png::ColorType::Rgb));
    let args = ["run", &sample("mandelbrot"), "--quiet", "--", "768", "1"];
    let whole = Talka::new(home.path(), args).run().success().stdout;
    assert!(pixels == whole, "the tiles are in their places");

    // The licence is plain ASCII, so that its words are easily counted.
    let licence = include_str!("../../LICENSE-APACHE");
    let count = &report["documents"][0];
    assert_eq!(text(count, "document"), "LICENSE-APACHE");
    assert_eq!(number(count, "words"), licence.split_ascii_whitespace().count() as u64);
    assert_eq!(number(count, "lines"), licence.lines().count() as u64);

    assert_eq!(
        (number(&report, "processes_stopped"), number(&report, "processes_killed")),
        (4, 0),
        "{report}"
    );
    assert_eq!(processes_that_name(&tmp), Vec::<String>::new());
    assert_eq!(fs::read_dir(&tmp).expect("a directory").count(), 0, "temporary files are left");
}
