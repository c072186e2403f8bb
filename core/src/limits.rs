//! Every bound of the grid, with its unit in its name and its reason beside it.
//!
//! Over a limit means a refusal that names the limit and the remedy; nothing is lost and nothing is
//! allocated. A number that bounds something lives here and nowhere else.

use std::time::Duration;

// ---- Jobs ----

/// Tasks of one job. An array is a range, so this costs bytes only for what is touched.
pub const JOB_TASKS_MAX: u64 = 100_000_000;
/// Tasks of one job with packed inputs: their offsets are held in memory, 8 bytes each.
pub const JOB_PACKED_TASKS_MAX: u64 = 5_000_000;
/// Length of a job's name in bytes: it stands in tables.
pub const JOB_NAME_BYTES_MAX: usize = 100;
/// Arguments and environment entries of a job.
pub const JOB_ARGS_MAX: usize = 256;
/// All arguments and environment entries of a job together: they travel with the job to each worker.
pub const JOB_ARGS_BYTES_MAX: usize = 64 << 10;
/// Shared datasets of a job.
pub const JOB_DATASETS_MAX: usize = 64;
/// Length of a dataset's name in bytes: one component of a path.
pub const DATASET_NAME_BYTES_MAX: usize = 200;
/// Packed inputs or one dataset: what a volunteer's disk may be asked to hold.
pub const BLOB_BYTES_MAX: u64 = 16 << 30;
/// Index of packed inputs: 5,000,000 entries of up to 5 bytes, and names.
pub const INPUT_INDEX_BYTES_MAX: u64 = 256 << 20;
/// One task's standard input: it is held in memory twice while it is handed to the executor.
pub const INPUT_BYTES_MAX: u64 = 256 << 20;
/// All datasets of a job together, for the same reason.
pub const DATASETS_BYTES_MAX: u64 = 512 << 20;
/// Attempts that must agree unless the job says otherwise: one lie is noticed.
pub const QUORUM_DEFAULT: u32 = 2;
/// Attempts that must agree.
pub const QUORUM_MAX: u32 = 15;
/// Attempts beyond the quorum before a task is given up as one on which nobody agrees.
pub const ATTEMPTS_BEYOND_QUORUM_MAX: u32 = 8;
/// Attempts without a result before a task is given up.
pub const NO_RESULTS_MAX: u32 = 4;
/// Unfinished jobs of one coordinator: each is looked at when work is handed out.
pub const ACTIVE_JOBS_MAX: usize = 10_000;
/// Lowest priority of a job.
pub const PRIORITY_MIN: i32 = -100;
/// Highest priority of a job: as many steps each way as anybody can tell apart.
pub const PRIORITY_MAX: i32 = 100;
/// Largest weight of a submitter; more would leave the others nothing that they notice.
pub const WEIGHT_MAX: u32 = 1000;
/// Peers that a job may be meant for: they are named one by one, and travel with the job.
pub const JOB_TARGETS_MAX: usize = 64;
/// Touched, unfinished tasks of one job, about 200 bytes each: a job that only one peer works at must
/// not pile up half-validated tasks without end.
pub const OPEN_TASKS_MAX: usize = 500_000;
/// Outputs of half-validated tasks of one job that are held in memory, for the same reason.
pub const HELD_OUTPUT_BYTES_MAX: u64 = 512 << 20;
/// Workers that left and hold no lease are forgotten after that; their credit stays.
pub const WORKER_FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

// ---- Trust ----

