//! What a layer multiplies by its weight matrix, row by row, and what is kept of it.

use super::npz::Array;
use super::plan::view;
use crate::sparsity::saliency::Statistics;
use crate::workload::layer::{Conv, Layer, Op, Param};

/// Inputs of a layer up to which Σ x·xᵀ is kept; layers with more know the norms of their inputs alone.
const LARGEST_PRODUCTS: usize = 8192;

/// Values of im2col rows that are made at a time.
const RUN: usize = 1 << 22;

/// Takes the group of filters, a run of rows and k.
pub(super) type Visit<'a> = dyn FnMut(usize, &[f32], usize) + 'a;

/// Hands the rows `[samples, k]` that a layer multiplies by its weight matrix to `visit`, a run of them at a time, group by
/// group where filters are in groups. Of a transposed convolution, whose matrix has a row for each output channel and tap,
/// these are the channels at each place.
///
/// # Errors
/// A tensor that does not have the layer's inputs, in words.
pub(super) fn visit(layer: &Layer, weight: &Param, x: &Array, visit: &mut Visit) -> Result<(), String> {
    let k = view(layer, weight, &weight.shape).ok_or("has no weight matrix")?.k;
    let strange = || format!("reads a tensor of {:?}, which is not rows of {k}", x.shape);
    if x.integers.is_some() {
        return Err("reads integers".to_owned());
    }
    match &layer.op {
        Op::Conv(c) if x.shape.len() == c.kernel.len() + 2 => {
            let groups = c.groups.max(1) as usize;
            let channels = x.shape[1] as usize / groups;
            let taps: u64 = if c.transposed { 1 } else { c.kernel.iter().product() };
            if channels * taps as usize != k {
                return Err(strange());
            }
            let columns = Columns::of(c, &x.shape[2..]);
            let each = channels * x.shape[2..].iter().product::<u64>() as usize;
            for (i, image) in x.values.chunks_exact(each.max(1)).enumerate() {
                columns.rows(image, channels, &mut |rows, k| visit(i % groups, rows, k));
            }
            Ok(())
        }
        Op::Linear(_) if x.shape.last() == Some(&(k as u64)) => {
            visit(0, &x.values, k);
            Ok(())
        }
        _ => Err(strange()),
    }
}

/// Where the taps of a convolution lie: im2col.
struct Columns {
    /// Extents of the image.
    image: Vec<u64>,
    /// Extents of the output.
    out: Vec<u64>,
    /// Extents, steps, distances and leading padding of the filter.
    kernel: Vec<u64>,
    stride: Vec<u64>,
    dilation: Vec<u64>,
    before: Vec<u64>,
}

impl Columns {
    fn of(c: &Conv, image: &[u64]) -> Self {
        let rank = image.len();
        if c.transposed {
            let ones = vec![1; rank];
            return Self {
                image: image.to_vec(),
                out: image.to_vec(),
                kernel: ones.clone(),
                stride: ones.clone(),
                dilation: ones,
                before: vec![0; rank],
            };
        }
        let out = (0..rank).map(|d| {
            let span = (c.kernel[d] - 1) * c.dilation[d] + 1;
            (image[d] + c.pad[d].0 + c.pad[d].1).checked_sub(span).map_or(0, |free| free / c.stride[d].max(1) + 1)
        });
        Self {
            image: image.to_vec(),
            out: out.collect(),
            kernel: c.kernel.clone(),
            stride: c.stride.clone(),
            dilation: c.dilation.clone(),
            before: c.pad.iter().map(|p| p.0).collect(),
        }
    }

    /// Rows (channel, taps…), one an output place.
    fn rows(&self, image: &[f32], channels: usize, visit: &mut dyn FnMut(&[f32], usize)) {
        let places: u64 = self.out.iter().product();
        let taps: u64 = self.kernel.iter().product();
        let (k, area) = (channels * taps as usize, image.len() / channels.max(1));
        let run = (RUN / k.max(1)).max(1);
        let mut rows = Vec::with_capacity(run.min(places as usize) * k);
        for place in 0..places {
            let at = unravel(place, &self.out);
            let from: Vec<Option<usize>> = (0..taps)
                .map(|tap| {
                    let tap = unravel(tap, &self.kernel);
                    let mut index = 0;
                    for d in 0..self.image.len() {
                        let i = (at[d] * self.stride[d] + tap[d] * self.dilation[d]).checked_sub(self.before[d]);
                        index = index * self.image[d] + i.filter(|&i| i < self.image[d])?;
                    }
                    Some(index as usize)
                })
                .collect();
            for channel in image.chunks_exact(area.max(1)) {
                rows.extend(from.iter().map(|i| i.map_or(0.0, |i| channel[i])));
            }
            if rows.len() >= run * k {
                visit(&rows, k);
                rows.clear();
            }
        }
        if !rows.is_empty() {
            visit(&rows, k);
        }
    }
}

