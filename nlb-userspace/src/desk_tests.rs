//! That the document is what the file and whoever used the API said last, and stays so.

use std::fs;

use serde_json::json;

use super::*;
use crate::document::edit::Kind;

const FILE: &str = include_str!("../tests/small.toml");

/// A folder with a configuration file and a state directory.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Self { folder };
        home.write(FILE);
        home
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), self.text(text)).unwrap();
    }

    fn text(&self, text: &str) -> String {
        let state = self.folder.path().join("state");
        text.replace("STATE", &state.display().to_string())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("nlb.toml")
    }

    fn open(&self) -> (Desk, Desired, Vec<String>) {
        Desk::open(&self.file()).unwrap()
    }
}

fn make(desk: &mut Desk, intent: &Intent) -> Desired {
    let proposal = desk.propose(intent, &Condition::default()).unwrap();
    desk.keep(&proposal).unwrap();
    desk.adopt(proposal)
}

fn register(address: &str) -> Intent {
    Intent::Edit(Edit::Put {
        named: Named::child(Kind::Target, "web", address),
        table: json!({}),
    })
}

fn addresses(desired: &Desired) -> Vec<String> {
    let targets = &desired.target_groups[0].targets;
    targets
        .iter()
        .map(|target| target.address.to_string())
        .collect()
}

#[test]
fn what_was_changed_is_there_after_a_restart() {
    let home = Home::new();
    let (mut desk, desired, notes) = home.open();
    assert_eq!(addresses(&desired), ["10.0.0.11"]);
    assert!(notes.is_empty(), "{notes:?}");
    let desired = make(&mut desk, &register("10.0.0.12:8080"));
    assert_eq!(addresses(&desired), ["10.0.0.11", "10.0.0.12"]);
    let tag = desk.view().tag(None);
    drop(desk);
    let (desk, desired, notes) = home.open();
    assert_eq!(addresses(&desired), ["10.0.0.11", "10.0.0.12"]);
    assert_eq!(notes, ["1 changes over the API are laid over the file"]);
    assert_eq!(desk.view().tag(None), tag);
}

#[test]
fn a_refused_change_leaves_no_trace() {
    let home = Home::new();
    let (desk, ..) = home.open();
    let before = desk.view().tag(None);
    let bad = register("10.0.0.12:0");
    let Err(Refused::Config(faults)) = desk.propose(&bad, &Condition::default()) else {
        panic!("port 0 is taken");
    };
    let fault = faults.iter().next().unwrap();
    assert_eq!(
        fault.field,
        "target_group \"web\".target \"10.0.0.12\".port"
    );
    assert_eq!(fault.value.as_deref(), Some("0"));
    assert_eq!(desk.view().tag(None), before);
    assert!(!home.folder.path().join("state").exists());
}

#[test]
fn a_reload_keeps_changes_and_takes_the_file() {
    let home = Home::new();
    let (mut desk, ..) = home.open();
    make(&mut desk, &register("10.0.0.12:8080"));
    home.write(&FILE.replace("10.0.0.11", "10.0.0.21"));
    let desired = make(&mut desk, &Intent::Reload);
    assert_eq!(addresses(&desired), ["10.0.0.21", "10.0.0.12"]);
    home.write(&FILE.replace("[[load_balancer]]", "[[load_balancers]]"));
    let refused = desk.propose(&Intent::Reload, &Condition::default());
    assert!(matches!(refused, Err(Refused::Config(_))));
}

