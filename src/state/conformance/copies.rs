//! What checkpoints and installations must do, whatever the backend: the second half of the suite.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{ORDERED, PLAIN, Write, apply, entries, increment, meta};
use crate::ids::{StoreId, TaskId};
use crate::state::{Checkpoint, Installation, StateBackend, StateError, StateFile, StateResult};

/// The databases of an instance, with the stores of the suite.
pub trait Databases {
    /// Opens the database of a task.
    fn open(&self, task: TaskId) -> StateResult<Arc<dyn StateBackend>>;
    /// Removes everything of a task.
    fn clear(&self, task: TaskId) -> StateResult<()>;
    /// Begins an installation, or goes on with it.
    fn install(&self, task: TaskId) -> StateResult<Box<dyn Installation>>;
}

/// Runs the whole suite; `new` gives an instance that has no database yet.
///
/// # Panics
/// Where the backend does not conform.
pub fn run(new: &dyn Fn() -> Box<dyn Databases>) {
    nothing_cannot_be_copied(&*new());
    a_copy_holds_its_epoch_and_nothing_later(&*new());
    a_copy_beside_applies_is_of_whole_epochs(&*new());
    the_same_data_gives_the_same_files(&*new());
    a_small_change_leaves_most_files(&*new());
    an_installed_database_goes_on(&*new());
    an_interrupted_installation_is_resumed(&*new());
    one_installation_of_a_task_goes_on_at_a_time(&*new());
    files_of_the_former_database_are_shared_and_never_written(&*new());
    a_database_in_use_is_not_replaced(&*new());
    what_is_missing_is_refused_and_the_former_database_stays(&*new());
    what_was_left_goes_with_a_clear_or_an_opening(&*new());
    a_wrong_file_is_noticed(new);
}

const SOURCE: TaskId = task(0);
const TARGET: TaskId = task(1);

const fn task(partition: i32) -> TaskId {
    TaskId {
        sub_topology: 0,
        partition,
    }
}

/// The entries of both stores.
type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

/// What is in a file.
pub type Content = (StateFile, Vec<u8>);

fn open(databases: &dyn Databases, task: TaskId) -> Arc<dyn StateBackend> {
    databases.open(task).expect("the database opens")
}

fn install(databases: &dyn Databases, task: TaskId) -> Box<dyn Installation> {
    databases.install(task).expect("an installation begins")
}

fn freeze(backend: &dyn StateBackend) -> Box<dyn Checkpoint> {
    backend.checkpoint().expect("a checkpoint is made")
}

/// Applies an epoch that writes `count` keys from `first` of both stores, with 1000 bytes that tell the epoch.
fn write(backend: &dyn StateBackend, epoch: u64, first: u32, count: u32) {
    let keys: Vec<[u8; 4]> = (first..first + count).map(u32::to_be_bytes).collect();
    let value = |key: &[u8; 4]| -> Vec<u8> {
        let words = [u64::from(u32::from_be_bytes(*key)), epoch].map(u64::to_be_bytes);
        words.iter().flatten().copied().cycle().take(1000).collect()
    };
    let values: Vec<Vec<u8>> = keys.iter().map(value).collect();
    let of = |store: StoreId| {
        let entries = keys.iter().zip(&values);
        entries.map(move |(key, value)| (store, &key[..], Some(&value[..])))
    };
    let writes: Vec<Write<'_>> = of(PLAIN).chain(of(ORDERED)).collect();
    apply(backend, &writes, &meta(epoch));
}

fn model(backend: &dyn StateBackend) -> Model {
    [PLAIN, ORDERED].map(|store| entries(backend, store, b"", b"").into_iter().collect())
}

/// All files of a copy.
fn contents(copy: &dyn Checkpoint) -> Vec<Content> {
    let content = |(index, file): (usize, &StateFile)| {
        let mut content = vec![0; file.bytes as usize];
        // In two parts, as somebody who sends them may read.
        let (first, second) = content.split_at_mut(file.bytes as usize / 2);
        copy.read(index, 0, first).expect("the first half is there");
        copy.read(index, first.len() as u64, second).expect("the second half");
        (file.clone(), content)
    };
    copy.files().iter().enumerate().map(content).collect()
}

fn immutable(files: &[Content]) -> BTreeMap<&str, &[u8]> {
    let immutable = files.iter().filter(|(file, _)| file.immutable);
    immutable.map(|(file, content)| (&*file.name, &content[..])).collect()
}