/// Smallest error rate that may be asked for, in millionths: 50,000 checks passed by one worker at 5 % liars.
pub const ERROR_RATE_PPM_MIN: u32 = 1;
/// Largest: more is no rate of errors, but a coin.
pub const ERROR_RATE_PPM_MAX: u32 = 500_000;
/// Error rate unless the job says otherwise: one wrong result in a thousand.
pub const ERROR_RATE_PPM_DEFAULT: u32 = 1_000;
/// Smallest share of liars that may be assumed, in millionths.
pub const LIARS_PPM_MIN: u32 = 1;
/// Largest: where half of all lie, agreement proves nothing.
pub const LIARS_PPM_MAX: u32 = 499_999;
/// Share of liars among newcomers that is assumed unless the job says otherwise.
pub const LIARS_PPM_DEFAULT: u32 = 50_000;
/// Part of its tasks that the most trusted worker is checked on, in millionths. It costs as many more attempts, and
/// what rests on one worker's word is looked at after 20 results on the average.
pub const CHECK_RATE_FLOOR_PPM: u32 = 50_000;
/// Results of one worker in one job that may rest on its word alone, before its next one is checked whatever was
/// drawn: ten times what is usual, and what one catch can cost to do again.
pub const UNCHECKED_RESULTS_MAX: usize = 200;
/// Answers to one task of a job with an error rate, before it is given up as one on which nobody agrees. Newcomers of whom
/// one in five lies need 8 on the average, and more than this once in millions of tasks.
pub const ERROR_RATE_VOTES_MAX: usize = 64;
/// Established workers at most that must be there beside those who have a task, before newcomers need one of them to
/// agree: fewer would hold up everybody in a large grid that is new, and the liars among them decide. In small grids one in
/// four of all workers suffices.
pub const ESTABLISHED_NEEDED_MAX: usize = 16;
/// Checks that a worker passed before it counts as established: as many as BOINC asks before it believes somebody.
pub const ESTABLISHED_CHECKS: u32 = 10;

// ---- One task's world ----

/// Default memory of a task.
pub const TASK_MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
/// Most memory that a job may ask for: what 32-bit WebAssembly can address.
pub const TASK_MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Default fuel of a task: some minutes of one core.
pub const TASK_FUEL_DEFAULT: u64 = 1_000_000_000_000;
/// Most fuel that a job may ask for: about a month of one core.
pub const TASK_FUEL_MAX: u64 = 10_000_000_000_000_000;
/// Default wall-clock deadline of an attempt.
pub const TASK_DEADLINE_DEFAULT: Duration = Duration::from_hours(1);
/// Longest deadline: a month, as long tasks of BOINC take.
pub const TASK_DEADLINE_MAX: Duration = Duration::from_hours(24 * 31);
/// Default limit of standard output and `/out` together.
pub const TASK_OUTPUT_BYTES_DEFAULT: u64 = 16 << 20;
/// Most output: the worker holds it in memory when it hashes it.
pub const TASK_OUTPUT_BYTES_MAX: u64 = 256 << 20;
/// Standard error that is kept: a log for people, cut at the end.
pub const TASK_STDERR_BYTES_MAX: usize = 16 << 10;
/// Files under `/out`.
pub const TASK_OUT_FILES_MAX: usize = 1000;
/// Length of a file name under `/out` in bytes.
pub const TASK_FILE_NAME_BYTES_MAX: usize = 255;
/// Open files of a program: as many as a process usually gets.
pub const TASK_OPEN_FILES_MAX: usize = 256;
/// Files under `/checkpoint` together, and a checkpoint as a whole, which also holds what the program wrote so far: it is
/// written to disk again and again.
pub const TASK_CHECKPOINT_BYTES_MAX: u64 = 64 << 20;
/// Part of the time since its start for which an attempt goes without a checkpoint, however often it offers one: an
/// interruption costs a tenth of what was done, within the next two bounds.
pub const CHECKPOINT_INTERVAL_PART: u32 = 10;
/// Shortest time between two checkpoints of an attempt, and before its first: who ends sooner costs no disk anything.
pub const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest time for which a checkpoint that is offered is not taken for being too soon.
pub const CHECKPOINT_INTERVAL_MAX: Duration = Duration::from_mins(1);
/// Bytes of checkpoints that an attempt may have written per second, on the average: the largest one once a minute.
pub const CHECKPOINT_BYTES_PER_SEC: u64 = 1 << 20;
/// Checkpoints of one attempt that are kept: the one before the last as well, in case the last is damaged.
pub const CHECKPOINT_GENERATIONS: usize = 2;
/// Checkpoints of a worker on its disk; the oldest go first.
pub const CHECKPOINTS_BYTES_MAX: u64 = 1 << 30;
/// Nested calls of a program: 8 units for a call, and one for each of its locals and operands, or one for each four
/// values that it computes, if that is more. Some 40,000 calls of ordinary functions.
pub const TASK_CALL_DEPTH_MAX: i32 = 1_000_000;
/// Native stack of a program, touched only as far as it is used: the 32 bytes of each unit of [`TASK_CALL_DEPTH_MAX`] (4
/// to 8 bytes are usual) and 1.5 MB for the function at the bottom, so that the count strikes first.
pub const TASK_STACK_BYTES: usize = 32 << 20;
/// Virtual time that a program may sleep in all.
pub const TASK_SLEEP_MAX: Duration = Duration::from_hours(24 * 30);

