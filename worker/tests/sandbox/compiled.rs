//! Compiled modules on the disk: found again without a process, and never believed when damaged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use talka_profile::{Options, rewrite};
use talka_worker::sandbox::{CompileError, Compiler, cache_usage};

use crate::{JobWorld, exe, executor, guest, hash_of, limits, run, stdouts};

/// A compiler that can't start a process: it has what it finds.
fn finder(data_dir: &Path) -> Compiler {
    Compiler::with_cache("/nonexistent/talka".into(), data_dir.to_owned())
}

fn the_only_file(data_dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(data_dir.join("compiled")).expect("a directory");
    let file = files.next().expect("a file").expect("a file").path();
    assert!(files.next().is_none());
    file
}

pub(crate) async fn a_module_is_compiled_once_for_all_processes() {
    let home = tempfile::tempdir().expect("a directory");
    let data_dir = home.path().join("deep/data");
    let wasm = guest("(call $echo)");
    let hash = hash_of(&wasm);
    let missing = finder(&data_dir).compile(hash, wasm.clone()).await;
    assert!(matches!(missing, Err(CompileError::Start(_))), "{missing:?}");

    let compiler = || Compiler::with_cache(exe(), data_dir.clone());
    let (one, other) = (compiler(), compiler());
    let (one, other) = tokio::join!(one.compile(hash, wasm.clone()), other.compile(hash, wasm.clone()));
    let (one, other) = (one.expect("compiled"), other.expect("compiled"));
    let found = finder(&data_dir).compile(hash, wasm.clone()).await.expect("found");
    let counted = rewrite(&wasm, &Options::default()).expect("a module of the profile").wasm;
    for program in [&one, &other, &found] {
        assert_eq!((program.hash, program.transformed()), (hash, hash_of(&counted)));
        assert_eq!(program.size(), one.size());
    }
    let job = JobWorld::new(found, vec![], limits(), 0, 0).into();
    assert_eq!(stdouts(run(&mut executor().await, &job, &["hello"]).await), ["hello"]);
    let usage = cache_usage(&data_dir).expect("readable").expect("there");
    assert_eq!(usage.modules, 1);

    let wrong = finder(&data_dir).compile(hash, guest("")).await;
    assert!(matches!(wrong, Err(CompileError::WrongHash)), "the hash alone opens nothing: {wrong:?}");
}

pub(crate) async fn a_damaged_file_is_compiled_again() {
    let home = tempfile::tempdir().expect("a directory");
    let wasm = guest("(call $echo)");
    let hash = hash_of(&wasm);
    let compile =
        async || Compiler::with_cache(exe(), home.path().to_owned()).compile(hash, wasm.clone()).await;
    let program = compile().await.expect("compiled");
    let file = the_only_file(home.path());
    let intact = fs::read(&file).expect("readable");
    // In the header, in the code, in the seal.
    for position in [0, 20, intact.len() / 2, intact.len() - 1] {
        let mut damaged = intact.clone();
        damaged[position] ^= 1;
        fs::write(&file, damaged).expect("written");
        let found = finder(home.path()).compile(hash, wasm.clone()).await;
        assert!(matches!(found, Err(CompileError::Start(_))), "byte {position}: {found:?}");
        assert!(!file.exists());
        assert_eq!(compile().await.expect("compiled").size(), program.size());
        assert_eq!(the_only_file(home.path()), file);
        finder(home.path()).compile(hash, wasm.clone()).await.expect("found");
    }
}

pub(crate) async fn without_a_disk_modules_are_still_compiled() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let compiler = Compiler::with_cache(exe(), file.path().join("below"));
    let wasm = guest("(call $echo)");
    let hash = hash_of(&wasm);
    let (one, other) = (compiler.compile(hash, wasm.clone()).await, compiler.compile(hash, wasm).await);
    assert!(std::sync::Arc::ptr_eq(&one.expect("compiled"), &other.expect("remembered")));
}

pub(crate) async fn a_refusal_leaves_nothing_behind() {
    let home = tempfile::tempdir().expect("a directory");
    let compiler = Compiler::with_cache(exe(), home.path().to_owned());
    let refused = compiler.compile(hash_of(b"no module"), b"no module"[..].into()).await;
    assert!(matches!(refused, Err(CompileError::Refused { .. })), "{refused:?}");
    assert_eq!(cache_usage(home.path()).expect("readable").expect("there").modules, 0);
}
