//! Who may work, and who may stand beside whom.

use crate::harness::{Grid, LONG, Server, Talka, number, sample, text, until};

/// A worker that is not let in: what it says when it gives up.
#[track_caller]
fn is_refused(grid: &Grid, dir: &str, ticket: &str) -> String {
    let args = ["worker", "start", "--cpus", "1", "--bind", "127.0.0.1:0", "--ticket", ticket];
    grid.talka(args).arg("--data-dir").arg(grid.path(dir)).run().exits(1).stderr
}

/// How a worker is listed.
fn listed(grid: &Grid, peer: &str) -> serde_json::Value {
    grid.json(["peer", "info", peer])
}

#[test]
fn whoever_is_not_invited_stays_out_and_an_invite_lets_in_as_many_as_it_says() {
    let mut grid = Grid::start_with(&["--admit", "invited"]);
    let open = text(&grid.json(["coordinator", "ticket", "--worker"]), "ticket");
    let said = is_refused(&grid, "stranger", &open);
    assert!(said.contains("talka coordinator ticket --invite"), "{said}");

    let invite = grid.json(["coordinator", "ticket", "--invite", "--uses", "1", "--expires", "1h"]);
    let invite = text(&invite, "ticket");
    let mut guest = grid.start_worker_with(&["--ticket", &invite]);
    assert_eq!(text(&listed(&grid, &guest.peer()), "admission"), "invited");
    let said = is_refused(&grid, "second", &invite);
    assert!(said.contains("invited workers only"), "{said}");

    // Whoever was let in may come again, and nobody else, whatever happens to the coordinator.
    guest.kill();
    grid.restart_coordinator();
    let _again = grid.restart_worker_with(1, &["--ticket", &open]);
    assert!(is_refused(&grid, "second", &invite).contains("invited workers only"));
    // Neither the invite's text nor anything that could be one is on the disk: its hash is.
    let token = invite.parse::<talka_peer::ticket::Ticket>().expect("a ticket").invite.expect("a token");
    let stored = std::fs::read(grid.data_dir().join("coordinator.db")).expect("a store");
    assert!(!stored.windows(16).any(|bytes| bytes == token.0), "the token itself is on the disk");
}

#[test]
fn the_coordinators_owner_approves_rejects_and_bans_and_nobody_else_does() {
    let mut grid = Grid::start_with(&["--admit", "approved"]);
    let ticket = grid.ticket().to_owned();
    let said = is_refused(&grid, "worker-1", &ticket);
    let key = said.split("talka peer approve ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let key = key.unwrap_or_else(|| panic!("no key in {said}")).to_owned();

    // Whoever has but the ticket, somewhere else, may submit and not decide.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let denied = Talka::new(elsewhere.path(), ["peer", "approve", &key, "--json", "--ticket", &ticket]);
    assert_eq!(denied.run().exits(1).error().0, "denied");

    let said = grid.json(["peer", "approve", &key]);
    assert_eq!((text(&said, "peer"), text(&said, "admission")), (key.clone(), "approved".into()));
    let mut worker = grid.start_worker();
    assert_eq!(worker.peer(), key);
    let info = listed(&grid, &key[..8]);
    assert_eq!(text(&info, "admission"), "approved");
    assert_eq!(info["reputation"]["established"].as_bool(), Some(true), "{info}");
    // What checks have shown is for the owner's eyes.
    let others = Talka::new(elsewhere.path(), ["peer", "info", &key, "--json", "--ticket", &ticket]);
    assert!(others.run().success().json()["reputation"].is_null());

    for (command, word) in [("ban", "banned"), ("reject", "rejected")] {
        grid.json(["peer", command, &key[..8]]);
        if word == "banned" {
            assert_eq!(worker.ends().code(), Some(1), "its session is over, and it is not let in again");
        }
        grid.restart_coordinator();
        assert!(is_refused(&grid, "worker-1", &ticket).contains(word));
        assert_eq!(text(&listed(&grid, &key), "admission"), word);
    }
    let said = grid.json(["peer", "reset", &key[..8]]);
    assert_eq!((text(&said, "peer"), text(&said, "admission")), (key.clone(), "open".into()));
    let refused = is_refused(&grid, "worker-1", &ticket);
    assert!(refused.contains(&format!("talka peer approve {key}")), "as if nothing had been said: {refused}");
}

#[test]
fn attempts_of_one_task_never_go_to_two_workers_of_one_owner() {
    let mut grid = Grid::start();
    let ada: Vec<Server> = (0..2).map(|_| grid.start_worker_with(&["--owner", "ada"])).collect();
    let job = grid.json(["submit", "--quorum", "2", "--array", "0-9", &sample("empty")]);
    let job = number(&job, "job");
    // Each task has the vote of one of them, and the other one does not get it.
    let explained = until("all first votes", LONG, || {
        let task = grid.json(["task", "explain", &format!("{job}/9")]);
        (text(&task, "state") == "validating").then_some(task)
    });
    let reasons = explained["passed_over"].as_array().expect("a list");
    assert!(reasons.iter().any(|group| group["reason"] == "same-owner"), "{explained}");
    let other = grid.start_worker();
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    for result in grid.results(job) {
        let peers: Vec<String> =
            result["peers"].as_array().expect("a list").iter().map(ToString::to_string).collect();
        let is_adas = |peer: &&String| ada.iter().any(|worker| peer.contains(&worker.peer()));
        assert_eq!(peers.iter().filter(is_adas).count(), 1, "{result}");
        assert!(peers.iter().any(|peer| peer.contains(&other.peer())), "{result}");
    }
}

#[test]
fn an_owners_name_that_is_said_again_is_no_news_for_the_ledger() {
    let mut grid = Grid::start();
    let mut worker = grid.start_worker_with(&["--owner", "ada"]);
    let entries = |grid: &Grid, name: &str| {
        let file = grid.path(name).display().to_string();
        number(&grid.json(["credit", "export", &file]), "entries")
    };
    let before = entries(&grid, "before");
    worker.kill();
    let _again = grid.restart_worker_with(1, &["--owner", "ada"]);
    assert_eq!(entries(&grid, "after"), before);
    // What is news is one entry, and the coordinator can prove that it only added it.
    let _other = grid.start_worker_with(&["--owner", "grace"]);
    let proved = grid.json(["credit", "prove", &grid.path("before").display().to_string()]);
    assert_eq!(proved["ok"].as_bool(), Some(true), "{proved}");
    assert!(number(&proved, "entries") > before, "{proved}");
}
