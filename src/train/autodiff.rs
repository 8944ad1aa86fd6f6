//! Forward and backward passes, by candle.

use super::network::{Network, Stage};
use crate::error::{Error, Result};
use candle_core::{D, Device, Tensor, Var};

/// Mean cross-entropy of a batch, and its gradient with respect to every parameter.
///
/// # Errors
/// Inputs and labels that do not fit the network.
pub fn loss(network: &Network, inputs: &[f32], labels: &[u32], gradient: &mut [f32]) -> Result<f64> {
    differentiate(network, inputs, labels, gradient).map_err(failed)
}

/// Outputs of the last layer, `[examples, classes]`.
///
/// # Errors
/// Inputs that do not fit the network.
pub fn logits(network: &Network, inputs: &[f32]) -> Result<Vec<f32>> {
    let run = || -> candle_core::Result<Vec<f32>> {
        let parameters = tensors(network, Ok)?;
        let mut values = Vec::new();
        // Activations of a few hundred examples fit into a cache.
        let width = network.features().max(1);
        for some in inputs.chunks(256 * width) {
            values.extend(forward(network, &parameters, some)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(values)
    };
    run().map_err(failed)
}

fn failed(error: candle_core::Error) -> Error {
    Error::argument("training", format!("the network cannot be run on these examples: {error}"))
}

/// Every layer's weights `[out, in]` or `[out, in, side, side]` and biases `[out]`.
fn tensors<T>(network: &Network, make: impl Fn(Tensor) -> candle_core::Result<T>) -> candle_core::Result<Vec<(T, T)>> {
    network
        .layers
        .iter()
        .map(|l| {
            let weights = &network.parameters[l.weights()];
            let side = l.kernel.isqrt();
            let weights = if l.kernel > 1 {
                Tensor::from_slice(weights, (l.outputs, l.inputs, side, side), &Device::Cpu)?
            } else {
                Tensor::from_slice(weights, (l.outputs, l.inputs), &Device::Cpu)?
            };
            let bias = l.bias.map_or(&[][..], |b| &network.parameters[b..b + l.outputs]);
            Ok((make(weights)?, make(Tensor::from_slice(bias, l.outputs, &Device::Cpu)?)?))
        })
        .collect()
}

fn forward(network: &Network, parameters: &[(Tensor, Tensor)], inputs: &[f32]) -> candle_core::Result<Tensor> {
    let [c, h, w] = network.input;
    let examples = inputs.len() / network.features().max(1);
    let mut x = Tensor::from_slice(inputs, (examples, c, h, w), &Device::Cpu)?;
    let mut parameters = parameters.iter();
    for (i, stage) in network.stages.iter().enumerate() {
        let last = i + 1 == network.stages.len();
        x = match *stage {
            Stage::Pool { side } => pool(&x, side)?,
            Stage::Conv { filters, side } => {
                let Some((weights, bias)) = parameters.next() else { break };
                let weights = if side == 1 { weights.reshape((filters, (), 1, 1))? } else { weights.clone() };
                x.conv2d(&weights, 0, 1, 1, 1)?.broadcast_add(&bias.reshape((1, filters, 1, 1))?)?.relu()?
            }
            Stage::Linear { .. } => {
                let Some((weights, bias)) = parameters.next() else { break };
                let x = x.flatten_from(1)?.matmul(&weights.t()?)?.broadcast_add(bias)?;
                if last { x } else { x.relu()? }
            }
        };
    }
    Ok(x)
}

/// Maxima of squares by two reductions: the gradient of candle 0.9's own pooling is divided by the square's size.
fn pool(x: &Tensor, side: usize) -> candle_core::Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let (h, w) = (h / side, w / side);
    let whole = x.narrow(2, 0, h * side)?.narrow(3, 0, w * side)?.contiguous()?;
    whole.reshape((n, c, h, side, w, side))?.max(5)?.max(3)
}

fn differentiate(network: &Network, inputs: &[f32], labels: &[u32], gradient: &mut [f32]) -> candle_core::Result<f64> {
    let variables = tensors(network, |t| Var::from_tensor(&t))?;
    let parameters: Vec<_> = variables.iter().map(|(w, b)| (w.as_tensor().clone(), b.as_tensor().clone())).collect();
    let logits = forward(network, &parameters, inputs)?;
    let labels = Tensor::from_slice(labels, (labels.len(), 1), &Device::Cpu)?;
    // The largest output is taken off before exponentials, and its gradient is nothing.
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let loss = (sums - shifted.gather(&labels, D::Minus1)?)?.mean_all()?;
    let mut gradients = loss.backward()?;
    gradient.fill(0.0);
    for (layer, (weights, bias)) in network.layers.iter().zip(&variables) {
        let biases = layer.bias.map_or(0..0, |b| b..b + layer.outputs);
        for (variable, place) in [(weights, layer.weights()), (bias, biases)] {
            if let Some(g) = gradients.remove(variable) {
                gradient[place].copy_from_slice(&g.flatten_all()?.to_vec1::<f32>()?);
            }
        }
    }
    Ok(f64::from(loss.to_scalar::<f32>()?))
}
