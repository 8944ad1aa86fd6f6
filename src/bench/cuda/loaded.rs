//! NVIDIA's libraries, loaded at run time, with the declarations that hwsim calls (from the public headers cuda.h,
//! cublasLt.h, cusparse.h, cusparseLt.h and nvml.h; handles are pointers, enumerations are `i32`).

use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{c_char, c_void};

/// A pointer to something opaque.
pub type Opaque = *mut c_void;
/// An address on the device.
pub type Address = u64;

/// Room for one of cuSPARSELt's opaque structures: 512 bytes in version 0.8, 11,024 in version 0.4.
#[repr(C, align(64))]
#[allow(dead_code, reason = "its contents are the library's")]
pub struct Structure(pub [u8; 16384]);

/// A GEMM algorithm that cuBLASLt's heuristic proposes (`cublasLtMatmulHeuristicResult_t`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[allow(dead_code, reason = "the layout is the library's")]
pub struct Proposal {
    /// The algorithm, opaque.
    pub algorithm: [u64; 8],
    /// Bytes of workspace that it needs.
    pub workspace: usize,
    /// Whether it can run.
    pub state: i32,
    /// Its occupancy, as the library thinks.
    pub waves: f32,
    reserved: [i32; 4],
}

/// The sentence for a library that is not there.
fn missing(what: &str, file: &str) -> Error {
    let advice = if what == "NVIDIA driver" { ", or measure with --device cpu" } else { "" };
    Error::argument("--device cuda", format!("no {what}: {file} was not found; install it{advice}"))
}

macro_rules! library {
    ($(#[$doc:meta])* $name:ident, $what:literal, [$($file:literal),+] {
        $($function:ident = $symbol:literal ($($type:ty),*);)*
    }) => {
        $(#[$doc])*
        pub struct $name { $(pub $function: unsafe extern "C" fn($($type),*) -> i32,)* _library: Library }

        impl $name {
            /// Loads the library.
            ///
            /// # Errors
            /// It is not installed, or too old to have a function.
            pub fn load() -> Result<Self> {
                let files = [$($file),+];
                // SAFETY: loading runs the library's initialisers, which NVIDIA's libraries allow from any thread.
                let found = files.iter().find_map(|file| unsafe { Library::new(file) }.ok());
                let library = found.ok_or_else(|| missing($what, files[0]))?;
                $(
                    // SAFETY: the signature is the public header's.
                    let $function = *unsafe {
                        library.get::<unsafe extern "C" fn($($type),*) -> i32>($symbol)
                    }.map_err(|_| Error::argument(
                        "--device cuda",
                        format!("{} has no function {}; install a newer version", files[0],
                            String::from_utf8_lossy($symbol)),
                    ))?;
                )*
                Ok(Self { $($function,)* _library: library })
            }
        }
    };
}

library! {
    /// The driver.
    Driver, "NVIDIA driver", ["libcuda.so.1", "libcuda.so"] {
        init = b"cuInit" (u32);
        driver_version = b"cuDriverGetVersion" (*mut i32);
        device = b"cuDeviceGet" (*mut i32, i32);
        device_name = b"cuDeviceGetName" (*mut c_char, i32, i32);
        device_attribute = b"cuDeviceGetAttribute" (*mut i32, i32, i32);
        device_bus = b"cuDeviceGetPCIBusId" (*mut c_char, i32, i32);
        retain = b"cuDevicePrimaryCtxRetain" (*mut Opaque, i32);
        release = b"cuDevicePrimaryCtxRelease_v2" (i32);
        set_current = b"cuCtxSetCurrent" (Opaque);
        free_memory = b"cuMemGetInfo_v2" (*mut usize, *mut usize);
        allocate = b"cuMemAlloc_v2" (*mut Address, usize);
        free = b"cuMemFree_v2" (Address);
        upload = b"cuMemcpyHtoD_v2" (Address, *const c_void, usize);
        copy = b"cuMemcpyDtoD_v2" (Address, Address, usize);
        stream = b"cuStreamCreate" (*mut Opaque, u32);
        stream_destroy = b"cuStreamDestroy_v2" (Opaque);
        stream_wait = b"cuStreamSynchronize" (Opaque);
        begin_capture = b"cuStreamBeginCapture_v2" (Opaque, i32);
        end_capture = b"cuStreamEndCapture" (Opaque, *mut Opaque);
        instantiate = b"cuGraphInstantiateWithFlags" (*mut Opaque, Opaque, u64);
        graph_destroy = b"cuGraphDestroy" (Opaque);
        graph_launch = b"cuGraphLaunch" (Opaque, Opaque);
        exec_destroy = b"cuGraphExecDestroy" (Opaque);
        event = b"cuEventCreate" (*mut Opaque, u32);
        event_destroy = b"cuEventDestroy_v2" (Opaque);
        record = b"cuEventRecord" (Opaque, Opaque);
        event_wait = b"cuEventSynchronize" (Opaque);
        elapsed = b"cuEventElapsedTime" (*mut f32, Opaque, Opaque);
    }
}

library! {
    /// Clocks and the driver's version.
    Nvml, "NVIDIA management library", ["libnvidia-ml.so.1", "libnvidia-ml.so"] {
        init = b"nvmlInit_v2" ();
        shutdown = b"nvmlShutdown" ();
        driver = b"nvmlSystemGetDriverVersion" (*mut c_char, u32);
        by_bus = b"nvmlDeviceGetHandleByPciBusId_v2" (*const c_char, *mut Opaque);
        clock = b"nvmlDeviceGetClockInfo" (Opaque, i32, *mut u32);
    }
}

library! {
    /// Dense products.
    CublasLt, "cuBLASLt", ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11", "libcublasLt.so"] {
        create = b"cublasLtCreate" (*mut Opaque);
        destroy = b"cublasLtDestroy" (Opaque);
        operation = b"cublasLtMatmulDescCreate" (*mut Opaque, i32, i32);
        operation_destroy = b"cublasLtMatmulDescDestroy" (Opaque);
        operation_set = b"cublasLtMatmulDescSetAttribute" (Opaque, i32, *const c_void, usize);
        layout = b"cublasLtMatrixLayoutCreate" (*mut Opaque, i32, u64, u64, i64);
        layout_destroy = b"cublasLtMatrixLayoutDestroy" (Opaque);
        preference = b"cublasLtMatmulPreferenceCreate" (*mut Opaque);
        preference_destroy = b"cublasLtMatmulPreferenceDestroy" (Opaque);
        preference_set = b"cublasLtMatmulPreferenceSetAttribute" (Opaque, i32, *const c_void, usize);
        propose = b"cublasLtMatmulAlgoGetHeuristic"
            (Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, i32, *mut Proposal, *mut i32);
        multiply = b"cublasLtMatmul"
            (Opaque, Opaque, *const c_void, Address, Opaque, Address, Opaque, *const c_void, Address, Opaque, Address,
             Opaque, *const [u64; 8], Address, usize, Opaque);
    }
}

