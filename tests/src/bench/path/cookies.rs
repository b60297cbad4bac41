//! The rows of SYN cookies.

use anyhow::Result;
use nlb_common::stop::Stop;

use super::{Bench, Expected, LIVE, named, to_clients, to_listener, to_port};
use crate::bench::kind::{COOKIE_PORT, Kind};

impl Bench<'_> {
    /// What SYNs and strays cost a listener that answers with cookies, what established flows cost while
    /// it does, and what they cost if they began so.
    pub(super) fn cookies(&mut self) -> Result<()> {
        for kind in Kind::all().filter(|kind| kind.begins_with_us()) {
            self.preload(kind, LIVE)?;
            self.flooded(kind, COOKIE_PORT, ", cookies")?;
            self.subject.shift_numbers();
            let (onward, back) = (to_listener(kind, false, LIVE)?, to_clients(kind, LIVE)?);
            let name = named(kind, "hit, begun with a cookie", LIVE);
            self.row(name, &onward, Expected::Known, None)?;
            let name = named(kind, "return, begun with a cookie", LIVE);
            self.row(name, &back, Expected::Return, None)?;
            for (opens, what, stop) in [
                (true, "syn answered with a cookie", Stop::SynCookie),
                (false, "acknowledgement of no cookie", Stop::Stray),
            ] {
                let stream = to_port(kind, COOKIE_PORT, opens, 1)?.sequential();
                self.row(named(kind, what, 0), &stream, Expected::Stopped(stop), None)?;
            }
        }
        Ok(())
    }
}
