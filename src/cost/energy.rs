//! Energy of an operation from a profile's table.

use super::Traffic;
use crate::dtype::DType;
use crate::profile::Energy;
use crate::units::{Joules, Macs, Seconds};

/// `issued MACs · energy of one + Σ bytes at a level · energy of a byte there + static power · time`
/// (Horowitz, ISSCC'14; Accelergy, Wu et al., ICCAD'19). A level that the table lacks adds nothing; a dtype that it
/// lacks costs as its nearest wider one, or the dearest known.
pub fn energy(
    table: &Energy,
    dtype: DType,
    issued_macs: f64,
    traffic: &Traffic,
    level_names: &[String],
    time: Seconds,
) -> Joules {
    let wider = table.mac.iter().filter(|(d, _)| d.bits() >= dtype.bits()).min_by_key(|(d, _)| d.bits());
    let dearest = || table.mac.values().copied().reduce(|a, b| a.max(b));
    let mac = table.mac.get(&dtype).copied().or(wider.map(|(_, e)| *e)).or_else(dearest);
    let arithmetic = mac.map_or(Joules::ZERO, |e| e * Macs(issued_macs));
    let moved: Joules = level_names
        .iter()
        .zip(&traffic.levels)
        .filter_map(|(name, bytes)| table.byte.get(name.as_str()).map(|e| *e * bytes.total()))
        .sum();
    arithmetic + moved + table.idle.map_or(Joules::ZERO, |w| w * time)
}