// ---- Modules ----

/// Size of a module. `CPython` as a component has 18 MB.
pub const MODULE_BYTES_MAX: u64 = 32 << 20;
/// Functions of a module; `CPython` has 13,600.
pub const MODULE_FUNCTIONS_MAX: u32 = 50_000;
/// Largest function body in bytes: compile time grows faster than it (a body of 1.6 MB took 10 s).
pub const MODULE_BODY_BYTES_MAX: u32 = 512 << 10;
/// Locals of one function.
pub const MODULE_LOCALS_MAX: u32 = 10_000;
/// Tables of a module.
pub const MODULE_TABLES_MAX: u32 = 4;
/// Elements of a table: 8 bytes each on the host, beside the memory limit.
pub const MODULE_TABLE_ELEMENTS_MAX: u64 = 200_000;
/// Data segments of a module: Go's linker leaves out zeros, so that its smallest program has 28,000. Engines
/// themselves stop at 100,000.
pub const MODULE_DATA_SEGMENTS_MAX: u32 = 90_000;
/// Globals of a module.
pub const MODULE_GLOBALS_MAX: u32 = 10_000;
/// Types of a module: large programs have some thousands, and each takes memory before anything else is known.
pub const MODULE_TYPES_MAX: u32 = 25_000;
/// Parameters and results of all types of a module together: each takes some 160 bytes in every process that
/// loads it, beside the memory limit.
pub const MODULE_TYPE_WORDS_MAX: u32 = 200_000;
/// Imports of a module. WASI has 45 functions; a linker that merges libraries may name each several times.
pub const MODULE_IMPORTS_MAX: u32 = 1_000;
/// Exports of a module: as many as it may have functions, for who links with `--export-all`.
pub const MODULE_EXPORTS_MAX: u32 = MODULE_FUNCTIONS_MAX;
/// Targets of one `br_table`: Cranelift refuses functions with more than 65,520.
pub const MODULE_BRANCH_TARGETS_MAX: u32 = 50_000;
/// CPU time of one compilation.
pub const COMPILE_CPU_MAX: Duration = Duration::from_mins(1);
/// Address space of the compile process.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Compiled modules that a worker keeps in memory; a single one can't be larger.
pub const COMPILED_BYTES_MAX: u64 = 512 << 20;
/// Compiled modules on the disk: the ordinary ones of hundreds of jobs; one of the largest leaves room for them.
pub const COMPILE_CACHE_BYTES_MAX: u64 = 1 << 30;
/// The same as files: all of them are looked through when a new one is written.
pub const COMPILE_CACHE_FILES_MAX: usize = 4096;
/// Jobs that one executor keeps, with their datasets, and programs, so that going from one to another costs nothing.
pub const EXECUTOR_JOBS_MAX: usize = 16;
/// Programs and datasets that one executor keeps beyond those of the job that it runs.
pub const EXECUTOR_LOADED_BYTES_MAX: u64 = 512 << 20;

// ---- Leases ----

