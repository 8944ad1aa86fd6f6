//! Files in and out: networks, checkpoints, profiles, schemas.

#[path = "../common/onnx.rs"]
mod onnx;

mod checkpoints;
mod onnx_import;
mod onnx_models;
mod onnx_refusals;
mod profiles;
mod profiles_gpu;
mod schema;
