//! Whether a listener answers SYNs with cookies at the moment.

use nlb_common::{listener::ListenerId, pressure::Pressure, tick::Tick};

use crate::tables::Tables;

/// Tries to change a word that other processors change too.
const TRIES: usize = 4;

/// Whether more SYNs come than the listener is used to, if it says what that is; counts one.
///
/// A SYN that others leave no turn to is not counted: there are enough of them.
#[inline(always)]
pub(crate) fn is_high<T: Tables>(tables: &T, listener: ListenerId, now: Tick) -> bool {
    let Some(record) = tables.admission(listener) else {
        return true;
    };
    let usual = record.usual_syns_per_tick();
    if usual == 0 {
        return true;
    }
    for _ in 0..TRIES {
        let seen = record.pressure.load();
        let pressure = Pressure::of_word(seen).after_a_syn(now, usual);
        if pressure.to_word() == seen || tables.swap(&record.pressure, seen, pressure.to_word()) {
            return pressure.is_high(now);
        }
    }
    true
}
