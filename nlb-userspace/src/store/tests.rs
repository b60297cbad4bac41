//! That a write which was acknowledged is found again, whatever happens to the file behind it, and
//! that a write which was refused is not.

use std::{
    cell::{Cell, RefCell},
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
};

use serde_json::json;

use super::*;
use crate::document::overlay::{Change, Entry};

fn record(number: u64) -> Record {
    let change = Change::Changed(json!({"weight": number}).as_object().unwrap().clone());
    let id = format!("target-group/web/target/10.0.0.{number}:80");
    let entry = Entry {
        order: number,
        change,
    };
    Record {
        applied: None,
        delta: [(id.parse().unwrap(), Some(entry))].into(),
    }
}

/// The state after the first `count` writes.
fn state(count: u64) -> State {
    let mut state = State::default();
    for number in 1..=count {
        state.take(record(number));
    }
    state
}

fn keep(store: &mut Store, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        store.keep(&record(number), &state(number)).unwrap();
    }
}

fn reopened(directory: &Path) -> (State, u64) {
    let (_, state, cut) = Store::open(directory).unwrap();
    (state, cut)
}

/// A folder in memory where there is one, for there syncing takes no time.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

#[test]
fn a_directory_that_nothing_was_changed_in_is_not_made() {
    let folder = folder();
    let directory = folder.path().join("deep/state");
    let (mut store, state, _) = Store::open(&directory).unwrap();
    assert_eq!(state, State::default());
    assert!(!directory.exists());
    keep(&mut store, 1..=1);
    drop(store);
    assert_eq!(reopened(&directory), (super::tests::state(1), 0));
    let mode = |name: &str| {
        directory
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("") & 0o777, 0o700);
    assert_eq!(mode("journal") & 0o777, 0o600);
}