/// Attempts in one lease: it is one message and one row.
pub const LEASE_ITEMS_MAX: usize = 512;
/// Attempts that one worker may hold: bounds what its loss can cost.
pub const WORKER_IN_FLIGHT_MAX: usize = 8192;
/// Attempts that a worker may hold before any of its results was validated: two for each of 32 slots. A larger
/// machine gets more after its first results.
pub const WORKER_IN_FLIGHT_START: usize = 64;
/// The same for one that comes from another machine and nobody vouches for: identities cost nothing. It doubles with
/// each round of validated results.
pub const NEWCOMER_IN_FLIGHT: usize = 2;
/// Invites that may be open at once.
pub const INVITES_MAX: usize = 1000;
/// Peers that may come with one invite.
pub const INVITE_USES_MAX: u32 = 10_000;
/// How long an invite may be of use unless somebody says otherwise.
pub const INVITE_TIME_DEFAULT: Duration = Duration::from_hours(7 * 24);
/// How long an invite may be of use at most: a year, after which nobody remembers who has it.
pub const INVITE_TIME_MAX: Duration = Duration::from_hours(366 * 24);
/// Peers that are not here that a list names because their coordinator's owner has said something of them.
pub const ADMISSIONS_LISTED_MAX: usize = 1000;
/// Jobs in a row that may go before an older one of the same submitter and priority because the worker has their
/// blobs already.
pub const LOCALITY_PASSES_MAX: u32 = 16;
/// Further jobs that are looked at for one whose blobs the worker has.
pub const LOCALITY_LOOK_MAX: usize = 64;
/// Time that an attempt runs at least before its task is given to a second worker as well.
pub const STRAGGLER_AGE_MIN: Duration = Duration::from_secs(5);
/// How many times longer than most others an attempt takes before its task is given to a second worker.
pub const STRAGGLER_FACTOR: u32 = 2;
/// Results of a job before it is known how long its attempts usually take.
pub const STRAGGLER_SAMPLES_MIN: u64 = 3;
/// One connected slot in so many may run a second attempt for a straggler.
pub const STRAGGLER_SLOTS_SHARE: u64 = 8;
/// Leases of one job that are searched for stragglers in one go, oldest first.
pub const STRAGGLER_LEASES_MAX: usize = 16;
/// Idle workers that are considered for one straggler.
pub const STRAGGLER_HELPERS_MAX: usize = 64;
/// Wait in a worker's queue from which an attempt is taken back for an idle worker: well above two messages and a
/// commit, below what a person notices.
pub const RECALL_WAIT_MIN: Duration = Duration::from_millis(100);
/// Jobs that are searched for work that waits elsewhere, for one idle worker.
pub const RECALL_JOBS_MAX: usize = 16;
/// Leases of each of them that are searched, newest first: those wait longest.
pub const RECALL_LEASES_MAX: usize = 16;
/// Attempts that are looked at in all of that: a hundredth of a millisecond.
pub const RECALL_ITEMS_MAX: usize = 512;
/// Idle workers for which work that waits elsewhere is looked for again in one go.
pub const RECALL_WORKERS_MAX: usize = 64;
/// Peers that are named for each reason why workers are passed over.
pub const EXPLAINED_PEERS_MAX: usize = 5;
/// Work that a worker is kept supplied with beyond what it runs.
pub const PREFILL: Duration = Duration::from_millis(500);
/// Part of a lease's time that is not for running: waiting in the queue, fetching, reporting.
pub const LEASE_SLACK: Duration = Duration::from_mins(10);
/// How long a worker that lost its connection keeps its leases.
pub const RECONNECT_GRACE: Duration = Duration::from_secs(10);
/// Slots that one worker may advertise.
pub const WORKER_SLOTS_MAX: u32 = 1024;
/// Workers connected to one coordinator.
pub const WORKERS_MAX: usize = 20_000;
/// Results that a worker holds until they are committed; it runs nothing new above that.
pub const WORKER_HELD_MAX: usize = 16_384;

// ---- Messages ----

/// Output that travels inside a report; larger ones are fetched after the quorum agreed.
pub const INLINE_OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// One control message. Bulk never goes over gRPC.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Input of a task that travels inside its lease, so that nothing has to be fetched for it.
pub const INLINE_INPUT_BYTES_MAX: u64 = 16 << 10;
/// Inputs in one lease together: with its items they stay below [`MESSAGE_BYTES_MAX`]. Where there is more, all of them
/// are fetched, and peers pass them on.
pub const LEASE_INPUTS_BYTES_MAX: u64 = 512 << 10;
/// Inputs that came in leases and wait in a worker; beyond that it fetches them when their turn comes.
pub const INLINE_INPUTS_HELD_BYTES_MAX: u64 = 64 << 20;
/// Reports in one message: with their outputs they stay below [`MESSAGE_BYTES_MAX`].
pub const REPORTS_MAX: usize = 512;
/// Bytes of outputs in one message of reports, so that it stays below [`MESSAGE_BYTES_MAX`].
pub const REPORTS_BYTES_MAX: usize = 768 << 10;
/// Messages that wait on one session, each way, before the sender waits.
pub const SESSION_QUEUE_MAX: usize = 256;
/// Messages of reports of one session whose answers it has not taken yet, before nothing more is read from it: more
/// than an honest worker ever has on their way, and a bound to what is held for one that does not read.
pub const SESSION_UNANSWERED_MAX: usize = 16;
/// Reports between their arrival and the fsync that makes them durable, in KiB as they came: a disk that stalls must
/// not fill the memory.
pub const REPORTS_IN_WORK_KIB_MAX: usize = 256 << 10;
/// Events that wait for the coordinator's state, before whoever brings one waits.
pub const REACTOR_QUEUE_MAX: usize = 4096;
/// Large outputs that a coordinator fetches from workers at the same time.
pub const OUTPUT_FETCHES_MAX: usize = 8;
/// Time for which an agreed output is waited for while nobody who has it can be reached: what a reboot or a broken line
/// takes. After that it is computed again, which costs a quorum of attempts.
pub const OUTPUT_WAIT_MAX: Duration = Duration::from_mins(10);
/// Large outputs that a worker keeps until nobody needs them; it starts nothing new above that.
pub const OUTPUTS_KEPT_BYTES_MAX: u64 = 4 << 30;
/// Time for which a worker keeps an output that nobody fetches: a coordinator that is down over a weekend finds it still.
pub const OUTPUT_KEPT_MAX: Duration = Duration::from_hours(72);
/// First pause before members that could not be reached are asked again; it doubles.
pub const OUTPUT_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
pub const OUTPUT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Attempts at one task whose outputs were lost, before it is given up: two of the largest quorums.
pub const OUTPUTS_LOST_MAX: usize = 32;
/// Rows in one page of a listing.
pub const PAGE_ROWS_MAX: u32 = 1000;