fn bytes(files: &BTreeMap<&str, &[u8]>) -> usize {
    files.values().map(|content| content.len()).sum()
}

/// Writes a file in two parts.
fn send(installation: &mut dyn Installation, (file, content): &Content) {
    let half = content.len() / 2;
    installation
        .write(&file.name, 0, &content[..half])
        .expect("the first half is written");
    let second = installation.write(&file.name, half as u64, &content[half..]);
    second.expect("the second half is written");
}

fn list(files: &[Content]) -> Vec<StateFile> {
    files.iter().map(|(file, _)| file.clone()).collect()
}

fn finish(installation: Box<dyn Installation>, files: &[Content]) -> Arc<dyn StateBackend> {
    installation.finish(&list(files)).expect("the installation ends")
}

fn restored(databases: &dyn Databases, task: TaskId, files: &[Content]) -> Arc<dyn StateBackend> {
    let mut installation = install(databases, task);
    for file in files {
        send(&mut *installation, file);
    }
    finish(installation, files)
}

fn nothing_cannot_be_copied(databases: &dyn Databases) {
    match open(databases, SOURCE).checkpoint().err() {
        Some(StateError::Io { reason, .. }) => assert!(reason.contains("nothing"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

fn a_copy_holds_its_epoch_and_nothing_later(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 1, 0, 50);
    let plain_only = increment(&[(PLAIN, &1u32.to_be_bytes(), None), (PLAIN, b"", Some(b""))]);
    source.apply(&plain_only, &meta(2)).expect("it is applied");
    let before = model(&*source);
    let copy = freeze(&*source);
    write(&*source, 3, 10, 90);
    assert_eq!(copy.meta(), &meta(2));
    assert!(copy.files().is_sorted_by(|one, next| one.name < next.name));
    drop(source);
    let files = contents(&*copy);
    for (index, file) in copy.files().iter().enumerate() {
        let beyond = copy.read(index, file.bytes, &mut [0]);
        assert!(matches!(beyond, Err(StateError::Io { .. })), "{beyond:?}");
    }
    let target = restored(databases, TARGET, &files);
    assert_eq!(target.meta().ok(), Some(Some(meta(2))));
    assert_eq!(model(&*target), before);
}

fn a_copy_beside_applies_is_of_whole_epochs(databases: &dyn Databases) {
    const WINDOW: u32 = 20;
    let source = open(databases, SOURCE);
    write(&*source, 1, 0, WINDOW);
    let stop = AtomicBool::new(false);
    let copies = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut epoch = 1;
            while !stop.load(Ordering::SeqCst) {
                epoch += 1;
                write(&*source, epoch, 0, WINDOW);
            }
        });
        let copies: Vec<_> = (0..5).map(|_| freeze(&*source)).collect();
        stop.store(true, Ordering::SeqCst);
        copies
    });
    let epochs: Vec<u64> = copies.iter().map(|copy| copy.meta().epoch.0).collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
    for (number, copy) in (1..).zip(&copies) {
        let epoch = copy.meta().epoch.0;
        let expected = open(databases, task(100 + number));
        write(&*expected, epoch, 0, WINDOW);
        let target = restored(databases, task(number), &contents(&**copy));
        assert_eq!(target.meta().ok(), Some(Some(meta(epoch))));
        assert_eq!(model(&*target), model(&*expected), "epoch {epoch}");
    }
}

fn the_same_data_gives_the_same_files(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 1, 0, 200);
    let first = contents(&*freeze(&*source));
    let second = contents(&*freeze(&*source));
    assert!(!immutable(&first).is_empty());
    assert_eq!(immutable(&first), immutable(&second));
}

fn a_small_change_leaves_most_files(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 1, 0, 2000);
    let first = contents(&*freeze(&*source));
    write(&*source, 2, 1000, 1);
    let second = contents(&*freeze(&*source));
    let (first, mut shared) = (immutable(&first), immutable(&second));
    assert_ne!(first, shared, "something has changed");
    shared.retain(|name, content| match first.get(name) {
        Some(former) => {
            assert_eq!(former, content, "{name} is immutable");
            true
        }
        None => false,
    });
    let (kept, all) = (bytes(&shared), bytes(&first));
    assert!(kept * 2 > all, "{kept} of {all} bytes are shared");
}