library! {
    /// 2:4 products.
    CusparseLt, "cuSPARSELt", ["libcusparseLt.so.0", "libcusparseLt.so"] {
        init = b"cusparseLtInit" (*mut Structure);
        destroy = b"cusparseLtDestroy" (*const Structure);
        version = b"cusparseLtGetVersion" (*const Structure, *mut i32);
        dense = b"cusparseLtDenseDescriptorInit" (*const Structure, *mut Structure, i64, i64, i64, u32, i32, i32);
        structured = b"cusparseLtStructuredDescriptorInit"
            (*const Structure, *mut Structure, i64, i64, i64, u32, i32, i32, i32);
        descriptor_destroy = b"cusparseLtMatDescriptorDestroy" (*const Structure);
        operation = b"cusparseLtMatmulDescriptorInit"
            (*const Structure, *mut Structure, i32, i32, *const Structure, *const Structure, *const Structure,
             *const Structure, i32);
        selection = b"cusparseLtMatmulAlgSelectionInit" (*const Structure, *mut Structure, *const Structure, i32);
        plan = b"cusparseLtMatmulPlanInit" (*const Structure, *mut Structure, *const Structure, *const Structure);
        plan_destroy = b"cusparseLtMatmulPlanDestroy" (*const Structure);
        workspace = b"cusparseLtMatmulGetWorkspace" (*const Structure, *const Structure, *mut usize);
        compressed_size = b"cusparseLtSpMMACompressedSize"
            (*const Structure, *const Structure, *mut usize, *mut usize);
        compress = b"cusparseLtSpMMACompress" (*const Structure, *const Structure, Address, Address, Address, Opaque);
        search = b"cusparseLtMatmulSearch"
            (*const Structure, *mut Structure, *const c_void, Address, Address, *const c_void, Address, Address,
             Address, *mut Opaque, i32);
        multiply = b"cusparseLtMatmul"
            (*const Structure, *const Structure, *const c_void, Address, Address, *const c_void, Address, Address,
             Address, *mut Opaque, i32);
    }
}

library! {
    /// Products with compressed rows and blocked ELL.
    Cusparse, "cuSPARSE", ["libcusparse.so.12", "libcusparse.so.11", "libcusparse.so"] {
        create = b"cusparseCreate" (*mut Opaque);
        destroy = b"cusparseDestroy" (Opaque);
        set_stream = b"cusparseSetStream" (Opaque, Opaque);
        csr = b"cusparseCreateCsr"
            (*mut Opaque, i64, i64, i64, Address, Address, Address, i32, i32, i32, i32);
        blocked_ell = b"cusparseCreateBlockedEll" (*mut Opaque, i64, i64, i64, i64, Address, Address, i32, i32, i32);
        sparse_destroy = b"cusparseDestroySpMat" (Opaque);
        dense = b"cusparseCreateDnMat" (*mut Opaque, i64, i64, i64, Address, i32, i32);
        dense_destroy = b"cusparseDestroyDnMat" (Opaque);
        workspace = b"cusparseSpMM_bufferSize"
            (Opaque, i32, i32, *const c_void, Opaque, Opaque, *const c_void, Opaque, i32, i32, *mut usize);
        multiply = b"cusparseSpMM"
            (Opaque, i32, i32, *const c_void, Opaque, Opaque, *const c_void, Opaque, i32, i32, Address);
    }
}
