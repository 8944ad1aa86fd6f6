//! Convolutions as products: im2col, and depthwise ones in place.
//!
//! Images are channel-major, `[channels, batch, height, width]`: the result `[n, m]` of one product is then the image of
//! the next layer, and a 1×1 convolution of stride 1 reads its image as it lies.

use super::lanes::{Lanes, Plain, unrolled};
use super::panel::Scratch;
use super::{Activations, Isa, Packed};
use crate::lower::ConvShape;
use rayon::prelude::*;

/// Zeros before the image along an axis: half of what the output's extent implies, the smaller half first.
fn before(s: &ConvShape, axis: usize) -> u64 {
    let reach = s.output[axis].saturating_sub(1) * s.stride[axis] + (s.kernel[axis] - 1) * s.dilation[axis] + 1;
    reach.saturating_sub(s.input[axis]) / 2
}

/// Writes the matrix `[channels · kernel, batch · output]` that a product reads: one row a channel and tap.
/// `image` holds those channels alone.
pub fn im2col(s: &ConvShape, image: &[f32], matrix: &mut [f32]) {
    let size = |v: [u64; 2]| [v[0] as usize, v[1] as usize];
    let ([h, w], [oh, ow], [kh, kw]) = (size(s.input), size(s.output), size(s.kernel));
    let (stride, dilation, batch) = (size(s.stride), size(s.dilation), s.batch as usize);
    let pad = [before(s, 0) as usize, before(s, 1) as usize];
    let row = |(at, to): (usize, &mut [f32])| {
        let (channel, tap) = (at / (kh * kw), at % (kh * kw));
        let (down, across) = (tap / kw * dilation[0], tap % kw * dilation[1]);
        // Output columns whose input column lies in the image.
        let first = pad[1].saturating_sub(across).div_ceil(stride[1]).min(ow);
        let last = (w + pad[1]).saturating_sub(across).div_ceil(stride[1]).clamp(first, ow);
        for (line, to) in to.chunks_exact_mut(ow).enumerate() {
            let (n, y) = (line / oh, line % oh * stride[0] + down);
            if y < pad[0] || y - pad[0] >= h {
                to.fill(0.0);
                continue;
            }
            let from = &image[((channel * batch + n) * h + y - pad[0]) * w..][..w];
            to[..first].fill(0.0);
            to[last..].fill(0.0);
            if first == last {
                continue;
            }
            let from = &from[first * stride[1] + across - pad[1]..];
            let to = &mut to[first..last];
            match stride[1] {
                1 => to.copy_from_slice(&from[..to.len()]),
                // Pairs become shuffles of vectors.
                2 => {
                    let (pairs, last) = from.as_chunks::<2>();
                    to.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
                    if let (Some(to), [last]) = (to.get_mut(pairs.len()), last) {
                        *to = *last;
                    }
                }
                step => to.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, from)| *to = *from),
            }
        }
    };
    let length = (batch * oh * ow).max(1);
    if rayon::current_num_threads() > 1 {
        matrix.par_chunks_exact_mut(length).enumerate().for_each(row);
    } else {
        matrix.chunks_exact_mut(length).enumerate().for_each(row);
    }
}

/// A convolution whose weights are packed, one product a group.
pub struct Convolution {
    shape: ConvShape,
    groups: Vec<Box<dyn Packed>>,
}

impl Convolution {
    /// Of one packed product a group.
    pub fn new(shape: ConvShape, groups: Vec<Box<dyn Packed>>) -> Self {
        Self { shape, groups }
    }

    /// Its geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// `y`, the image of all output channels, from the image `x`.
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        let s = &self.shape;
        let (groups, m) = (self.groups.len().max(1), (s.batch * s.output[0] * s.output[1]) as usize);
        let own = (s.channels as usize / groups, (s.batch * s.input[0] * s.input[1]) as usize);
        let k = own.0 * (s.kernel[0] * s.kernel[1]) as usize;
        let results = y.len() / groups;
        if m == 0 || results == 0 {
            return;
        }
        let mut scratch = Scratch::take(if s.is_pointwise() { 0 } else { k * m });
        for ((packed, x), y) in self.groups.iter().zip(x.chunks(own.0 * own.1)).zip(y.chunks_exact_mut(results)) {
            let values = if s.is_pointwise() {
                x
            } else {
                im2col(s, x, scratch.slice());
                scratch.slice()
            };
            packed.run(Activations { k, m, values }, y);
        }
    }
}

/// A convolution of narrow groups in place: no matrix is formed.
///
/// Loop nest: output channels, shared among threads; its inputs are copied once, padded and one stride phase after
/// another, so that every tap is a contiguous vector; then four rows of outputs at a time, a vector of columns, the taps.
pub struct Direct {
    isa: Isa,
    shape: ConvShape,
    /// Inputs and outputs of a group.
    own: (usize, usize),
    /// `[outputs, inputs of a group, taps]`.
    weights: Vec<f32>,
}

impl Direct {
    /// Weights of all groups, one output after another.
    pub fn new(isa: Isa, shape: ConvShape, groups: usize, weights: Vec<f32>) -> Self {
        let inputs = shape.channels as usize / groups.max(1);
        let taps = (shape.kernel[0] * shape.kernel[1]) as usize;
        let outputs = weights.len() / (inputs * taps * groups).max(1);
        Self { isa, shape, own: (inputs, outputs), weights }
    }

