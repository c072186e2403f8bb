//! What workers have on their disks: programs, inputs, large outputs.

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{Grid, Guest, LONG, number, sample, text, until};

/// Text that differs by seed, in lines.
fn words(seed: usize, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 32);
    let mut number = seed * 1_000_003;
    while text.len() < bytes {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("{number:x}\n").as_bytes());
    }
    text
}

/// Bytes of blobs that lie on a worker's disk as files of their own.
fn stored(grid: &Grid, worker: usize) -> u64 {
    let Ok(files) = fs::read_dir(grid.worker_data(worker).join("blobs/data")) else { return 0 };
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

#[test]
fn a_large_output_is_delivered_by_a_worker_that_was_killed_before_anybody_heard_of_it() {
    let mut grid = Grid::start();
    let mut worker = grid.start_worker();
    let module = Guest::TakesASecondAndWritesMuch.write(&grid);
    let module = module.to_str().expect("UTF-8");
    let job = number(&grid.json(["submit", "--array", "0-0", "--quorum", "1", module]), "job");
    until("the task to run", LONG, || (number(&grid.job(job), "running") > 0).then_some(()));
    grid.kill_coordinator();
    until("the output to be kept", LONG, || {
        (number(&grid.worker_status(1), "attempts_done") == 1).then_some(())
    });
    worker.kill();
    grid.start_coordinator_again();
    let _again = grid.restart_worker(1);
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    let info = grid.job(job);
    assert_eq!((number(&info, "done"), number(&info, "attempts")), (1, 1), "{info}");
    assert_eq!(number(&grid.worker_status(1), "attempts_done"), 0, "it was not executed again");
    grid.talka(["job", "results", &job.to_string(), "-o", "out"]).run().success();
    assert_eq!(fs::read(grid.path("out/0.out")).expect("a result").len(), 256 << 10);
    until("the record to go", LONG, || {
        let left = fs::read_dir(grid.worker_data(1).join("outputs")).expect("a directory").count();
        (left == 0).then_some(())
    });
}

#[test]
fn large_outputs_come_from_workers_and_not_from_the_coordinator() {
    let (grid, _workers) = Grid::with_workers(2);
    // The first job makes its program and where it is dialed known.
    let data = grid.file("input", words(1, 3 << 20));
    let submit = ["submit", &sample("wordcount"), "--each"];
    grid.talka(submit).arg(&data).arg("--wait").run().success();
    let job =
        number(&grid.json(["submit", &sample("mandelbrot"), "--array", "0-3", "--", "512", "2"]), "job");
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    let served = || number(&grid.json(["coordinator", "status"]), "served_bytes");
    let before = served();
    grid.talka(["job", "results", &job.to_string(), "-o", "tiles"]).run().success();
    assert_eq!(served(), before, "four tiles of 196,608 bytes each");
    let local = grid.talka(["run", &sample("mandelbrot"), "--index", "2", "--", "512", "2"]).run().success();
    assert!(fs::read(grid.path("tiles/2.out")).expect("a tile") == local.stdout);
}

#[test]
fn an_output_that_is_nowhere_any_more_is_a_state_that_people_see() {
    let mut grid = Grid::start();
    let mut worker = grid.start_worker();
    let submit = ["submit", &sample("mandelbrot"), "--array", "0-1", "--quorum", "1", "--", "512", "2"];
    let job = number(&grid.json(submit), "job").to_string();
    grid.talka(["job", "wait", &job]).run().success();
    worker.kill();
    grid.kill_coordinator();
    // Somebody emptied the blob store, or the disk did.
    fs::remove_dir_all(grid.data_dir().join("blobs")).expect("removed");
    grid.start_coordinator_again();
    let ended = grid.talka(["job", "results", &job, "-o", "tiles"]).run().success();
    assert!(ended.stderr.contains("its output is lost"), "{}", ended.stderr);
    assert!(!grid.path("tiles/0.out").exists());
    let lines = fs::read_to_string(grid.path("tiles/results.jsonl")).expect("results");
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((text(&line, "state").as_str(), &line["output_lost"]), ("done", &Value::from(true)));
    }
    // The worker has them in its cache still.
    let _again = grid.restart_worker(1);
    let data = grid.file("input", words(1, 3 << 20));
    grid.talka(["submit", &sample("wordcount"), "--quorum", "1", "--wait", "--each"])
        .arg(&data)
        .run()
        .success();
    let ended = grid.talka(["job", "results", &job, "-o", "tiles"]).run().success();
    assert!(!ended.stderr.contains("lost"), "{}", ended.stderr);
    assert_eq!(fs::read(grid.path("tiles/1.out")).expect("a tile").len(), 256 * 256 * 3);
}