// ---- Store ----

/// Connections that read the store next to the one that writes: questions are short, and disks serve few
/// readers well.
pub const STORE_READERS: usize = 3;
/// Wait for a lock of the store, or for one of its readers.
pub const STORE_BUSY_MAX: Duration = Duration::from_secs(5);
/// Page cache of the writing connection in KiB: the open leases and reports of a busy coordinator fit. A commit that
/// has split a page looks through all of it, so a larger one is no faster.
pub const STORE_CACHE_KIB: i64 = 16 << 10;
/// Pages of the write-ahead log, 4 KiB each, before they are moved into the database: the longer, the more
/// commits share a page write, and the longer the pause when it happens.
pub const STORE_WAL_PAGES: u32 = 4000;
/// Size to which the write-ahead log is cut back after a long reader made it grow.
pub const STORE_WAL_BYTES_KEPT: u64 = 64 << 20;
/// Outputs in one page of results, which is held in memory.
pub const RESULTS_PAGE_BYTES_MAX: u64 = 4 << 20;

// ---- Ledger ----

/// Leaves of a tile of the ledger's tree, as a power of two: a proof recomputes one tile and reads the roots of the
/// others, 32 bytes for each 1,024 entries.
pub const LEDGER_TILE_BITS: u32 = 10;
/// Length of one entry: a task with as many votes as a quorum can lead to, each of which takes 30 bytes at most.
pub const LEDGER_ENTRY_BYTES_MAX: usize = 64 << 10;
/// Hashes of one proof: twice the depth of a tree with 2^63 leaves.
pub const LEDGER_PROOF_HASHES_MAX: usize = 128;
/// Name of an owner or a team: as long as a full name, short enough for a table.
pub const OWNER_NAME_BYTES_MAX: usize = 64;
/// Submitters that one worker names as trusted or as revoked: more than anybody looks at.
pub const TRUSTED_KEYS_MAX: usize = 256;
/// Messages of receipts that are looked at for one task: as many as reports may lead to a result, and more.
pub const RECEIPTS_PER_TASK_MAX: usize = 64;
/// A receipt file: a job's specification, a few signatures and paths.
pub const RECEIPT_FILE_BYTES_MAX: u64 = 4 << 20;
/// Receipts that a coordinator keeps: less than a byte each that says what its task became final with, some 38 another
/// one. Older ones go; what they vouch for can be executed again.
pub const RECEIPTS_KEPT: u64 = 1 << 20;

// ---- Network ----

