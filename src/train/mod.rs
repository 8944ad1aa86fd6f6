//! Small networks trained under every method of [`crate::sparsity::regularize`], to see what structure each one leaves.
//!
//! [`data`] is what is learnt, [`network`] what learns, [`autodiff`] its gradients, [`method`] what bends them, [`mod@fit`] the
//! loop. Afterwards [`audit`] counts the zeros, [`compact`] removes what they make removable, [`export`] writes files
//! that the rest of hwsim reads.

pub mod audit;
pub mod autodiff;
pub mod compact;
pub mod data;
pub mod export;
pub mod fit;
pub mod method;
pub mod network;

pub use data::Dataset;
pub use fit::{Progress, Settings, fit};
pub use method::Method;
pub use network::Network;
