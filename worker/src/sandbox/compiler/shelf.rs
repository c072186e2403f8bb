//! A directory of files that are written once, used or not, and make room for new ones.
//!
//! A file appears whole, by a rename, and never changes. One that is removed while another process reads it
//! stays readable there. So processes that share the directory need no lock: all that they can do to one another is to
//! pass the bound by what each of them is writing at the moment.
//!
//! The file whose use is longest ago makes room. The time of its latest use is the file's time of
//! modification; it never goes back, even when the clock does.

use std::{
    fs::{self, DirBuilder, DirEntry, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;

use super::artefact::{FILE_BYTES_MAX, Rejected};

/// Ends the name of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// Tells the temporary files of this process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// What the directory may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) files: usize,
}

/// The directory, as this process sees it.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: PathBuf,
    bounds: Bounds,
    /// The latest use of any file.
    latest: SystemTime,
}

/// A hash in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName(String);

impl FileName {
    pub(super) fn new(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Shelf {
    /// Opens the directory, made if need be, and removes what dead processes left in it.
    pub(super) fn open(dir: PathBuf, bounds: Bounds) -> io::Result<Self> {
        create_private(&dir)?;
        let mut shelf = Self { dir, bounds, latest: SystemTime::UNIX_EPOCH };
        shelf.make_room(None)?;
        Ok(shelf)
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bytes of a file, which counts as used; `None` when there is none.
    pub(super) fn get(&mut self, name: &FileName) -> Result<Option<Vec<u8>>, Rejected> {
        let path = self.dir.join(name.as_str());
        let mut options = OpenOptions::new();
        // A link is not followed, and a pipe not waited for.
        options.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let mut file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) => {
                return Err(Rejected::NotAFile);
            }
            Err(error) => return Err(Rejected::Read(error)),
        };
        let metadata = file.metadata().map_err(Rejected::Read)?;
        if !metadata.is_file() {
            return Err(Rejected::NotAFile);
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(Rejected::Size(metadata.len()));
        }
        // It may grow meanwhile, but what is read has a limit of its own.
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        (&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Rejected::Read)?;
        // It is as good when nobody can note its use.
        drop(file.set_modified(self.next_use()));
        Ok(Some(bytes))
    }

    /// Writes a file of these parts, in place of any other of that name.
    pub(super) fn put(&mut self, name: &FileName, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        if bytes > self.bounds.bytes {
            return Ok(());
        }
        // Somebody may have cleaned up.
        create_private(&self.dir)?;
        self.make_room(Some((name, bytes)))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}.{}-{number}{TEMPORARY}", name.as_str(), std::process::id());
        let temporary = self.dir.join(temporary);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written =
            fill(file, parts, self.next_use(), || fs::rename(&temporary, self.dir.join(name.as_str())));
        if written.is_err() {
            // Or the next one who makes room does it.
            drop(fs::remove_file(&temporary));
        }
        written?;
        File::open(&self.dir)?.sync_all()
    }

    /// Removes whatever has this name.
    pub(super) fn remove(&self, name: &FileName) -> io::Result<()> {
        remove(&self.dir.join(name.as_str()))
    }

    /// Removes all files.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        list(&self.dir)?.iter().try_for_each(|entry| remove(&entry.path))
    }

    /// Removes what is not used any more, until there is room for a file of that name and size.
    fn make_room(&mut self, incoming: Option<(&FileName, u64)>) -> io::Result<()> {
        let (mut bytes, mut files) = incoming.map_or((0, 0), |(_, bytes)| (bytes, 1));
        let mut kept = Vec::new();
        for entry in list(&self.dir)? {
            let replaced = || incoming.is_some_and(|(name, _)| entry.path.ends_with(name.as_str()));
            match entry.kind {
                Kind::Stray => remove(&entry.path)?,
                Kind::Temporary if is_abandoned(&entry.path) => remove(&entry.path)?,
                Kind::Temporary => bytes = bytes.saturating_add(entry.bytes),
                Kind::Whole if replaced() => {}
                Kind::Whole => {
                    bytes = bytes.saturating_add(entry.bytes);
                    files += 1;
                    kept.push((entry.used, entry.path, entry.bytes));
                }
            }
        }
        kept.sort();
        self.latest = kept.last().map_or(self.latest, |(used, ..)| self.latest.max(*used));
        for (_, path, size) in kept {
            if bytes <= self.bounds.bytes && files <= self.bounds.files {
                break;
            }
            remove(&path)?;
            bytes = bytes.saturating_sub(size);
            files -= 1;
        }
        Ok(())
    }

    /// A time later than every use before.
    fn next_use(&mut self) -> SystemTime {
        let now = SystemTime::now();
        let after = self.latest.checked_add(Duration::from_nanos(1));
        self.latest = after.map_or(now, |after| after.max(now));
        self.latest
    }
}

