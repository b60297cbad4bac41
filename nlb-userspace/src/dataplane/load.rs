//! Load, adopt, attach, replace, pin, detach.
//!
//! Maps and links are pinned, so the data plane goes on without a daemon. A daemon that starts
//! finds the pins, loads its own program over the same maps, and replaces the program behind each
//! link in one step: there is no moment without one.