#[test]
fn a_change_whose_group_left_the_file_is_reported_and_gone_for_good() {
    let home = Home::new();
    let (mut desk, ..) = home.open();
    make(&mut desk, &register("10.0.0.12:8080"));
    home.write(&FILE.replace("\"web\"", "\"www\""));
    let proposal = desk
        .propose(&Intent::Reload, &Condition::default())
        .unwrap();
    let [dropped] = proposal.dropped.as_slice() else {
        panic!("{:?}", proposal.dropped);
    };
    assert_eq!(dropped.resource, "target-group/web/target/10.0.0.12:8080");
    assert_eq!(
        dropped.reason,
        "target-group/web is not in the file any more"
    );
    desk.keep(&proposal).unwrap();
    desk.adopt(proposal);
    drop(desk);
    home.write(FILE);
    let (_, desired, notes) = home.open();
    assert_eq!(addresses(&desired), ["10.0.0.11"]);
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn an_applied_document_counts_until_the_file_is_edited() {
    let home = Home::new();
    let (mut desk, ..) = home.open();
    make(&mut desk, &register("10.0.0.12:8080"));
    let other = home.text(&FILE.replace("10.0.0.11", "10.0.0.31"));
    let apply = Intent::Apply(other);
    let proposal = desk.propose(&apply, &Condition::default()).unwrap();
    assert_eq!(
        proposal.discarded,
        ["target-group/web/target/10.0.0.12:8080"]
    );
    let lines: Vec<_> = proposal.changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "- target-group/web/target/10.0.0.11:8080",
            "- target-group/web/target/10.0.0.12:8080",
            "+ target-group/web/target/10.0.0.31:8080\n    address = \"10.0.0.31\"",
        ]
    );
    assert_eq!(addresses(&make(&mut desk, &apply)), ["10.0.0.31"]);
    // Changes lie over it, and it outlives a reload and a restart.
    make(&mut desk, &register("10.0.0.13:8080"));
    let both = ["10.0.0.31", "10.0.0.13"];
    assert_eq!(addresses(&make(&mut desk, &Intent::Reload)), both);
    drop(desk);
    let (mut desk, desired, _) = home.open();
    assert_eq!(addresses(&desired), both);
    // The file was declared last.
    home.write(&FILE.replace("10.0.0.11", "10.0.0.41"));
    let proposal = desk
        .propose(&Intent::Reload, &Condition::default())
        .unwrap();
    assert_eq!(proposal.discarded, ["the document that was applied"]);
    desk.keep(&proposal).unwrap();
    assert_eq!(addresses(&desk.adopt(proposal)), ["10.0.0.41", "10.0.0.13"]);
}

#[test]
fn the_file_applied_is_the_file_again() {
    let home = Home::new();
    let (mut desk, ..) = home.open();
    make(&mut desk, &register("10.0.0.12:8080"));
    let desired = make(&mut desk, &Intent::Apply(home.text(FILE)));
    assert_eq!(addresses(&desired), ["10.0.0.11"]);
    assert_eq!(desk.state, State::default());
}

#[test]
fn a_document_that_was_shown_can_be_given_back() {
    let home = Home::new();
    let (desk, ..) = home.open();
    let shown = desk.view().document.to_toml().unwrap();
    assert!(!shown.contains("000102"), "{shown}");
    let proposal = desk
        .propose(&Intent::Apply(shown), &Condition::default())
        .unwrap();
    assert!(proposal.changes.is_empty(), "{:?}", proposal.changes);
    assert!(proposal.record.is_empty());
}

#[test]
fn a_condition_holds_while_what_was_read_is_as_it_was() {
    let home = Home::new();
    let (mut desk, ..) = home.open();
    let group = "target-group/web".parse().unwrap();
    let tag = desk.view().tag(Some(&group)).unwrap();
    let condition = Condition {
        any_of: Some(vec![tag]),
        absent: false,
    };
    let tagged = Intent::Edit(Edit::Patch {
        named: Named::top(Kind::TargetGroup, "web"),
        patch: json!({"tags": {"team": "web"}}),
    });
    desk.propose(&tagged, &condition).unwrap();
    make(&mut desk, &register("10.0.0.12:8080"));
    let refused = desk.propose(&tagged, &condition).unwrap_err();
    assert!(matches!(refused, Refused::Precondition { .. }), "{refused}");
    let only_new = Condition {
        any_of: None,
        absent: true,
    };
    assert!(desk.propose(&register("10.0.0.13:8080"), &only_new).is_ok());
    let refused = desk.propose(&register("10.0.0.12:8080"), &only_new);
    assert!(matches!(refused, Err(Refused::Edit(EditError::Exists(_)))));
}