/// Files and bytes of a directory, and nothing is changed.
pub(super) fn usage(dir: &Path) -> io::Result<(usize, u64)> {
    let entries = list(dir)?;
    let bytes = entries.iter().fold(0, |bytes: u64, entry| bytes.saturating_add(entry.bytes));
    Ok((entries.len(), bytes))
}

/// What is found under a name that belongs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    /// Being written, by a process that may have died meanwhile.
    Temporary,
    /// No file at all.
    Stray,
}

struct Entry {
    path: PathBuf,
    kind: Kind,
    bytes: u64,
    used: SystemTime,
}

/// Everything with a name that belongs here.
fn list(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for found in fs::read_dir(dir)? {
        entries.extend(entry(&found?));
    }
    Ok(entries)
}

/// `None` for what does not belong here, and for what is gone since: another process made room.
fn entry(found: &DirEntry) -> Option<Entry> {
    const DIGITS: usize = 2 * blake3::OUT_LEN;
    let name = found.file_name().into_encoded_bytes();
    let (digits, rest) = name.split_at_checked(DIGITS)?;
    if !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let metadata = found.metadata().ok()?;
    let kind = match rest {
        _ if !metadata.is_file() => Kind::Stray,
        [] => Kind::Whole,
        _ if rest.ends_with(TEMPORARY.as_bytes()) => Kind::Temporary,
        _ => return None,
    };
    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some(Entry { path: found.path(), kind, bytes: metadata.len(), used })
}

/// Fills a new file, and moves it into its place when all of it is on the disk. The file is locked until then, to show
/// that its writer lives; the kernel unlocks it when that dies.
fn fill(
    mut file: File,
    parts: &[&[u8]],
    used: SystemTime,
    rename: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // Where there are no locks, or somebody has it, another process may take the file for a leftover.
    drop(file.try_lock());
    for part in parts {
        file.write_all(part)?;
    }
    drop(file.set_modified(used));
    file.sync_all()?;
    match rename() {
        // It was taken for one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Whether the writer of a temporary file is dead.
fn is_abandoned(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => !matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => true,
    }
}

/// Makes a directory that is its owner's alone, or makes it so.
fn create_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let private = fs::Permissions::from_mode(0o700);
    if found.permissions().mode() & 0o777 == 0o700 { Ok(()) } else { fs::set_permissions(dir, private) }
}

