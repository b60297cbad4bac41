//! What programs there are on this host, ours and others'; no right to ask means no answer.

use aya::programs::{ProgramInfo, links::LinkType, loaded_links, loaded_programs};

/// A program.
pub(super) fn program(id: u32) -> Option<ProgramInfo> {
    let mut loaded = loaded_programs().filter_map(Result::ok);
    loaded.find(|program| program.id() == id)
}

/// The name of a program.
pub fn program_name(id: u32) -> Option<String> {
    program(id)?.name_as_str().map(str::to_owned)
}

/// The XDP link that holds a program in its place; none if it was attached without.
pub fn link_of_program(id: u32) -> Option<u32> {
    loaded_links()
        .filter_map(Result::ok)
        .find(|link| link.program_id() == id && matches!(link.link_type(), Ok(LinkType::Xdp)))
        .map(|link| link.id())
}