#[test]
fn a_worker_keeps_to_its_quota_and_says_what_it_has_no_room_for() {
    const QUOTA_MIB: u64 = 16;
    let mut grid = Grid::start();
    let _worker = grid.start_worker_with(&["--disk", "16MiB"]);
    let submit = |seed: usize, mib: usize| {
        let input = grid.file(&format!("input-{seed}"), words(seed, mib << 20));
        let submit = grid.talka(["--json", "submit", &sample("wordcount"), "--quorum", "1", "--each"]);
        number(&submit.arg(input).run().success().json(), "job")
    };
    for seed in 1..=5 {
        let job = submit(seed, 6);
        until("the job to end", LONG, || {
            let stored = stored(&grid, 1);
            assert!(stored <= (QUOTA_MIB + 1) << 20, "{stored} bytes are stored");
            (text(&grid.job(job), "state") == "finished").then_some(())
        });
    }
    assert!(stored(&grid, 1) > 6 << 20, "what was used last is kept for later");
    let disk = &grid.worker_status(1)["disk"];
    assert!(
        number(disk, "used") <= number(disk, "quota") && number(disk, "quota") == QUOTA_MIB << 20,
        "{disk}"
    );

    let large = submit(9, 20);
    let explained = until("the worker to refuse it", LONG, || {
        let explained = grid.json(["job", "explain", &large.to_string()]);
        explained.to_string().contains("no-room").then_some(explained)
    });
    assert!(explained.to_string().contains("worker start --disk"), "{explained}");
    assert!(stored(&grid, 1) <= (QUOTA_MIB + 1) << 20);
}

#[test]
fn a_job_for_which_a_worker_has_no_room_now_is_its_own_when_another_one_has_ended() {
    let mut grid = Grid::start();
    let _worker = grid.start_worker_with(&["--disk", "16MiB"]);
    let submit = |seed: usize, module: &str| {
        let data = format!("data={}", grid.file(&format!("data-{seed}"), words(seed, 10 << 20)).display());
        let submit = ["submit", "--quorum", "1", "--array", "0-0", "--data", &data, module];
        number(&grid.json(submit), "job")
    };
    let endless = Guest::LoopsForever.write(&grid);
    let first = submit(1, endless.to_str().expect("UTF-8"));
    let is_running = || (number(&grid.job(first), "running") == 1).then_some(());
    until("the first job to run", LONG, is_running);
    // Before a slot is free: it is asked for as soon as the worker's queue has room.
    let second = submit(2, &sample("empty")).to_string();
    let refused = || {
        let explained = grid.json(["job", "explain", &second]).to_string();
        explained.contains("no-room").then_some(())
    };
    until("the worker to refuse the second job", LONG, refused);
    grid.talka(["job", "cancel", &first.to_string()]).run().success();
    grid.talka(["job", "wait", &second]).run().success();
    let sessions = grid.worker_log(1).matches("session ended").count();
    assert_eq!(sessions, 0, "it was offered again in the same session: {}", grid.worker_log(1));
}

/// Flips a byte in the middle of the largest blob under a directory.
fn damage(blobs: &Path) {
    let files =
        fs::read_dir(blobs.join("data")).expect("a directory").map(|file| file.expect("a file").path());
    let data = files.filter(|path| path.extension().is_some_and(|ending| ending == "data"));
    let largest = data.max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("a blob");
    let mut bytes = fs::read(&largest).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place, as a disk does it.
    let file = fs::File::options().write(true).open(largest);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, &bytes)).expect("written");
}

#[test]
fn data_that_the_disk_has_damaged_is_fetched_again_and_the_result_is_right() {
    let (grid, _workers) = Grid::with_workers(1);
    let input = grid.file("input", words(1, 5 << 20));
    let count = |dir: &str| {
        let submit = grid.talka(["submit", &sample("wordcount"), "--quorum", "1", "-o", dir, "--each"]);
        submit.arg(&input).run().success();
        fs::read_to_string(grid.path(dir).join("0.out")).expect("a result")
    };
    let first = count("first");
    damage(&grid.worker_data(1).join("blobs"));
    assert_eq!(count("second"), first);
    assert!(grid.worker_log(1).contains("damaged"), "{}", grid.worker_log(1));
}

#[test]
fn ten_thousand_small_inputs_cost_no_more_requests_than_they_have_pieces() {
    const TASKS: usize = 10_000;
    const INPUT_BYTES: usize = 4 << 10;
    let (grid, _workers) = Grid::with_workers(1);
    let input = grid.file("input", words(1, TASKS * INPUT_BYTES));
    let size = fs::metadata(&input).expect("a file").len();
    let split = grid.talka([
        "--json",
        "submit",
        &sample("wordcount"),
        "--quorum",
        "1",
        "--by",
        "bytes:4096",
        "--split",
    ]);
    let job = number(&split.arg(&input).run().success().json(), "job");
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    let info = grid.job(job);
    assert!(number(&info, "done") >= TASKS as u64 && number(&info, "failed") == 0, "{info}");
    let status = grid.json(["coordinator", "status"]);
    let pieces = size.div_ceil(1 << 20);
    // And the program.
    let requests = number(&status, "served_requests");
    assert!(requests <= pieces + 1, "{requests} requests for {pieces} pieces: {status}");
    let served = number(&info, "served_bytes");
    assert!(served >= size, "{info}");
    let said = number(&info, "fetched_from_coordinator_bytes") + number(&info, "fetched_from_peers_bytes");
    assert!(said > 0, "{info}");
}
