//! Matrices to measure and test with, the same from the same seed on every machine.

use super::Buffer;
use crate::pattern::SparsityPattern;
use crate::sparsity::Mask;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `[n, k]` weights of a pattern: zeros where a drawn mask has them ([`Mask::draw`]), elsewhere uniform in ±[0.1, 1), so
/// that no kept weight is zero or subnormal.
pub fn weights(pattern: SparsityPattern, n: usize, k: usize, seed: u64) -> Vec<f32> {
    let mask = Mask::draw(pattern, n as u64, k as u64, seed);
    let mut values = vec![0.0; n * k];
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    for (row, values) in values.chunks_exact_mut(k.max(1)).enumerate() {
        for column in mask.columns(row as u64) {
            let sign = if rng.random::<bool>() { 1.0 } else { -1.0 };
            values[column as usize] = sign * rng.random_range(0.1..1.0f32);
        }
    }
    values
}

/// `[k, m]` activations, uniform in [-1, 1).
pub fn activations(k: usize, m: usize, seed: u64) -> Buffer {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xac71);
    let mut values = Buffer::zeros(k * m);
    values.fill_with(|| rng.random_range(-1.0..1.0f32));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_where_the_mask_says() {
        let pattern = "2:4".parse().unwrap();
        let values = weights(pattern, 3, 8, 1);
        assert!(values.chunks(4).all(|g| g.iter().filter(|v| **v != 0.0).count() == 2));
        assert_eq!(values, weights(pattern, 3, 8, 1));
        assert_ne!(values, weights(pattern, 3, 8, 2));
        assert_eq!(activations(2, 3, 1).len(), 6);
    }
}
