//! One loop of kills under load. What was acknowledged is written down beside it and compared in the end.
//!
//! `TALKA_CRASH_KILLS=1000 TALKA_CRASH_SEED=7 cargo test --release --test crash -- kills --nocapture`

use std::{
    collections::BTreeMap,
    env,
    str::FromStr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Grid, LONG, Server, Talka, number, sample, until};

/// Kills of one run, unless `TALKA_CRASH_KILLS` says otherwise.
const KILLS: u64 = 50;
const WORKERS: usize = 3;
/// Jobs that are not finished, at most: load, but not more than can be finished in the end.
const UNFINISHED_MAX: usize = 4;
/// The longest pause between the first progress after a restart and the next kill.
const PAUSE_MILLIS: u64 = 400;
/// Time for all jobs to finish after the last kill: a worker that lost its coordinator notices after 8 seconds.
const FINISH: Duration = Duration::from_mins(2);

/// What was acknowledged, by whoever was told.
#[derive(Default)]
struct Acknowledged {
    /// Jobs that were accepted: tasks and quorum.
    jobs: Mutex<BTreeMap<u64, (u64, u64)>>,
    /// Jobs that were seen to be finished.
    finished: Mutex<BTreeMap<u64, Value>>,
    /// Results that were shown.
    results: Mutex<BTreeMap<(u64, u64), Value>>,
    /// Grows with each of them.
    count: AtomicU64,
    over: AtomicBool,
}

impl Acknowledged {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn unfinished(&self) -> Vec<u64> {
        let finished = lock(&self.finished);
        lock(&self.jobs).keys().filter(|job| !finished.contains_key(job)).copied().collect()
    }

    /// Notes what is shown of a task; it must be what was shown before.
    fn see(&self, job: u64, result: &Value) {
        let key = (job, number(result, "index"));
        let mut results = lock(&self.results);
        let known = results.entry(key).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            result.clone()
        });
        assert_eq!(known, result, "task {key:?} was shown before with another result");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// `SplitMix64`.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// Submits small arrays. What fails in the middle of a kill was not acknowledged.
