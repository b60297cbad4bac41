//! That the tables of `docs/metrics.md` are the catalogue in the code.

use std::fs;

use nlb_userspace::metrics::catalogue;

use crate::document;

#[test]
fn the_reference_lists_every_metric_and_what_nlb_calls_it() {
    let text = fs::read_to_string(document::path("metrics.md")).unwrap();
    let text = document::with_block(&text, "<!-- metrics -->\n", &catalogue::reference());
    let stops = catalogue::stops_reference();
    let text = document::with_block(&text, "<!-- stops of cloudwatch -->\n", &stops);
    document::must_be("metrics.md", &text);
}