fn an_installed_database_goes_on(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 5, 0, 100);
    let files = contents(&*freeze(&*source));
    let target = restored(databases, TARGET, &files);
    let stale = std::panic::AssertUnwindSafe(|| write(&*target, 5, 0, 1));
    assert!(std::panic::catch_unwind(stale).is_err(), "epoch 5 is there");
    for backend in [&source, &target] {
        write(&**backend, 6, 50, 100);
    }
    assert_eq!(model(&*target), model(&*source));
    let copy = contents(&*freeze(&*target));
    drop(target);
    let target = open(databases, TARGET);
    assert_eq!(target.meta().ok(), Some(Some(meta(6))));
    assert_eq!(model(&*target), model(&*source));
    let third = restored(databases, task(2), &copy);
    assert_eq!(model(&*third), model(&*source), "a copy of what was installed");
}

fn an_interrupted_installation_is_resumed(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 1, 0, 300);
    let files = contents(&*freeze(&*source));
    let mut installation = install(databases, TARGET);
    assert_eq!(installation.present(&files[0].0.name).ok(), Some(None));
    send(&mut *installation, &files[0]);
    let (half, content) = &files[1];
    let part = &content[..content.len() / 2];
    installation.write(&half.name, 0, part).expect("half a file is written");
    drop(installation);

    assert_eq!(open(databases, TARGET).meta().ok(), Some(None), "nothing was installed");
    let mut installation = install(databases, TARGET);
    assert_eq!(
        installation.present(&files[0].0.name).ok(),
        Some(Some(files[0].0.bytes))
    );
    assert_eq!(installation.present(&half.name).ok(), Some(Some(part.len() as u64)));
    let mut found = vec![0; part.len()];
    installation.read(&half.name, 0, &mut found).expect("it can be read");
    assert_eq!(found, part);
    let beyond = installation.read(&half.name, part.len() as u64, &mut [0]);
    assert!(matches!(beyond, Err(StateError::Io { .. })), "{beyond:?}");
    let rest = installation.write(&half.name, part.len() as u64, &content[part.len()..]);
    rest.expect("the rest is written");
    for file in &files[2..] {
        send(&mut *installation, file);
    }
    let target = finish(installation, &files);
    assert_eq!(model(&*target), model(&*source));
    let installation = install(databases, TARGET);
    let mutable = files.iter().find(|(file, _)| !file.immutable).expect("one is mutable");
    assert_eq!(installation.present(&mutable.0.name).ok(), Some(None), "it ended");
}

fn one_installation_of_a_task_goes_on_at_a_time(databases: &dyn Databases) {
    let first = install(databases, TARGET);
    let second = databases.install(TARGET).err();
    assert!(matches!(second, Some(StateError::Locked { .. })), "{second:?}");
    let cleared = databases.clear(TARGET);
    assert!(matches!(cleared, Err(StateError::Locked { .. })), "{cleared:?}");
    install(databases, SOURCE);
    drop(first);
    install(databases, TARGET);
}

fn files_of_the_former_database_are_shared_and_never_written(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 1, 0, 300);
    let files = contents(&*freeze(&*source));
    drop(restored(databases, TARGET, &files));
    let target = open(databases, TARGET);
    let mut installation = install(databases, TARGET);
    for (file, content) in files.iter().filter(|(file, _)| file.immutable) {
        assert_eq!(installation.present(&file.name).ok(), Some(Some(file.bytes)));
        let mut found = vec![0; content.len()];
        installation.read(&file.name, 0, &mut found).expect("it can be read");
        assert_eq!(&found, content);
        installation
            .write(&file.name, 0, b"not what was there")
            .expect("it can be written");
        installation.read(&file.name, 0, &mut found).expect("it can be read");
        assert!(found.starts_with(b"not what was there"));
        assert_eq!(found[18..], content[18..], "what lies beyond stays");
        installation.remove(&file.name).expect("it can be removed");
        assert_eq!(installation.present(&file.name).ok(), Some(None));
    }
    drop(target);
    drop(installation);
    let target = open(databases, TARGET);
    assert_eq!(model(&*target), model(&*source), "the database has its own files");
    write(&*source, 2, 100, 1);
    let newer = contents(&*freeze(&*source));
    let mut installation = install(databases, TARGET);
    let mut sent = 0;
    for file in &newer {
        if !file.0.immutable || installation.present(&file.0.name).expect("it answers").is_none() {
            send(&mut *installation, file);
            sent += file.1.len();
        }
    }
    let all: usize = newer.iter().map(|(_, content)| content.len()).sum();
    assert!(sent < all, "{sent} of {all} bytes were sent");
    drop(target);
    let target = finish(installation, &newer);
    assert_eq!(target.meta().ok(), Some(Some(meta(2))));
    assert_eq!(model(&*target), model(&*source));
}