/// HTTP/2 streams of one connection; tonic's own default is unlimited.
pub const HTTP2_STREAMS_MAX: u32 = 32;
/// Requests that one connection may have in progress.
pub const CONNECTION_REQUESTS_MAX: usize = 16;
/// Headers of one request.
pub const HTTP2_HEADER_BYTES_MAX: u32 = 8 << 10;
/// Time for one unary request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a QUIC connection is given up. A peer that was killed says no goodbye, and until then its
/// workers wait; opening a connection anew costs a few milliseconds and loses nothing.
pub const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(8);
/// Time between two packets of an idle QUIC connection: several may get lost before it is given up.
pub const CONNECTION_HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence on a connection before it is probed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Time for an answer to the probe.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that a client may have reset before they were accepted (CVE-2023-44487).
pub const HTTP2_PENDING_RESETS_MAX: usize = 20;
/// Streams that the server itself may have reset on one connection (CVE-2025-8671).
pub const HTTP2_LOCAL_RESETS_MAX: usize = 256;
/// HTTP/2 flow control window of one stream: a session's bursts on a long path.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 flow control window of one connection.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Connections to one server.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections from one address, /24 or /48. Loopback does not count.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// Connections of one key: a session, a control channel and a few commands at once.
pub const CONNECTIONS_PER_KEY_MAX: usize = 16;
/// Requests per second of one key, sustained.
pub const REQUESTS_PER_SECOND: u32 = 200;
/// Requests of one key at once.
pub const REQUESTS_BURST: u32 = 1000;
/// Requests per second of whoever has the coordinator's token, sustained: some 100 µs of its time each, so that one
/// script in a hurry takes a fifth of a processor and no more.
pub const SUBMITTER_REQUESTS_PER_SECOND: u32 = 2000;
/// The same at once.
pub const SUBMITTER_REQUESTS_BURST: u32 = 10_000;
/// Time to reach a peer, handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from an accepted connection to its first request.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// QUIC streams that a peer may have open on one connection: requests for ranges of blobs; control needs few.
pub const QUIC_STREAMS_MAX: u32 = 32;
/// QUIC flow control window of one stream: 100 Mbit/s on a path of 100 ms. It must stay below 2048 packets of
/// 1,200 bytes: what the library can hold for a reader that lags, before it breaks the connection.
pub const QUIC_STREAM_WINDOW_BYTES: u32 = 1_250_000;
/// QUIC flow control window of one connection; the library's own has no limit.
pub const QUIC_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// QUIC streams of one control connection, each of which carries an HTTP/2 connection of its own.
pub const GRPC_STREAMS_MAX: u32 = 4;
/// Accepted streams that wait for the server's loop, which only starts a task for each.
pub const ACCEPT_QUEUE_MAX: usize = 64;
/// Time for requests in progress to end before their connections are cut.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Addresses in a ticket: a host with more interfaces names the first ones.
pub const TICKET_ADDRESSES_MAX: usize = 16;
/// Connections that a relay carries at once. Each may have 512 packets waiting, of 64 KiB at worst.
pub const RELAY_CONNECTIONS_MAX: usize = 2_000;
/// Connections of one key to a relay: the last one gets the packets, others are about to end.
pub const RELAY_CONNECTIONS_PER_KEY_MAX: usize = 4;
/// Bytes per second that a relay takes from one connection unless its owner says otherwise: control and results of a fast
/// worker, and bulk that does not hurt others.
pub const RELAY_RATE_DEFAULT: u64 = 4 << 20;
/// Shortest token of a relay, in characters: 12 of 64 kinds can't be guessed over a network.
pub const RELAY_TOKEN_CHARS_MIN: usize = 12;
/// Longest token of a relay: it travels in each ticket.
pub const RELAY_TOKEN_CHARS_MAX: usize = 64;
/// Port on which a relay with TLS tells peers their public addresses (UDP), the one that peers expect.
pub const RELAY_QUIC_PORT: u16 = 7842;
/// How long a coordinator waits for its relay before it serves without.
pub const RELAY_START_MAX: Duration = Duration::from_secs(5);
/// How long coordinators on the local network are looked for: three questions, and what a sleepy machine takes to answer.
pub const LAN_SEARCH_MAX: Duration = Duration::from_secs(3);
/// Coordinators that are told of one search: what a person can choose from.
pub const LAN_COORDINATORS_MAX: usize = 32;
/// Answers per second on one local network, about 300 bytes each: what a laboratory that is switched on asks.
pub const LAN_ANSWERS_PER_SECOND: u64 = 50;
/// Longest message of service discovery that is read: what one packet of an Ethernet carries.
pub const LAN_MESSAGE_BYTES_MAX: usize = 1472;
/// Records of one such message that are looked at.
pub const LAN_RECORDS_MAX: usize = 64;
/// How long the DHT is searched for a coordinator: nodes that are silent cost seconds each time.
pub const DHT_SEARCH_MAX: Duration = Duration::from_secs(20);
/// Longest note that nodes of the DHT take (BEP 44).
pub const DHT_NOTE_BYTES_MAX: usize = 1000;
/// Peers in one note: what fits into it.
pub const DHT_ENTRIES_MAX: usize = 20;
/// Addresses of one peer in a note.
pub const DHT_ADDRESSES_MAX: usize = 8;
/// Length of a relay's URL: a host name and a path.
pub const RELAY_URL_BYTES_MAX: usize = 512;
/// Length of a ticket's text: 16 IPv6 addresses and the longest URL fit.
pub const TICKET_CHARS_MAX: usize = 2048;

