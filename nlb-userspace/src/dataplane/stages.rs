//! The packet program's stages: loaded one by one, and put where tail calls find them.
//!
//! The kernel empties an array of programs when the last descriptor and pin of it are gone, even
//! while programs use it; so whoever wants the stages to outlive it pins the array.

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::Xdp,
};
use nlb_common::stage::Stage;

use super::DataplaneError;

/// The program of this name.
pub fn program<'o>(
    object: &'o mut Ebpf,
    name: &'static str,
) -> Result<&'o mut Xdp, DataplaneError> {
    object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::NoProgram(name))
}

/// Has the verifier check every stage, and fills the array of programs; the front stage can then be
/// attached.
pub fn load(object: &mut Ebpf) -> Result<ProgramArray<MapData>, DataplaneError> {
    let map = object
        .take_map(STAGES)
        .ok_or(DataplaneError::NoMap(STAGES))?;
    let full = |action| {
        move |source| DataplaneError::Map {
            action,
            map: STAGES,
            source,
        }
    };
    let mut stages = ProgramArray::try_from(map).map_err(full("use"))?;
    for stage in Stage::ALL {
        let program = program(object, stage.program())?;
        program.load().map_err(DataplaneError::Program)?;
        let descriptor = program.fd().map_err(DataplaneError::Program)?;
        stages
            .set(*stage as u32, descriptor, 0)
            .map_err(full("fill"))?;
    }
    let front = program(object, Stage::FRONT_PROGRAM)?;
    front.load().map_err(DataplaneError::Program)?;
    let descriptor = front.fd().map_err(DataplaneError::Program)?;
    stages
        .set(Stage::FRONT_INDEX, descriptor, 0)
        .map_err(full("fill"))?;
    Ok(stages)
}

/// The array's name.
pub(super) const STAGES: &str = "STAGES";
