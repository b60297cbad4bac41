//! Under systemd the log goes to journald with its fields, not as lines of text.

use std::{env, io};

use rustix::fs::fstat;

/// The layer that writes there; nothing if standard error is not journald's, or it cannot be
/// reached.
///
/// `JOURNAL_STREAM` names the file that journald reads, which may no longer be our standard error
/// (systemd.exec(5)). Each field becomes one of journald's: `target_group` is `NLB_TARGET_GROUP`.
pub fn layer() -> Option<tracing_journald::Layer> {
    let stderr = fstat(io::stderr()).ok()?;
    let named = env::var("JOURNAL_STREAM").ok()?;
    if !is_stream(&named, stderr.st_dev, stderr.st_ino) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    let layer = layer.with_field_prefix(Some("NLB".to_owned()));
    Some(layer.with_syslog_identifier("nlb".to_owned()))
}

/// Whether the variable names that file.
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    named == format!("{device}:{inode}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_than_the_variable_names_is_not_journalds() {
        assert!(is_stream("9:4711", 9, 4711));
        assert!(!is_stream("9:4711", 9, 4712));
        assert!(!is_stream("9:4711 ", 9, 4711));
        assert!(!is_stream("", 9, 4711));
    }
}
