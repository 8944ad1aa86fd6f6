//! Which pattern for which layer on which machine, answered optimally, and over a whole space of machines.
//!
//! Reading order: [`assign`] asks for one network and one machine ([`knapsack`] solves it exactly, [`baselines`] are what
//! it is compared with, [`quality`] is what patterns lose); [`channels`] lets dependency groups choose too, with
//! a bound from their relaxation. [`space`] is machines × batch × dtype × pattern ([`vary`] its
//! axes, [`condition`] its limits), [`evaluate`] estimates its points, [`explore`] visits all of them, [`evolve`] some,
//! [`pareto`] keeps what is not dominated, [`state`] is what a search can go on from.

pub mod assign;
pub mod baselines;
pub mod channels;
pub mod condition;
pub mod evaluate;
pub mod evolve;
pub mod explore;
pub mod knapsack;
pub mod pareto;
pub mod quality;
mod relaxation;
pub mod space;
pub mod state;
pub mod vary;