fn submit_all(home: &std::path::Path, acknowledged: &Acknowledged, seed: u64) {
    let mut numbers = Numbers(seed);
    while acknowledged.goes_on() {
        if acknowledged.unfinished().len() >= UNFINISHED_MAX {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let (tasks, quorum) = (20 + numbers.below(200), 1 + numbers.below(2));
        let array = format!("0-{}", tasks - 1);
        let submit = ["submit", "--json", "--array", &array, "--quorum", &quorum.to_string()];
        let ended = Talka::new(home, submit).args([&sample("primes"), "--", "2000"]).run();
        if ended.code() == Some(0) {
            lock(&acknowledged.jobs).insert(number(&ended.json(), "job"), (tasks, quorum));
            acknowledged.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Looks at results and progress of what is not finished.
fn observe(home: &std::path::Path, acknowledged: &Acknowledged) {
    while acknowledged.goes_on() {
        for job in acknowledged.unfinished() {
            let job_text = job.to_string();
            let info = Talka::new(home, ["job", "info", &job_text, "--json"]).run();
            let results = Talka::new(home, ["job", "results", &job_text, "--json"]).run();
            if results.code() == Some(0) {
                results.json_lines().iter().for_each(|result| acknowledged.see(job, result));
            }
            if info.code() == Some(0) && info.json()["state"] == "finished" {
                lock(&acknowledged.finished).insert(job, info.json());
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The loop itself; returns how long each restart of the coordinator took.
fn kill_all(
    grid: &mut Grid,
    workers: &mut [Server],
    acknowledged: &Acknowledged,
    kills: u64,
    numbers: &mut Numbers,
) -> Vec<Duration> {
    let mut restarts = Vec::new();
    for _ in 0..kills {
        let before = acknowledged.count.load(Ordering::Relaxed);
        until("something to be acknowledged since the last kill", LONG, || {
            (acknowledged.count.load(Ordering::Relaxed) > before).then_some(())
        });
        // The one place where time has to pass: a kill is to come at any moment.
        thread::sleep(Duration::from_millis(numbers.below(PAUSE_MILLIS)));
        if numbers.below(2) == 0 {
            let begun = Instant::now();
            grid.restart_coordinator();
            restarts.push(begun.elapsed());
        } else {
            let victim = usize::try_from(numbers.below(WORKERS as u64)).expect("small");
            workers[victim].kill();
            workers[victim] = grid.restart_worker(victim + 1);
        }
    }
    restarts
}

#[test]
#[expect(clippy::print_stderr, reason = "the seed, and times that are no part of the verdict")]
fn kills_at_any_moment_lose_nothing_that_was_acknowledged() {
    let kills = from_environment("TALKA_CRASH_KILLS", KILLS);
    let seed = from_environment("TALKA_CRASH_SEED", u64::from(std::process::id()));
    eprintln!("TALKA_CRASH_SEED={seed} TALKA_CRASH_KILLS={kills}");
    let begun = Instant::now();
    let mut grid = Grid::start_with(&["--reconnect-grace", "2s"]);
    let mut workers: Vec<_> = (0..WORKERS).map(|_| grid.start_worker()).collect();
    let acknowledged = Acknowledged::default();
    let home = grid.path("");
    let mut restarts = thread::scope(|scope| {
        scope.spawn(|| submit_all(&home, &acknowledged, seed ^ 1));
        scope.spawn(|| observe(&home, &acknowledged));
        // Whatever ends the loop ends the load, or a failure would hang.
        let _end = Ends(&acknowledged);
        kill_all(&mut grid, &mut workers, &acknowledged, kills, &mut Numbers(seed))
    });
    let killed = begun.elapsed();
    let (jobs, results) = (lock(&acknowledged.jobs).len(), lock(&acknowledged.results).len());
    assert!(jobs > 1 && results as u64 >= kills, "no load: {jobs} jobs and {results} results");
    finish(&grid);
    verify(&grid, &acknowledged);

    restarts.sort();
    let at = |part: usize| restarts.get(restarts.len() * part / 100).copied().unwrap_or_default();
    let worst = restarts.last().copied().unwrap_or_default();
    eprintln!(
        "{kills} kills in {killed:.0?} ({} of the coordinator), all done after {:.0?}: {jobs} jobs and {results} results were \
         acknowledged, 0 lost; restart to serving p50 {:.0?}, p99 {:.0?}, longest {worst:.0?}",
        restarts.len(),
        begun.elapsed(),
        at(50),
        at(99),
    );
}

struct Ends<'a>(&'a Acknowledged);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// All jobs finish, those included whose acknowledgement was lost with a coordinator. When they don't, what the coordinator says of
/// them is the failure's text.
fn finish(grid: &Grid) {
    let list = || grid.json(["job", "list", "--limit", "1000000"]);
    let begun = Instant::now();
    while begun.elapsed() < FINISH {
        let jobs = list();
        if jobs.as_array().is_some_and(|jobs| jobs.iter().all(|job| job["state"] == "finished")) {
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let explained = grid.talka(["job", "explain", "all"]).run().success().text();
    let peers = grid.json(["peer", "list"]);
    panic!("not all jobs finished in {FINISH:?}: {:#}\n{explained}\n{peers:#}", list());
}

/// Everything that was acknowledged is there, and everybody has exactly the credit of what counts.
fn verify(grid: &Grid, acknowledged: &Acknowledged) {
    let jobs = grid.json(["job", "list", "--limit", "1000000"]);
    let jobs: BTreeMap<u64, &Value> =
        jobs.as_array().expect("a list").iter().map(|job| (number(job, "job"), job)).collect();
    for (job, (tasks, quorum)) in lock(&acknowledged.jobs).iter() {
        let info = jobs.get(job).unwrap_or_else(|| panic!("job {job} was accepted and is gone"));
        assert_eq!(
            (number(info, "tasks"), number(info, "done")),
            (*tasks, *tasks),
            "{info}, quorum {quorum}"
        );
    }

    let (mut credit, mut validated) = (BTreeMap::<String, f64>::new(), BTreeMap::<String, u64>::new());
    let mut digests = BTreeMap::<u64, String>::new();
    for job in jobs.keys() {
        let results = grid.results(*job);
        assert_eq!(results.len() as u64, number(jobs[job], "tasks"), "job {job}: each task once");
        for result in &results {
            let index = number(result, "index");
            if let Some(known) = lock(&acknowledged.results).remove(&(*job, index)) {
                assert_eq!(&known, result, "task {job}/{index} is not what was shown");
            }
            // The same program on the same input, whatever died meanwhile.
            let digest = result["digest"].as_str().expect("a digest").to_owned();
            let known = digests.entry(index).or_insert_with(|| digest.clone());
            assert_eq!(*known, digest, "task {job}/{index}");
            #[expect(clippy::cast_precision_loss, reason = "compared with a tolerance")]
            let earned = number(result, "fuel") as f64 / 1e9;
            for peer in result["peers"].as_array().expect("a list") {
                let peer = peer.as_str().expect("a key").to_owned();
                *credit.entry(peer.clone()).or_default() += earned;
                *validated.entry(peer).or_default() += 1;
            }
        }
    }
    assert!(lock(&acknowledged.results).is_empty(), "results of jobs that are gone");
    let rows = grid.credit();
    assert_eq!(rows.len(), credit.len(), "{rows:?}");
    for row in rows {
        assert_eq!((row.validated, row.invalid), (validated[&row.peer], 0), "{row:?}");
        assert!((row.amount - credit[&row.peer]).abs() < 1e-6, "{row:?}, granted {}", credit[&row.peer]);
    }
    let check = grid.json(["coordinator", "check", "--data-dir", &grid.data_dir().to_string_lossy()]);
    assert_eq!((check["ok"].as_bool(), check["problems"].as_array().map(Vec::len)), (Some(true), Some(0)));
}
