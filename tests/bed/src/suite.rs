//! todo
use crate::*;
/// x
pub fn run(
    _: &setup::Bed,
    _: &Cli,
    _: &[u8],
    _: &std::path::Path,
    _: &mut Progress,
) -> Result<Verdict> {
    Ok(Verdict::Error)
}
