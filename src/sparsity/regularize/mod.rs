//! Methods that create structure while a network trains: penalties with their gradients and proximal operators, soft
//! masks under a budget, and masks that move. Pure functions on slices of weights; which weights belong together is said
//! by [`structure`].
//!
//! | method | file | what it leaves |
//! | --- | --- | --- |
//! | L2 decay, weight elimination, selective and adaptive decay | [`decay`] | small weights, no zeros |
//! | L1, group lasso, sparse group lasso, smoothing group lasso | [`lasso`] | zeros, zero groups (by prox alone) |
//! | weight noise | [`noise`] | what its partner leaves, more robustly |
//! | ProxSparse | [`proxsparse`] | 2:4 |
//! | Spartan | [`spartan`] | a budget of elements or blocks, met exactly |
//! | gradual magnitude pruning, RigL, SRigL, N:M straight-through | [`dynamic`] | masks |
//!
//! A *gradient* of a penalty shrinks weights for ever and never reaches zero in finite precision; a *proximal operator*
//! solves `argmin_w ½‖w − z‖² + t·Ω(w)` and sets what is small to zero exactly (Parikh and Boyd 2014). That difference is
//! why weight decay does not make networks faster.

pub mod decay;
pub mod dynamic;
pub mod lasso;
pub mod noise;
pub mod proxsparse;
pub mod spartan;
pub mod structure;

/// Places in a flat slice of parameters that live and die together.
pub type Group = Vec<usize>;

/// ‖w_g‖₂, accumulated in f64.
pub fn norm(weights: &[f32], group: &[usize]) -> f64 {
    group.iter().map(|&i| f64::from(weights[i]).powi(2)).sum::<f64>().sqrt()
}
