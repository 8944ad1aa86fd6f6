//! SCALE-Sim 3.0.0's `OptimizedMapping`: every output keeps its own N of a block, N drawn from a seed.
//!
//! Two blocks of B reduction indices share B array rows; N is uniform on 1 … B/2, as `numpy.random.randint` draws it
//! after `numpy.random.seed`: the Mersenne Twister (Matsumoto and Nishimura, TOMACS 1998) with masked rejection.

/// The generator, as far as one needs it.
struct MersenneTwister {
    state: [u32; 624],
    next: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: 624 }
    }

    fn draw(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform on 0 … `most`.
    fn up_to(&mut self, most: u32) -> u32 {
        if most == 0 {
            return 0;
        }
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let value = self.draw() & mask;
            if value <= most {
                return value;
            }
        }
    }
}

/// Weights that `outputs` outputs keep of a reduction of `k` in blocks of `block`.
pub fn kept(outputs: u64, k: u64, block: u64, seed: u32) -> u64 {
    let mut random = MersenneTwister::new(seed);
    let most = (block / 2).max(1) as u32 - 1;
    (0..outputs)
        .map(|_| {
            let n = 1 + u64::from(random.up_to(most));
            k / block * n + n.min(k % block)
        })
        .sum()
}

/// Array rows that a reduction of `k` takes: B for every two blocks.
pub const fn length(k: u64, block: u64) -> u64 {
    k.div_ceil(2 * block) * block
}
