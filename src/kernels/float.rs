//! Rounding to bf16. Subnormal numbers: how many there are, and arithmetic that takes them for zero.
//!
//! Weights that decay without ever being set to zero end near 1e-40, where most processors leave their fast path.

/// How many values are subnormal: not zero, and nearer to it than the smallest normal number (1.2e-38).
pub fn subnormals(values: &[f32]) -> u64 {
    values.iter().filter(|v| v.is_subnormal()).count() as u64
}

/// Upper half of an fp32 number, rounded to nearest, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Calls `work` while this thread's vector unit reads subnormal operands as zero and writes zero for subnormal results,
/// and restores the thread's setting afterwards. Threads that `work` hands parts to are not affected; where the machine
/// has no such switch, `work` is just called.
pub fn with_flush_to_zero<T>(work: impl FnOnce() -> T) -> T {
    let _guard = FlushToZero::enter();
    work()
}

struct FlushToZero {
    before: u64,
}

impl Drop for FlushToZero {
    fn drop(&mut self) {
        control::write(self.before);
    }
}

impl FlushToZero {
    fn enter() -> Self {
        let before = control::read();
        control::write(before | control::FLUSH);
        Self { before }
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    /// MXCSR: flush-to-zero (bit 15) and denormals-are-zero (bit 6), Intel SDM volume 1, section 10.2.3.
    pub const FLUSH: u64 = 1 << 15 | 1 << 6;

    pub fn read() -> u64 {
        let mut value = 0u32;
        // SAFETY: stores the control register into a local.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack)) }
        u64::from(value)
    }

    pub fn write(value: u64) {
        let value = value as u32;
        // SAFETY: the value is one that was read, with the two documented bits set at most.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack)) }
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    /// FPCR.FZ: operands and results of binary32 and binary64 (Arm ARM, C5.2.8).
    pub const FLUSH: u64 = 1 << 24;

    pub fn read() -> u64 {
        let value: u64;
        // SAFETY: reads the control register.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack)) }
        value
    }

    pub fn write(value: u64) {
        // SAFETY: the value is one that was read, with the documented bit set at most.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack)) }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    pub const FLUSH: u64 = 0;

    pub fn read() -> u64 {
        0
    }

    pub fn write(_: u64) {}
}

#[cfg(test)]
mod tests {
    use super::{subnormals, with_flush_to_zero};
    use std::hint::black_box;

    #[test]
    fn subnormals_are_neither_zero_nor_normal() {
        assert_eq!(subnormals(&[0.0, -0.0, 1e-40, -1e-45, 1.2e-38, f32::MIN_POSITIVE, f32::NAN, 1.0]), 2);
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn inside_they_are_zero_and_outside_they_are_not() {
        let product = || black_box(1e-30f32) * black_box(1e-10f32);
        assert!(product() > 0.0);
        assert_eq!(with_flush_to_zero(product), 0.0);
        assert_eq!(with_flush_to_zero(|| black_box(1e-40f32) * black_box(1e10f32)), 0.0);
        assert!(product() > 0.0);
        assert!(std::panic::catch_unwind(|| with_flush_to_zero(|| std::panic::resume_unwind(Box::new(())))).is_err());
        assert!(product() > 0.0);
    }
}
