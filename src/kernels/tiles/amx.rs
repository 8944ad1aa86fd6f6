//! AMX: the tile unit of Intel's server processors since Sapphire Rapids, on Linux.
//!
//! A process asks the kernel once for the state that tiles add to a thread; threads that run already have the permission
//! too. The instructions are written as assembly, because Rust's intrinsics for them are not stable.

use super::unit::{Emulated, Tiles, exercise};
use std::sync::OnceLock;

/// Whether bf16 and int8 tiles work here, or why not. The first call asks the kernel and multiplies a few tiles to see
/// that the hardware does what its description says.
///
/// # Errors
/// The reason, as the end of a sentence.
pub fn usable() -> Result<(), &'static str> {
    static ANSWER: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        hardware::permitted()?;
        // SAFETY: the machine has the instructions, and the kernel lets this process use them.
        let (found, expected) = unsafe { (exercise::<Amx>(), exercise::<Emulated>()) };
        if found == expected { Ok(()) } else { Err("this CPU's AMX tiles give other products than Intel documents") }
    })
}

pub use hardware::Amx;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod hardware {
    use super::Tiles;
    use crate::kernels::tiles::unit::{ROW_BYTES, ROWS};
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// CPUID, the extended control register, and the kernel's permission (SDM volume 1, chapter 18;
    /// Linux, `Documentation/arch/x86/xstate.rst`).
    pub fn permitted() -> Result<(), &'static str> {
        const TILE_STATE: u64 = 1 << 17 | 1 << 18;
        // SAFETY: every x86-64 has CPUID, and a leaf up to the highest that leaf 0 names.
        #[allow(unused_unsafe, reason = "safe since Rust 1.93")]
        let (leaf, os) = unsafe {
            let highest = __cpuid(0).eax;
            (if highest >= 0x1d { __cpuid_count(7, 0).edx } else { 0 }, __cpuid(1).ecx)
        };
        let has = |bit: u32| leaf >> bit & 1 == 1;
        // AMX-BF16, AMX-TILE, AMX-INT8.
        if !(has(22) && has(24) && has(25)) {
            return Err("this CPU has no AMX tiles");
        }
        if os >> 27 & 1 == 0 || extended_control() & TILE_STATE != TILE_STATE {
            return Err("the operating system has not enabled this CPU's AMX tiles");
        }
        // SAFETY: as above.
        #[allow(unused_unsafe, reason = "safe since Rust 1.93")]
        let palette = unsafe { __cpuid_count(0x1d, 1) };
        if (palette.eax >> 16, palette.ebx, palette.ecx & 0xffff) != (1024, 8 << 16 | 64, 16) {
            return Err("this CPU's AMX tiles are not eight of 16 rows of 64 bytes");
        }
        request()
    }

    /// XCR0: which states the operating system saves.
    fn extended_control() -> u64 {
        let (low, high): (u32, u32);
        // SAFETY: OSXSAVE was checked; the instruction writes the two registers.
        unsafe {
            asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
        }
        u64::from(high) << 32 | u64::from(low)
    }

    /// Asks for the tiles' state, and whether it was given.
    fn request() -> Result<(), &'static str> {
        const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const XFEATURE_XTILEDATA: u64 = 18;
        let mut granted = 0u64;
        // SAFETY: the first call takes a number, the second writes one to the address that it is given.
        let answers = unsafe {
            [
                arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA),
                arch_prctl(ARCH_GET_XCOMP_PERM, &raw mut granted as u64),
            ]
        };
        if answers == [0, 0] && granted >> XFEATURE_XTILEDATA & 1 == 1 {
            return Ok(());
        }
        Err(match answers[0] {
            -28 => "the kernel refuses AMX tiles: a thread's alternate signal stack is too small for their state",
            -22 | -38 | -95 => "the kernel does not support AMX tiles (Linux has since 5.16)",
            _ => "the kernel refuses this process AMX tiles",
        })
    }

    /// # Safety
    /// What the operation's argument asks for.
    unsafe fn arch_prctl(operation: u64, argument: u64) -> i64 {
        const SYS_ARCH_PRCTL: i64 = 158;
        let answer;
        // SAFETY: the kernel's calling convention; memory may be written through the argument.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") SYS_ARCH_PRCTL => answer,
                in("rdi") operation,
                in("rsi") argument,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        answer
    }

    /// What LDTILECFG reads.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Eight tiles of 16 rows of 64 bytes.
    static CONFIGURATION: Configuration = {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut tile = 0;
        while tile < 8 {
            (row_bytes[tile], rows[tile]) = (ROW_BYTES as u16, ROWS as u8);
            tile += 1;
        }
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    };

    /// This thread's tile registers. Released when dropped: a thread that holds none switches faster.
    pub struct Amx(std::marker::PhantomData<*mut ()>);

    impl Drop for Amx {
        fn drop(&mut self) {
            // SAFETY: whoever took the registers was allowed to.
            unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
        }
    }

    impl Tiles for Amx {
        #[inline(always)]
        unsafe fn take() -> Self {
            // SAFETY: the caller's; the configuration is one that the palette admits.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(readonly, nostack, preserves_flags));
            }
            Self(std::marker::PhantomData)
        }

        #[inline(always)]
        unsafe fn zero<const T: usize>(&mut self) {
            // SAFETY: the caller's.
            unsafe { asm!("tilezero tmm{}", const T, options(nomem, nostack, preserves_flags)) }
        }

        #[inline(always)]
        unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "tileloadd tmm{}, [{} + {}]", const T, in(reg) from, in(reg) stride,
                    options(readonly, nostack, preserves_flags),
                );
            }
        }

        #[inline(always)]
        unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "tilestored [{} + {}], tmm{}", in(reg) to, in(reg) stride, const T,
                    options(nostack, preserves_flags),
                );
            }
        }

        #[inline(always)]
        unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "tdpbf16ps tmm{}, tmm{}, tmm{}", const C, const A, const B,
                    options(nomem, nostack, preserves_flags),
                );
            }
        }

        #[inline(always)]
        unsafe fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    "tdpbssd tmm{}, tmm{}, tmm{}", const C, const A, const B,
                    options(nomem, nostack, preserves_flags),
                );
            }
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod hardware {
    pub use super::Emulated as Amx;

    pub fn permitted() -> Result<(), &'static str> {
        Err("AMX tiles are used on x86-64 Linux alone")
    }
}

#[cfg(test)]
mod tests {
    use super::usable;

    #[test]
    fn the_answer_is_a_reason_or_true_products() {
        match usable() {
            Ok(()) => {}
            Err(reason) => assert!(!reason.contains("other products"), "{reason}"),
        }
    }
}
