//! Names on the command line become profiles and networks.

use hwsim::error::{Error, Result};
use hwsim::lower::Gemm;

/// Reads `MxNxK`.
pub fn gemm(text: &str, groups: u64) -> Result<Gemm> {
    let refuse = || Error::argument("--gemm", format!("`{text}` is not a shape; write MxNxK, such as 128x4096x4096"));
    let extents: Vec<u64> = text
        .split(['x', 'X', '×'])
        .map(|p| p.trim().parse().ok().filter(|&v| v > 0))
        .collect::<Option<_>>()
        .ok_or_else(refuse)?;
    let [m, n, k] = extents[..] else { return Err(refuse()) };
    if groups == 0 {
        return Err(Error::argument("--groups", "at least one product is needed"));
    }
    Ok(Gemm { groups, m, n, k })
}

/// Reads `NAME=1x3x224x224`.
pub fn shape(text: &str) -> Result<(String, Vec<u64>)> {
    let refuse = || Error::argument("--input", format!("`{text}` is not an input; write NAME=1x3x224x224"));
    let (name, extents) = text.rsplit_once('=').ok_or_else(refuse)?;
    if extents.is_empty() {
        return Ok((name.to_owned(), Vec::new()));
    }
    let extents =
        extents.split(['x', 'X', '×', ',']).map(|p| p.trim().parse().ok()).collect::<Option<_>>().ok_or_else(refuse)?;
    Ok((name.to_owned(), extents))
}

/// Reads `NAME=8`.
pub fn dimension(text: &str) -> Result<(String, u64)> {
    let refuse = || Error::argument("--dim", format!("`{text}` is not a dimension; write NAME=8"));
    let (name, value) = text.rsplit_once('=').ok_or_else(refuse)?;
    let value = value.trim().parse().ok().filter(|&v| v > 0).ok_or_else(refuse)?;
    Ok((name.to_owned(), value))
}