fn unravel(mut flat: u64, extents: &[u64]) -> Vec<u64> {
    let mut at = vec![0; extents.len()];
    for (i, &extent) in at.iter_mut().zip(extents).rev() {
        *i = flat % extent.max(1);
        flat /= extent.max(1);
    }
    at
}

/// What is known of a layer's groups of filters, mostly one.
pub(super) fn statistics(mut groups: Vec<Sums>) -> Statistics {
    if groups.len() == 1 {
        return groups.remove(0).statistics();
    }
    let mut known = Statistics::none();
    known.groups = groups.into_iter().map(Sums::statistics).collect();
    known
}

/// Rows of a layer as they come: kept as they are while they are few, then their products.
#[derive(Default)]
pub(super) struct Sums {
    squares: Vec<f64>,
    rows: Vec<f32>,
    products: Option<Vec<f64>>,
}

impl Sums {
    /// Adds rows `[samples, k]`.
    pub(super) fn add(&mut self, rows: &[f32], k: usize) {
        self.squares.resize(k, 0.0);
        for row in rows.chunks_exact(k.max(1)) {
            self.squares.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x) * f64::from(x));
        }
        if k <= LARGEST_PRODUCTS {
            self.rows.extend_from_slice(rows);
            if self.rows.len() / k.max(1) > (k / 4).max(64) {
                let products = self.products.get_or_insert_with(|| vec![0.0; k * k]);
                add_products(products, &std::mem::take(&mut self.rows), k);
            }
        }
    }

    fn statistics(mut self) -> Statistics {
        let k = self.squares.len();
        if let Some(products) = &mut self.products
            && !self.rows.is_empty()
        {
            add_products(products, &self.rows, k);
            self.rows.clear();
        }
        let mut known = Statistics::none();
        known.norms = Some(self.squares.iter().map(|s| s.sqrt()).collect());
        known.inputs = Some(self.rows).filter(|r| !r.is_empty());
        known.products = self.products;
        known
    }
}

/// Adds Σ x·xᵀ of rows `[samples, k]`.
fn add_products(products: &mut [f64], rows: &[f32], k: usize) {
    let x: Vec<f64> = rows.iter().map(|&x| x.into()).collect();
    let samples = x.len() / k.max(1);
    if products.len() != k * k || samples * k != x.len() {
        return;
    }
    let threads = match rayon::current_num_threads() {
        threads if threads > 1 && k > 64 => gemm::Parallelism::Rayon(threads),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: `products` is k × k and `x` samples × k, row-major, as was just checked; they do not overlap.
    unsafe {
        gemm::gemm(
            k,
            k,
            samples,
            products.as_mut_ptr(),
            1,
            k as isize,
            true,
            x.as_ptr(),
            k as isize,
            1,
            x.as_ptr(),
            1,
            k as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, Sums, add_products};
    use crate::workload::layer::Conv;

    #[test]
    fn columns_of_a_padded_strided_image() {
        let conv = Conv {
            out: 1,
            kernel: vec![2, 2],
            stride: vec![2, 1],
            pad: vec![(1, 0), (0, 1)],
            dilation: vec![1, 1],
            groups: 1,
            bias: false,
            transposed: false,
            output_pad: vec![0, 0],
        };
        let mut all = Vec::new();
        let image: Vec<f32> = (1..=6).map(|i| i as f32).collect();
        Columns::of(&conv, &[3, 2]).rows(&image, 1, &mut |rows, k| all.extend(rows.chunks(k).map(<[f32]>::to_vec)));
        let expected = [[0., 0., 1., 2.], [0., 0., 2., 0.], [3., 4., 5., 6.], [4., 0., 6., 0.]];
        assert_eq!(all, expected.map(|r| r.to_vec()));
    }

    #[test]
    fn products_are_those_of_all_rows() {
        let rows: Vec<f32> = (0..300).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
        let mut sums = Sums::default();
        rows.chunks(30).for_each(|part| sums.add(part, 3));
        let statistics = sums.statistics();
        let mut expected = vec![0.0; 9];
        add_products(&mut expected, &rows, 3);
        let by_hand: f64 = rows.chunks(3).map(|r| f64::from(r[0] * r[2])).sum();
        assert_eq!((statistics.products.as_deref(), expected[2]), (Some(&expected[..]), by_hand));
    }
}
