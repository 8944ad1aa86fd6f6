//! Runs one kernel on a drawn mask, so many times, with caches swept empty before each: what `scripts/cachegrind.py`
//! runs under `valgrind --tool=cachegrind`. The sweeps are as many for any number of runs, so that two counts subtract to
//! the counts of one run.
//!
//!     run_kernel KERNEL MxNxK PATTERN SEED RUNS SWEEP_BYTES [ISA]

use hwsim::kernels::{self, Activations, Isa, WeightMatrix};
use hwsim::pattern::SparsityPattern;
use hwsim::sparsity::Mask;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

/// Large arrays begin on pages, as they do in the simulator's address space.
struct Pages;

impl Pages {
    fn aligned(layout: Layout) -> Layout {
        if layout.size() < 512 { layout } else { layout.align_to(4096).unwrap_or(layout) }
    }
}

// SAFETY: the system's allocator with a stricter alignment, the same on both ways.
unsafe impl GlobalAlloc for Pages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(Self::aligned(layout)) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, Self::aligned(layout)) }
    }
}

#[global_allocator]
static ALLOCATOR: Pages = Pages;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, gemm, pattern, seed, runs, sweep, isa @ ..] = &args[..] else {
        panic!("run_kernel KERNEL MxNxK PATTERN SEED RUNS SWEEP_BYTES [ISA]");
    };
    let extents: Vec<usize> = gemm.split('x').map(|e| e.parse().expect("MxNxK")).collect();
    let [m, n, k] = extents[..] else { panic!("MxNxK") };
    let pattern: SparsityPattern = pattern.parse().expect("a pattern");
    let isa = match isa.first().map(String::as_str) {
        None | Some("portable") => Isa::Portable,
        Some("avx2") => Isa::Avx2,
        Some(other) => panic!("{other}: valgrind runs portable and avx2"),
    };
    let (runs, sweep): (usize, usize) = (runs.parse().expect("runs"), sweep.parse().expect("bytes"));
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("one thread");

    let mask = Mask::draw(pattern, n as u64, k as u64, seed.parse().expect("a seed"));
    let mut values = vec![0.0f32; n * k];
    for row in 0..n {
        mask.columns(row as u64).for_each(|c| values[row * k + c as usize] = 1.0);
    }
    let x = vec![0.5f32; k * m];
    let mut y = vec![0.0f32; n * m];
    let weights = WeightMatrix { n, k, values: &values };
    let kernel = kernels::all(isa).into_iter().find(|k| k.name() == kernel).expect("a kernel");
    let packed = kernel.pack(weights, &pattern, m).expect("a mask of the pattern");
    let swept = vec![1u8; sweep];
    // Three sweeps: the first run meets fresh scratch memory, the second what later ones meet.
    for turn in 0..3 {
        let sum: u64 = swept.iter().step_by(64).map(|b| u64::from(*black_box(b))).sum();
        black_box(sum);
        if turn < runs {
            packed.run(Activations { k, m, values: &x }, black_box(&mut y));
        }
    }
    println!("{}", y.iter().map(|v| f64::from(*v)).sum::<f64>());
}
