use serde_json::Value;

use super::snapshot_tests::Repository;
use super::tests::run_line;
use super::*;

fn rows(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

#[test]
fn rows_are_scanned_as_their_codecs_say_and_as_bytes() {
    let repository = Repository::new("scanned");
    let table = repository.run("state scan 0_0 count");
    assert_eq!(table.code, 0, "{}", table.stderr);
    for part in [
        "task 0_0 at epoch",
        "words-0 at",
        "count (utf8 -> row of i64-be)",
        "1970-01-01T00:00:00.",
        "rows",
    ] {
        assert!(table.stdout.contains(part), "{part} is missing in\n{}", table.stdout);
    }
    let all = rows(&repository.run("state scan 0_0 --json").stdout);
    let first = &all[0];
    assert_eq!(first["store"], "count");
    let key = first["as"]["key"].as_str().expect("text").to_owned();
    let count = first["as"]["value"].as_i64().expect("a number");
    assert!(key.starts_with('w') && count > 0, "{first}");
    assert_eq!(first["key"], crate::offline::hex(key.as_bytes()));

    let got = repository.json(&format!("state get 0_0 count {key}"));
    assert_eq!(&got, first);
    let by_bytes = repository.json(&format!(
        "state get 0_0 count 0x{}",
        first["key"].as_str().expect("text")
    ));
    assert_eq!(&by_bytes, first);
    let from_second = rows(
        &repository
            .run(&format!(
                "state scan 0_0 --from {} --json",
                all[1]["as"]["key"].as_str().expect("text")
            ))
            .stdout,
    );
    assert_eq!(from_second, all[1..]);
    let limited = repository.run("state scan 0_0 --limit 2").stdout;
    assert!(limited.contains("2 rows, and more (--limit)"), "{limited}");
}

#[test]
fn a_state_of_any_epoch_is_looked_at_and_compared_and_what_differs_ends_with_1() {
    let repository = Repository::new("compared");
    let list = repository.json("snapshot list --task 0_0");
    let bases = list["tasks"][0]["bases"].as_array().expect("bases");
    let oldest = bases.last().expect("a base")["snapshot"]
        .as_str()
        .expect("an id")
        .to_owned();
    let epoch = bases.last().expect("a base")["epoch"].clone();
    let of_base = repository.run(&format!("state scan 0_0 --snapshot {oldest}"));
    assert!(
        of_base.stdout.starts_with(&format!("task 0_0 at epoch {epoch},")),
        "{}{}",
        of_base.stdout,
        of_base.stderr
    );
    assert_eq!(
        repository
            .run(&format!("state scan 0_0 --at {epoch}"))
            .stdout
            .lines()
            .next(),
        of_base.stdout.lines().next()
    );

    let same = repository.run(&format!("state diff 0_0@{oldest} 0_0@{epoch}"));
    assert_eq!(same.code, 0, "{}{}", same.stdout, same.stderr);
    let different = repository.run(&format!("state diff 0_0@{oldest} 0_0"));
    assert_eq!(different.code, 1, "{}", different.stdout);
    assert!(
        different.stderr.starts_with("error[TG4306]: the states differ: "),
        "{}",
        different.stderr
    );
    let json = repository.json(&format!("state diff 0_0@{oldest} 0_0"));
    let rows = json["rows"].as_array().expect("rows");
    assert!(
        !rows.is_empty() && rows[0]["store"] == "count" && rows[0]["after"]["as"].is_number(),
        "{json}"
    );
    // The same repository, named by its place.
    let elsewhere = repository.run(&format!("state diff 0_0 {}#0_0", repository.blobs.root()));
    assert_eq!(elsewhere.code, 0, "{}{}", elsewhere.stdout, elsewhere.stderr);
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let repository = Repository::new("not-there");
    let says = |line: &str, code: &str, word: &str| {
        let outcome = repository.run(line);
        assert!(
            outcome.code != 0 && outcome.stderr.starts_with(&format!("error[{code}]")),
            "{line}: {}",
            outcome.stderr
        );
        assert!(outcome.stderr.contains(word), "{line}: {}", outcome.stderr);
    };
    says("state scan 0_0 conut", "TG4302", "it has count");
    says("state get 0_0 count nobody", "TG4302", "no row of key");
    says("state get 0_0 count 0xf", "TG4305", "hexadecimal");
    says("state scan 7_7", "TG4302", "base snapshot of task 7_7");
    says("state scan 0_0 --at 100000", "TG4304", "the repository has epochs");
    says("state scan 0_0 --committed", "TG4307", "kafka.bootstrap_servers");
    says("state diff 0_0@x 0_0", "TG4302", "TASK");
    assert_eq!(repository.run("state scan zero").code, EXIT_USAGE);
}

#[test]
fn the_disk_of_an_instance_is_looked_at_and_left_alone() {
    use crate::ids::{Epoch, Lineage, StoreId};
    use crate::state::{Overlay, RocksBackend, RocksShared, StateBackend, StateMeta, StoreSpec};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app").join("0_0");
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("it can be made");
    let stores = [StoreSpec {
        name: "count".to_owned(),
        ordered: false,
        codecs: "utf8 -> row of i64-be".to_owned(),
    }];
    let shared = RocksShared::new(1 << 20, 4 << 20);
    let backend = RocksBackend::open(&path, &stores, &shared).expect("it is new");
    let mut overlay = Overlay::new(&[false]);
    overlay.put(
        StoreId(0),
        b"ebb",
        &[&5_i64.to_be_bytes()[..], &7_i64.to_be_bytes()].concat(),
    );
    let meta = StateMeta {
        lineage: Lineage(1),
        epoch: Epoch(3),
        ended_ms: 0,
        cut: [(crate::ids::TopicPartition::new("words", 0), 9)].into(),
        changelog: Default::default(),
    };
    backend.apply(&overlay, &meta).expect("there is space");
    // The instance still has it open.
    let line = format!(
        "state get 0_0 count ebb --application app --state-dir {} --json",
        directory.path().display()
    );
    let outcome = run_line(&line);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(rows(&outcome.stdout)[0]["as"]["value"], 7);
    let scan = run_line(&format!(
        "state scan 0_0 --state-dir {}",
        directory.path().join("app").display()
    ));
    assert!(
        scan.stdout.contains("epoch 3") && scan.stdout.contains("ebb"),
        "{}{}",
        scan.stdout,
        scan.stderr
    );
    let none = run_line(&format!(
        "state scan 0_1 --state-dir {}",
        directory.path().join("app").display()
    ));
    assert!(
        none.code == 1 && none.stderr.starts_with("error[TG1105]"),
        "{}",
        none.stderr
    );
    assert!(
        !directory.path().join("app").join("0_1").exists(),
        "looking creates nothing"
    );
}

#[test]
fn a_savepoint_is_resharded_and_rows_are_imported_on_the_command_line() {
    let blobs = super::snapshot_tests::open(&format!("memory://{}/test", "reshaped"));
    let mut cluster = super::snapshot_tests::counted(crate::durability::Durability::Snapshot, true);
    cluster.savepoint("two");
    cluster.copy_store(&*blobs);
    let repository = Repository {
        name: "reshaped",
        blobs,
    };
    let resharded = repository.run("state reshard two --as three --from 2 --to 3");
    assert_eq!(resharded.code, 0, "{}", resharded.stderr);
    assert!(
        resharded.stdout.contains("savepoint three is made: 3 tasks of 2"),
        "{}",
        resharded.stdout
    );
    let again = repository.run("state reshard two --as three --from 2 --to 3");
    assert!(
        again.code == EXIT_USAGE && again.stderr.starts_with("error[TG4311]"),
        "{}",
        again.stderr
    );
    let directory = tempfile::tempdir().expect("a directory");
    let rows = directory.path().join("rows.jsonl");
    let scanned = repository.run("state scan 0_0 --json").stdout;
    std::fs::write(&rows, &scanned).expect("it can be written");
    let offsets = directory.path().join("offsets.json");
    std::fs::write(&offsets, r#"[["words",0,7],["words",1,8],["words",2,9]]"#).expect("it can be written");
    let line = format!(
        "state import counting --rows {} --as rows --tasks 3 --offsets {}",
        rows.display(),
        offsets.display()
    );
    let imported = repository.json(&line);
    assert_eq!(imported["rows"]["count"], scanned.lines().count(), "{imported}");
    let wrong = repository.run(&line.replace("--offsets", "--as x/y --offsets"));
    assert_ne!(wrong.code, 0);
    let no_kafka = repository.run("state reshard two --as four --from 2 --to 4 --offsets latest");
    assert!(no_kafka.stderr.starts_with("error[TG4307]"), "{}", no_kafka.stderr);
    let no_file = repository.run("state reshard two --as four --from 2 --to 4 --offsets nowhere");
    assert!(no_file.stderr.starts_with("error[TG4316]"), "{}", no_file.stderr);
}