// ---- Swarm ----

/// Blobs in whose exchange one peer may take part, as far as another one remembers: a claim costs a seat.
pub const EXCHANGED_BLOBS_PER_PEER_MAX: usize = 4096;
/// Peers that are named in one answer as those who exchange a blob.
pub const PROVIDERS_MAX: usize = 16;
/// Slowest provider that is waited for, in bytes per second.
pub const PROVIDER_RATE_MIN: u64 = 16 << 10;
/// Silence of a provider before another one is asked.
pub const PROVIDER_STALL_MAX: Duration = Duration::from_secs(10);
/// What is asked of a provider at once: a failure costs at most its unverified rest, and a new provider goes on
/// from there.
pub const PIECE_BYTES_MAX: u64 = 16 << 20;
/// What the swarm asks of a provider at once: small enough that it is passed on soon, large enough that the request
/// does not count (512 KiB made four peers slower, 4 MiB made the source send more).
pub const SWARM_PIECE_BYTES: u64 = 1 << 20;
/// Requests to one provider: one is served while the next one travels.
pub const SWARM_REQUESTS_PER_PROVIDER: usize = 2;
/// Requests for one blob to other peers than its source: each is a stream, a buffer of some pages and a window of the network.
pub const SWARM_REQUESTS_MAX: usize = 24;
/// Peers of which the pieces of one blob are followed, its source aside: each is a connection.
pub const SWARM_PROVIDERS_MAX: usize = 24;
/// Of those, peers that only other peers named and that never sent anything: however many of them are named, those that
/// a coordinator names find room.
pub const SWARM_HEARSAY_MAX: usize = 12;
/// Time after which a peer that never sent anything makes room for another one, when all room is taken.
pub const SWARM_USELESS_AFTER: Duration = Duration::from_secs(20);
/// Peers that one is told of at a time and asks who else takes part: each is a connection.
pub const EXCHANGE_WITH_MAX: usize = 4;
/// Peers of which addresses are remembered, to name them to others.
pub const ACQUAINTANCES_MAX: usize = 4096;
/// Time for which a peer with which a transport failed is asked by the other one.
pub const TRANSPORT_RETRY_AFTER: Duration = Duration::from_mins(5);
/// Ranges of a blob that one request of the second transport may name: those of a piece with each second group missing,
/// and some more.
pub const FETCH_RANGES_MAX: usize = 1024;
/// Bytes of a blob in one message of the second transport: large enough that the message does not count, and little to
/// hold for a reader that is slow.
pub const FETCH_PART_BYTES: usize = 64 << 10;
/// Followers by the second transport at once: each is a stream and a subscription at the store.
pub const EXCHANGE_FOLLOWERS_MAX: usize = 512;
/// Reports of what a provider has for each group of 16 KiB that there is, before it is taken for a flood: an honest one
/// needs less than one.
pub const FOLLOW_REPORTS_PER_GROUP: u64 = 2;
/// The same however small the blob is.
pub const FOLLOW_REPORTS_MIN: u64 = 1000;
/// Lowest limit that an owner may set for what is sent or taken per second: one piece takes 16 seconds then.
pub const RATE_LIMIT_MIN: u64 = 64 << 10;
/// Jobs for whose data a worker had no room and that it remembers, to say so when there is: the others come with its next
/// session.
pub const ROOM_WAITED_FOR_MAX: usize = 256;
/// Time from a refusal for lack of room until a worker says that there is some: what ends in one moment makes room for
/// what begins in the same.
pub const ROOM_SAID_AFTER: Duration = Duration::from_secs(2);
/// Time for which such a refusal holds whatever the worker says: each round of it costs the coordinator a lease.
pub const ROOM_REFUSAL_MIN: Duration = Duration::from_secs(1);
/// Time without a single piece after which a fetch is given up, to be tried again later.
pub const SWARM_GIVE_UP_AFTER: Duration = Duration::from_mins(1);
/// The same where a person waits: the dial of a peer that is gone takes half of it.
pub const SWARM_PATIENCE_OF_A_COMMAND: Duration = Duration::from_secs(10);
/// Members that are remembered of the exchange of one blob; of more, a peer could not speak with all anyway.
pub const SWARM_MEMBERS_MAX: usize = 1000;
/// Blobs of which a peer knows who exchanges them: those of all unfinished jobs, and of some more.
pub const SWARM_BLOBS_MAX: usize = 20_000;
/// Silence after which a member is taken for gone; who takes part asks again several times in this time.
pub const SWARM_MEMBER_SILENCE_MAX: Duration = Duration::from_mins(1);
/// Time after which a peer that was proved to lie is spoken with again: its disk may have been at fault.
pub const BAN_TIME: Duration = Duration::from_hours(1);
/// Banned peers that are remembered.
pub const BANS_MAX: usize = 10_000;
/// Requests that a peer serves at once, one of them to whoever waits longest: few, so that a slow uplink finishes one
/// after the other and not all at the end.
pub const UPLOAD_SLOTS: usize = 3;
/// Requests of one peer that are served or wait: what two downloads make of it.
pub const UPLOADS_PER_PEER_MAX: usize = 8;
/// Requests that wait for a slot, before others are refused.
pub const UPLOADS_WAITING_MAX: usize = 256;
/// Time for which nothing of an upload leaves, after which it has no slot any more and its peer gets no other: whoever
/// does not read must not keep others waiting.
pub const UPLOAD_STUCK_AFTER: Duration = Duration::from_secs(2);
/// Longest wait for a slot before whoever asked is told to ask others: well below [`PROVIDER_STALL_MAX`].
pub const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(4);
/// Blobs of which a peer remembers how often it sent each piece.
pub const UPLOAD_BLOBS_REMEMBERED: usize = 16;
/// Time after which what a peer sent counts half: it is served for what it does now.
pub const RECIPROCITY_HALF_LIFE: Duration = Duration::from_secs(20);
/// Peers whose exchange is remembered.
pub const RECIPROCITY_PEERS_MAX: usize = 4096;
/// Connections to providers that are kept open for the next request.
pub const PROVIDER_CONNECTIONS_MAX: usize = 256;
/// Peers that can't be dialed and offer their blobs over a connection of their own.
pub const REVERSE_PROVIDERS_MAX: usize = 20_000;
/// First pause before an offer whose connection broke is renewed; it doubles.
pub const OFFER_PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest such pause.
pub const OFFER_PAUSE_MAX: Duration = Duration::from_secs(30);
/// What blobs may take of a volunteer's disk unless its owner says otherwise: one of the largest jobs, and some more.
pub const DISK_BYTES_DEFAULT: u64 = 20 << 30;
/// Least that an owner may say: a program and a piece of its data.
pub const DISK_BYTES_MIN: u64 = 16 << 20;
/// Pause between collections of blobs that nobody names.
pub const BLOB_GC_INTERVAL: Duration = Duration::from_mins(5);
/// Questions of the provider that wait for an answer, before their transfers wait too.
pub const BLOB_EVENTS_MAX: usize = 256;

// ---- The volunteer's control ----

/// Shortest slice for which an executor runs or is stopped: well above what a signal and a switch cost.
pub const DUTY_SLICE_MIN: Duration = Duration::from_millis(10);
/// Longest such slice where the share allows it: below what a person notices as a stutter.
pub const DUTY_SLICE_MAX: Duration = Duration::from_millis(50);
/// Longest pause that ends by itself: who wants more pauses until further notice.
pub const PAUSE_MAX: Duration = Duration::from_hours(24 * 31);
/// One request on the control socket: a word and a number.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4 << 10;
/// One answer on the control socket: some 300 bytes for each of [`WORKER_SLOTS_MAX`] slots.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Connections to the control socket that are served at once; others wait in the socket's own queue.
pub const CONTROL_CONNECTIONS_MAX: usize = 8;
/// Time for one request on the control socket, question and answer.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the outputs that a finishing worker keeps to be fetched, before it leaves with them.
pub const FINISH_KEEPS_OUTPUTS: Duration = Duration::from_mins(1);

// ---- Command line ----

/// Jobs that a selection may name one by one: each is a request.
pub const SELECTED_JOBS_MAX: u64 = 10_000;