#[test]
fn power_loss_at_any_byte_loses_no_acknowledged_write() {
    let folder = folder();
    let (mut store, ..) = Store::open(folder.path()).unwrap();
    let path = folder.path().join("journal");
    let mut ends = vec![0];
    for number in 1..=4 {
        keep(&mut store, [number]);
        ends.push(fs::metadata(&path).unwrap().len());
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    for length in 0..=whole.len() as u64 {
        // What the crash left: any beginning of the file, as is or with zeros behind it, which is
        // what some file systems make of a tail.
        for zeros in [0, 64] {
            let mut left = whole[..usize::try_from(length).unwrap()].to_vec();
            left.resize(left.len() + zeros, 0);
            fs::write(&path, left).unwrap();
            let acknowledged = ends.iter().filter(|end| **end <= length).count() as u64 - 1;
            let (state_found, cut) = reopened(folder.path());
            assert_eq!(state_found, state(acknowledged), "cut at byte {length}");
            let expected = length + zeros as u64 - ends[usize::try_from(acknowledged).unwrap()];
            assert_eq!(cut, expected);
            // It goes on from there. Syncing takes its time, so not at every byte.
            if length % 16 != 0 {
                continue;
            }
            let (mut store, ..) = Store::open(folder.path()).unwrap();
            keep(&mut store, [acknowledged + 1]);
            drop(store);
            assert_eq!(reopened(folder.path()), (state(acknowledged + 1), 0));
        }
    }
}

#[test]
fn a_byte_that_is_altered_in_the_last_record_loses_that_record_only() {
    let folder = folder();
    let (mut store, ..) = Store::open(folder.path()).unwrap();
    let path = folder.path().join("journal");
    keep(&mut store, 1..=3);
    let before = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
    keep(&mut store, [4]);
    drop(store);
    let whole = fs::read(&path).unwrap();
    for at in before..whole.len() {
        for flip in [1 << (at % 8), 0xff] {
            let mut flipped = whole.clone();
            flipped[at] ^= flip;
            fs::write(&path, &flipped).unwrap();
            let (found, cut) = reopened(folder.path());
            assert_eq!(found, state(3), "{flip:#04x} in byte {at}");
            assert_eq!(cut, (whole.len() - before) as u64);
            let evidence = fs::read(folder.path().join("journal.cut")).unwrap();
            assert_eq!(evidence, &flipped[before..]);
        }
    }
}

#[test]
fn a_crash_between_a_snapshot_and_the_emptying_of_the_journal_does_no_harm() {
    let folder = folder();
    let path = folder.path().join("journal");
    let (mut store, ..) = Store::open(folder.path()).unwrap();
    keep(&mut store, 1..=3);
    let old = fs::read(&path).unwrap();
    // One that takes an earlier one back, so that reading records twice would show.
    let gone = Record {
        delta: record(2).delta.into_keys().map(|id| (id, None)).collect(),
        ..Record::default()
    };
    let mut now = state(3);
    now.take(gone.clone());
    store.keep(&gone, &now).unwrap();
    let with_removal = fs::read(&path).unwrap();
    store.compact(&now).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    drop(store);
    assert_eq!(reopened(folder.path()), (now.clone(), 0));
    for journal in [old, with_removal] {
        fs::write(&path, journal).unwrap();
        assert_eq!(reopened(folder.path()), (now.clone(), 0));
    }
    // A snapshot that was not finished is none.
    fs::write(folder.path().join("snapshot.new"), "half").unwrap();
    let (mut store, found, _) = Store::open(folder.path()).unwrap();
    assert_eq!(found, now);
    store.compact(&now).unwrap();
    keep(&mut store, [5]);
    now.take(record(5));
    drop(store);
    assert_eq!(reopened(folder.path()), (now, 0));
}

#[test]
fn a_journal_does_not_grow_without_bound() {
    let folder = folder();
    let (mut store, ..) = Store::open(folder.path()).unwrap();
    let mut large = record(1);
    large.applied = Some(Some(Applied {
        text: "x".repeat(300_000),
        file_hash: 7,
    }));
    let mut state = State::default();
    for _ in 0..20 {
        state.take(large.clone());
        store.keep(&large, &state).unwrap();
        let length = fs::metadata(folder.path().join("journal")).unwrap().len();
        assert!(length <= SMALL + 400_000, "{length} bytes");
    }
    drop(store);
    assert_eq!(reopened(folder.path()).0, state);
}

#[test]
fn a_damaged_snapshot_is_named_and_not_overwritten() {
    let folder = folder();
    let (mut store, ..) = Store::open(folder.path()).unwrap();
    keep(&mut store, [1]);
    store.compact(&state(1)).unwrap();
    drop(store);
    let path = folder.path().join("snapshot");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let message = Store::open(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("snapshot") && message.contains("move it away"),
        "{message}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn two_daemons_cannot_share_a_directory() {
    let folder = folder();
    let (mut store, ..) = Store::open(folder.path()).unwrap();
    keep(&mut store, [1]);
    let message = Store::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("another nlb keeps its state"), "{message}");
    drop(store);
    assert_eq!(reopened(folder.path()).0, state(1));
}

/// A disk with a fault: room for so many bytes, or no syncing.
#[derive(Default)]
struct Faulty {
    bytes: RefCell<Vec<u8>>,
    room: Cell<usize>,
    syncs: Cell<bool>,
    cuts: Cell<bool>,
}

impl Medium for &Faulty {
    fn write_at_all(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut file = self.bytes.borrow_mut();
        let at = usize::try_from(at).unwrap();
        let fits = bytes.len().min(self.room.get().saturating_sub(at));
        file.truncate(at);
        file.extend(&bytes[..fits]);
        if fits < bytes.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if !self.cuts.get() {
            return Err(ErrorKind::Other.into());
        }
        self.bytes
            .borrow_mut()
            .truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        if self.syncs.get() {
            Ok(())
        } else {
            Err(ErrorKind::Other.into())
        }
    }
}

fn payloads(disk: &Faulty) -> Vec<String> {
    let bytes = disk.bytes.borrow();
    let (records, _) = journal::records(&bytes);
    records
        .into_iter()
        .map(|payload| String::from_utf8(payload.to_vec()).unwrap())
        .collect()
}

#[test]
fn a_full_disk_refuses_the_write_and_takes_later_ones_when_there_is_room() {
    let record_bytes = journal::framed(b"second").len();
    for room in 0..record_bytes {
        for cuts in [true, false] {
            let disk = Faulty::default();
            disk.room.set(1000);
            disk.syncs.set(true);
            disk.cuts.set(true);
            let mut journal = Journal::new(&disk, 0).unwrap();
            journal.append(b"first").unwrap();
            let length = disk.bytes.borrow().len();
            disk.room.set(length + room);
            disk.cuts.set(cuts);
            let error = journal.append(b"second").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            assert_eq!(payloads(&disk), ["first"]);
            disk.room.set(1000);
            disk.cuts.set(true);
            journal.append(b"third").unwrap();
            assert_eq!(payloads(&disk), ["first", "third"]);
        }
    }
}

#[test]
fn a_write_that_did_not_reach_the_disk_is_taken_back() {
    let disk = Faulty::default();
    disk.room.set(1000);
    disk.syncs.set(true);
    disk.cuts.set(true);
    let mut journal = Journal::new(&disk, 0).unwrap();
    journal.append(b"first").unwrap();
    disk.syncs.set(false);
    journal.append(b"second").unwrap_err();
    assert_eq!(payloads(&disk), ["first"]);
    // While the disk does not answer, nothing is taken; then it goes on.
    journal.append(b"third").unwrap_err();
    disk.syncs.set(true);
    journal.append(b"fourth").unwrap();
    assert_eq!(payloads(&disk), ["first", "fourth"]);
}