    /// `y`, the image of all output channels, from the image `x`.
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        let s = &self.shape;
        let m = (s.batch * s.output[0] * s.output[1]) as usize;
        if m == 0 {
            return;
        }
        let each = |(output, y): (usize, &mut [f32])| match self.isa {
            // SAFETY: an Isa beyond Portable is only used where it was detected; plain vectors need nothing.
            Isa::Portable => unsafe { self.output::<Plain>(output, x, y) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { self.output_avx2(output, x, y) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { self.output_avx512(output, x, y) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => unsafe { self.output::<Plain>(output, x, y) },
        };
        if rayon::current_num_threads() > 1 {
            y.par_chunks_exact_mut(m).enumerate().for_each(each);
        } else {
            y.chunks_exact_mut(m).enumerate().for_each(each);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn output_avx2(&self, output: usize, x: &[f32], y: &mut [f32]) {
        unsafe { self.output::<super::lanes::Ymm>(output, x, y) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn output_avx512(&self, output: usize, x: &[f32], y: &mut [f32]) {
        unsafe { self.output::<super::lanes::Zmm>(output, x, y) }
    }

    /// One output channel of all images.
    ///
    /// # Safety
    /// `V`'s instruction set is enabled.
    #[inline(always)]
    unsafe fn output<V: Lanes>(&self, output: usize, x: &[f32], y: &mut [f32]) {
        let s = &self.shape;
        let size = |v: [u64; 2]| [v[0] as usize, v[1] as usize];
        let ([h, w], [oh, ow], [kh, kw]) = (size(s.input), size(s.output), size(s.kernel));
        let (stride, dilation, batch) = (size(s.stride), size(s.dilation), s.batch as usize);
        let pad = [before(s, 0) as usize, before(s, 1) as usize];
        let (inputs, outputs) = self.own;
        let taps = kh * kw;
        // Columns of one phase, whole vectors and the taps' reach; rows to the last that a strip of four meets.
        let wide = ow.next_multiple_of(V::COUNT) + (kw - 1) * dilation[1] / stride[1] + 1;
        let high = (oh.next_multiple_of(4) - 1) * stride[0] + (kh - 1) * dilation[0] + 1;
        let phases = stride[1].min((kw - 1) * dilation[1] + 1);
        let plane = phases * high * wide;
        let mut padded = Scratch::take(inputs * plane);
        let padded = padded.slice();
        let weights = &self.weights[output * inputs * taps..][..inputs * taps];
        let mut results = [0.0f32; 16];
        for n in 0..batch {
            for input in 0..inputs {
                let channel = output / outputs.max(1) * inputs + input;
                let image = &x[(channel * batch + n) * h * w..][..h * w];
                for (line, to) in padded[input * plane..][..plane].chunks_exact_mut(wide).enumerate() {
                    let (row, phase) = (line / phases, line % phases);
                    if row < pad[0] || row - pad[0] >= h {
                        to.fill(0.0);
                        continue;
                    }
                    let from = &image[(row - pad[0]) * w..][..w];
                    let first = pad[1].saturating_sub(phase).div_ceil(stride[1]).min(wide);
                    let at = first * stride[1] + phase - pad[1];
                    let count = w.saturating_sub(at).div_ceil(stride[1]).min(wide - first);
                    to[..first].fill(0.0);
                    to[first + count..].fill(0.0);
                    let to = &mut to[first..first + count];
                    if stride[1] == 1 {
                        to.copy_from_slice(&from[at..at + count]);
                    } else {
                        to.iter_mut().zip(from[at.min(w)..].iter().step_by(stride[1])).for_each(|(t, f)| *t = *f);
                    }
                }
            }
            let y = &mut y[n * oh * ow..][..oh * ow];
            for top in (0..oh).step_by(4) {
                for left in (0..ow).step_by(V::COUNT) {
                    // SAFETY: the caller's; the padded rows and columns reach as far as these taps do.
                    unsafe {
                        let mut sums = [V::zero(); 4];
                        for (at, weight) in weights.iter().enumerate() {
                            let (input, tap) = (at / taps, at % taps);
                            let (down, across) = (tap / kw * dilation[0], tap % kw * dilation[1]);
                            let line = (down + top * stride[0]) * phases + across % stride[1];
                            let from = input * plane + line * wide + left + across / stride[1];
                            debug_assert!(from + 3 * stride[0] * phases * wide + V::COUNT <= padded.len());
                            let from = padded.as_ptr().add(from);
                            let weight = V::splat(*weight);
                            unrolled!(4, r, {
                                let line = V::load(from.add(r * stride[0] * phases * wide));
                                sums[r] = sums[r].add_product(weight, line);
                            });
                        }
                        for (r, sum) in sums.into_iter().enumerate().take((oh - top).min(4)) {
                            let to = &mut y[(top + r) * ow + left..];
                            let count = (ow - left).min(V::COUNT);
                            if count == V::COUNT {
                                sum.store(to.as_mut_ptr());
                            } else {
                                sum.store(results.as_mut_ptr());
                                to[..count].copy_from_slice(&results[..count]);
                            }
                        }
                    }
                }
            }
        }
    }
}
