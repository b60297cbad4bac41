//! The unit files, judged by systemd's own tools.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ANALYZE: &str = "/usr/bin/systemd-analyze";
/// What `systemd-analyze security` may say at most, in tenths: 0 is shut in, 100 is free to do
/// anything. What is left is what nlb is for: root, the host's network, BPF.
const MOST_EXPOSURE: &str = "26";

fn packaging(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../packaging").join(file)
}

fn has_tool(test: &str) -> bool {
    let exists = Path::new(ANALYZE).exists();
    if !exists {
        println!("SKIPPED {test}: no {ANALYZE} (Debian's package systemd)");
    }
    exists
}

#[test]
fn the_unit_is_hardened_as_far_as_its_task_allows() {
    if !has_tool("the_unit_is_hardened") {
        return;
    }
    let output = Command::new(ANALYZE)
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={MOST_EXPOSURE}"))
        .arg(packaging("nlb.service"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    if !has_tool("systemd_understands_every_line") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (within, file) in [("", "nlb.service"), ("optional/", "nlb.socket")] {
        // The program need not be installed here, nor the manual page.
        let text = fs::read_to_string(packaging(&format!("{within}{file}"))).unwrap();
        let text = text
            .replace("/usr/bin/nlb", "/bin/true")
            .replace("Documentation=man:nlb(1)\n", "");
        fs::write(folder.path().join(file), text).unwrap();
    }
    let output = Command::new(ANALYZE)
        .args(["verify", "--man=no"])
        .arg(folder.path().join("nlb.service"))
        .arg(folder.path().join("nlb.socket"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("nlb.")).collect();
    assert!(about_ours.is_empty(), "{about_ours:#?}");
}