/// Removes whatever is there, if it still is.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 100, files: 10 };

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let home = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::open(home.path().join("shelf"), BOUNDS).expect("a shelf");
        (home, shelf)
    }

    fn name(number: u8) -> FileName {
        FileName::new(blake3::Hash::from_bytes([number; 32]))
    }

    fn put(shelf: &mut Shelf, number: u8, bytes: usize) {
        shelf.put(&name(number), &[&vec![number; bytes]]).expect("written");
    }

    /// Which files are there.
    fn numbers(shelf: &Shelf) -> Vec<u8> {
        let whole = |number: &u8| shelf.dir.join(name(*number).as_str()).is_file();
        (0..=u8::MAX).filter(whole).collect()
    }

    fn is_empty(dir: &Path) -> bool {
        fs::read_dir(dir).expect("a directory").next().is_none()
    }

    #[test]
    fn a_file_comes_back_in_one_piece_and_is_its_owners_alone() {
        let (_home, mut shelf) = shelf();
        assert!(shelf.get(&name(1)).expect("readable").is_none());
        shelf.put(&name(1), &[b"one", b"", b"two"]).expect("written");
        assert_eq!(shelf.get(&name(1)).expect("readable").expect("there"), b"onetwo");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(shelf.dir()), mode(&shelf.dir().join(name(1).as_str()))), (0o700, 0o600));
        shelf.put(&name(1), &[b"three"]).expect("written");
        assert_eq!(shelf.get(&name(1)).expect("readable").expect("there"), b"three");
        assert_eq!(usage(shelf.dir()).expect("readable"), (1, 5));
        shelf.clear().expect("cleared");
        assert!(is_empty(shelf.dir()));
    }

    #[test]
    fn a_directory_that_others_may_use_is_closed() {
        let home = tempfile::tempdir().expect("a directory");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("set");
        let shelf = Shelf::open(home.path().to_owned(), BOUNDS).expect("a shelf");
        assert_eq!(fs::metadata(shelf.dir()).expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let (_home, mut shelf) = shelf();
        for number in 0..3 {
            put(&mut shelf, number, 30);
        }
        assert!(shelf.get(&name(0)).expect("readable").is_some(), "used again");
        put(&mut shelf, 3, 30);
        assert_eq!(numbers(&shelf), [0, 2, 3]);
        put(&mut shelf, 4, 60);
        assert_eq!(numbers(&shelf), [3, 4]);
        put(&mut shelf, 4, 70);
        assert_eq!(numbers(&shelf), [3, 4], "one that is replaced takes no room");
        put(&mut shelf, 5, 100);
        assert_eq!(numbers(&shelf), [5]);
        put(&mut shelf, 6, 101);
        assert_eq!(numbers(&shelf), [5], "what can't fit does not drive out what does");
    }

    #[test]
    fn there_are_never_too_many_files() {
        let (_home, mut shelf) = shelf();
        for number in 0..30 {
            put(&mut shelf, number, 1);
        }
        assert_eq!(numbers(&shelf), (20..30).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_of_use_survives_a_clock_that_was_set_back() {
        let (home, mut first) = shelf();
        put(&mut first, 0, 40);
        let file = File::open(first.dir().join(name(0).as_str())).expect("there");
        let future = SystemTime::now() + Duration::from_hours(24 * 365);
        file.set_modified(future).expect("set");
        let mut shelf = Shelf::open(home.path().join("shelf"), BOUNDS).expect("a shelf");
        put(&mut shelf, 1, 40);
        put(&mut shelf, 2, 40);
        assert_eq!(numbers(&shelf), [1, 2]);
    }

    #[test]
    fn a_smaller_bound_holds_as_soon_as_the_directory_is_opened() {
        let (home, mut large) = shelf();
        for number in 0..3 {
            put(&mut large, number, 30);
        }
        let bounds = Bounds { bytes: 40, files: 10 };
        let shelf = Shelf::open(home.path().join("shelf"), bounds).expect("a shelf");
        assert_eq!(numbers(&shelf), [2]);
    }

    #[test]
    fn what_a_dead_writer_left_is_removed_and_a_living_one_is_left_alone() {
        let (home, mut first) = shelf();
        put(&mut first, 0, 10);
        let dir = first.dir().to_owned();
        let temporary = |number: u8| dir.join(format!("{}.1-{number}.tmp", name(9).as_str()));
        fs::write(temporary(0), "half").expect("written");
        fs::write(temporary(1), "half").expect("written");
        let living = File::open(temporary(1)).expect("there");
        living.lock().expect("locked");
        fs::write(first.dir().join("notes.tmp"), "somebody else's").expect("written");
        let shelf = Shelf::open(home.path().join("shelf"), BOUNDS).expect("a shelf");
        assert_eq!((temporary(0).exists(), temporary(1).exists()), (false, true));
        assert!(shelf.dir().join("notes.tmp").exists());
        assert_eq!(numbers(&shelf), [0]);
        drop(living);
        put(&mut first, 1, 10);
        assert!(!temporary(1).exists());
    }

    #[test]
    fn what_is_no_file_is_not_read_and_is_removed() {
        let (home, mut shelf) = shelf();
        let secret = home.path().join("secret");
        fs::write(&secret, "secret").expect("written");
        let path = shelf.dir().join(name(1).as_str());
        let strays: [&dyn Fn(); 4] = [
            &|| symlink(&secret, &path).expect("linked"),
            &|| symlink("/nonexistent", &path).expect("linked"),
            &|| fs::create_dir_all(path.join("deep")).expect("made"),
            &|| rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).expect("made"),
        ];
        for (number, stray) in strays.iter().enumerate() {
            stray();
            assert!(matches!(shelf.get(&name(1)), Err(Rejected::NotAFile)), "{number}");
            shelf.remove(&name(1)).expect("removed");
            assert!(shelf.get(&name(1)).expect("readable").is_none(), "{number}");
            stray();
            Shelf::open(home.path().join("shelf"), BOUNDS).expect("a shelf");
            assert!(is_empty(shelf.dir()), "{number}");
        }
        assert_eq!(fs::read(&secret).expect("untouched"), b"secret");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let (_home, mut shelf) = shelf();
        let file = File::create(shelf.dir().join(name(1).as_str())).expect("made");
        file.set_len(FILE_BYTES_MAX + 1).expect("a sparse file");
        assert!(matches!(shelf.get(&name(1)), Err(Rejected::Size(_))));
    }

    #[test]
    fn a_directory_that_vanished_is_made_again() {
        let (_home, mut shelf) = shelf();
        fs::remove_dir(shelf.dir()).expect("removed");
        assert!(shelf.get(&name(1)).expect("readable").is_none());
        put(&mut shelf, 1, 10);
        assert_eq!(numbers(&shelf), [1]);
    }

    #[test]
    fn where_no_directory_can_be_there_is_no_shelf() {
        let home = tempfile::tempdir().expect("a directory");
        let (file, link) = (home.path().join("file"), home.path().join("link"));
        fs::write(&file, "").expect("written");
        symlink(home.path(), &link).expect("linked");
        for dir in [file.join("below"), file, link] {
            assert!(Shelf::open(dir.clone(), BOUNDS).is_err(), "{}", dir.display());
        }
    }
}