fn a_database_in_use_is_not_replaced(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 2, 0, 10);
    let files = contents(&*freeze(&*source));
    let target = open(databases, TARGET);
    write(&*target, 1, 0, 20);
    let before = model(&*target);
    let mut installation = install(databases, TARGET);
    for file in &files {
        send(&mut *installation, file);
    }
    let refused = installation.finish(&list(&files)).err();
    assert!(matches!(refused, Some(StateError::Locked { .. })), "{refused:?}");
    assert_eq!(model(&*target), before);
    drop(target);
    let target = finish(install(databases, TARGET), &files);
    assert_eq!(model(&*target), model(&*source), "its files have stayed");
}

fn what_is_missing_is_refused_and_the_former_database_stays(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 2, 0, 100);
    let files = contents(&*freeze(&*source));
    let target = open(databases, TARGET);
    write(&*target, 1, 0, 20);
    let before = model(&*target);
    drop(target);
    for (missing, (file, content)) in files.iter().enumerate() {
        for short in [None, Some(&content[1..])] {
            let mut installation = install(databases, TARGET);
            for (_, file) in files.iter().enumerate().filter(|(index, _)| *index != missing) {
                send(&mut *installation, file);
            }
            installation.remove(&file.name).expect("it can be removed");
            if let Some(short) = short {
                installation.write(&file.name, 0, short).expect("it can be written");
            }
            let refused = installation.finish(&list(&files)).err();
            assert!(matches!(refused, Some(StateError::Corrupt { .. })), "{refused:?}");
        }
    }
    assert_eq!(model(&*open(databases, TARGET)), before);
}

fn what_was_left_goes_with_a_clear_or_an_opening(databases: &dyn Databases) {
    let source = open(databases, SOURCE);
    write(&*source, 1, 0, 10);
    let files = contents(&*freeze(&*source));
    let leave = || send(&mut *install(databases, TARGET), &files[0]);
    let is_there = || {
        let present = install(databases, TARGET).present(&files[0].0.name);
        present.expect("it answers").is_some()
    };
    leave();
    assert!(is_there());
    databases.clear(TARGET).expect("it is cleared");
    assert!(!is_there(), "after a clear");
    leave();
    drop(open(databases, TARGET));
    assert!(is_there(), "after an opening of an empty database");
    let target = open(databases, TARGET);
    apply(&*target, &[], &meta(1));
    drop(target);
    drop(open(databases, TARGET));
    assert!(!is_there(), "after an opening of one that holds something");
}

/// A file whose contents are wrong is noticed when the installation ends, or when it is read. It is not noticed where it does
/// not matter, as with RocksDB's options.
fn a_wrong_file_is_noticed(new: &dyn Fn() -> Box<dyn Databases>) {
    let databases = new();
    let source = open(&*databases, SOURCE);
    write(&*source, 1, 0, 100);
    let files = contents(&*freeze(&*source));
    let expected = model(&*source);
    for wrong in 0..files.len() {
        let mut files = files.clone();
        let (file, content) = &mut files[wrong];
        content[10] ^= 0x55;
        let file = file.clone();
        // A cache that is shared with the source would answer for the file.
        let databases = new();
        let mut installation = install(&*databases, TARGET);
        for file in &files {
            send(&mut *installation, file);
        }
        match installation.finish(&list(&files)).and_then(|target| read_all(&*target)) {
            Err(error) => assert!(
                matches!(error, StateError::Corrupt { .. } | StateError::Io { .. }),
                "{error:?}"
            ),
            Ok(found) => {
                assert!(!file.immutable, "{file:?} is wrong and nobody notices");
                assert_eq!(found, expected, "{file:?} is wrong and nobody notices");
            }
        }
    }
}

fn read_all(backend: &dyn StateBackend) -> StateResult<Model> {
    let mut model = Model::default();
    for (store, entries) in [PLAIN, ORDERED].into_iter().zip(&mut model) {
        backend.scan(store, b"", b"", &mut |key, value| {
            entries.insert(key.to_vec(), value.to_vec());
            true
        })?;
    }
    Ok(model)
}
