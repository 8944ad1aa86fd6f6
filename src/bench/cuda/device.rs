//! The first NVIDIA GPU: memory, events, graphs and clocks.

use super::kernels;
use super::loaded::{Address, Driver, Nvml, Opaque};
use super::measure::{Gpu, Identity, Prepared};
use super::problem::Problem;
use crate::error::{Error, Result};
use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;
use std::rc::Rc;

/// `CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE`.
const L2_CACHE_SIZE: i32 = 38;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`.
const CAPTURE_THREAD_LOCAL: i32 = 1;
/// `NVML_CLOCK_SM`.
const CLOCK_SM: i32 = 1;

/// Turns a status into the name of the call that failed.
pub fn check(status: i32, call: &str) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{call} failed with status {status}")) }
}

/// A context with its stream.
pub struct Context {
    /// The driver.
    pub driver: Driver,
    /// The stream of all work.
    pub stream: Opaque,
    device: i32,
}

impl Context {
    fn open() -> Result<Self> {
        let driver = Driver::load()?;
        let refuse =
            |reason: String| Error::argument("--device cuda", format!("the driver found no usable GPU: {reason}"));
        let mut context = Self { driver, stream: null_mut(), device: 0 };
        let Self { driver: d, stream, device } = &mut context;
        let mut handle = null_mut();
        // SAFETY: out-pointers live through the calls; the context stays retained until `drop`.
        unsafe {
            check((d.init)(0), "cuInit").map_err(refuse)?;
            check((d.device)(device, 0), "cuDeviceGet").map_err(refuse)?;
            check((d.retain)(&mut handle, *device), "cuDevicePrimaryCtxRetain").map_err(refuse)?;
            check((d.set_current)(handle), "cuCtxSetCurrent").map_err(refuse)?;
            check((d.stream)(stream, NON_BLOCKING), "cuStreamCreate").map_err(refuse)?;
        }
        Ok(context)
    }

    /// Waits for all work on the stream.
    pub fn wait(&self) -> Result<(), String> {
        // SAFETY: the stream lives as long as the context.
        check(unsafe { (self.driver.stream_wait)(self.stream) }, "cuStreamSynchronize")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing uses stream or context after their owner.
        unsafe {
            if !self.stream.is_null() {
                (self.driver.stream_destroy)(self.stream);
                (self.driver.release)(self.device);
            }
        }
    }
}

/// Memory on the device.
pub struct Buffer {
    /// Where it begins.
    pub address: Address,
    context: Rc<Context>,
}

impl Buffer {
    /// So many bytes (at least one).
    pub fn new(context: &Rc<Context>, bytes: usize) -> Result<Self, String> {
        let mut address = 0;
        // SAFETY: the out-pointer lives through the call.
        check(unsafe { (context.driver.allocate)(&mut address, bytes.max(1)) }, "cuMemAlloc")?;
        Ok(Self { address, context: Rc::clone(context) })
    }

    /// With contents.
    pub fn of(context: &Rc<Context>, contents: &[u8]) -> Result<Self, String> {
        let buffer = Self::new(context, contents.len())?;
        let from = contents.as_ptr().cast::<c_void>();
        // SAFETY: the buffer has just been made of as many bytes.
        check(unsafe { (context.driver.upload)(buffer.address, from, contents.len()) }, "cuMemcpyHtoD")?;
        Ok(buffer)
    }

    /// Copies of these bytes.
    pub fn copies(&self, bytes: usize, count: u64) -> Result<Vec<Self>, String> {
        (0..count)
            .map(|_| {
                let copy = Self::new(&self.context, bytes)?;
                // SAFETY: both buffers are at least as long.
                let status = unsafe { (self.context.driver.copy)(copy.address, self.address, bytes) };
                check(status, "cuMemcpyDtoD").map(|()| copy)
            })
            .collect()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the address came from the same driver and is freed once.
        unsafe { (self.context.driver.free)(self.address) };
    }
}

/// One call of a library, put on the stream.
pub trait Call {
    /// The kernel's name.
    fn name(&self) -> String;
    /// Enqueues the product with the weights of this turn.
    fn enqueue(&mut self, turn: usize) -> Result<(), String>;
}

/// The GPU.
pub struct Nvidia {
    context: Rc<Context>,
    nvml: Option<(Nvml, Opaque)>,
    libraries: kernels::Libraries,
}

impl Nvidia {
    /// The first device.
    pub fn open() -> Result<Self> {
        let context = Rc::new(Context::open()?);
        let nvml = nvml(&context);
        Ok(Self { context, nvml, libraries: kernels::Libraries::default() })
    }
}

/// Clocks, where the management library tells them; a measurement goes on without.
fn nvml(context: &Context) -> Option<(Nvml, Opaque)> {
    let library = Nvml::load().ok()?;
    let mut bus: [c_char; 32] = [0; 32];
    let mut handle = null_mut();
    // SAFETY: the buffer is longer than a bus address; the handle lives through the call.
    unsafe {
        check((context.driver.device_bus)(bus.as_mut_ptr(), 32, context.device), "cuDeviceGetPCIBusId").ok()?;
        check((library.init)(), "nvmlInit").ok()?;
        check((library.by_bus)(bus.as_ptr(), &mut handle), "nvmlDeviceGetHandleByPciBusId").ok()?;
    }
    Some((library, handle))
}

fn text(buffer: &[c_char]) -> String {
    // SAFETY: the buffers are filled with zeros before the driver writes a shorter string into them.
    unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned()
}

impl Gpu for Nvidia {
    fn identity(&self) -> Identity {
        let d = &self.context.driver;
        let (mut name, mut version): ([c_char; 128], [c_char; 96]) = ([0; 128], [0; 96]);
        let (mut cache, mut free, mut total, mut api) = (0, 0, 0, 0);
        // SAFETY: buffers are one byte longer than what is announced; failures leave zeros.
        unsafe {
            (d.device_name)(name.as_mut_ptr(), 127, self.context.device);
            (d.device_attribute)(&mut cache, L2_CACHE_SIZE, self.context.device);
            (d.free_memory)(&mut free, &mut total);
            (d.driver_version)(&mut api);
            if let Some((nvml, _)) = &self.nvml {
                (nvml.driver)(version.as_mut_ptr(), 95);
            }
        }
        let driver = match text(&version) {
            v if v.is_empty() => format!("CUDA {}.{}", api / 1000, api % 1000 / 10),
            v => v,
        };
        Identity { name: text(&name), driver, last_cache: u64::try_from(cache).unwrap_or(0), free: free as u64 }
    }

    fn clock(&self) -> Option<u32> {
        let (nvml, device) = self.nvml.as_ref()?;
        let mut mhz = 0;
        // SAFETY: the handle came from the same library.
        check(unsafe { (nvml.clock)(*device, CLOCK_SM, &mut mhz) }, "nvmlDeviceGetClockInfo").ok().map(|()| mhz)
    }

    fn prepare(&mut self, problem: &Problem, copies: u64) -> Result<Box<dyn Prepared + '_>, String> {
        let call = self.libraries.prepare(&self.context, problem, copies)?;
        let mut events = [null_mut(); 2];
        for event in &mut events {
            // SAFETY: the out-pointer lives through the call.
            check(unsafe { (self.context.driver.event)(event, 0) }, "cuEventCreate")?;
        }
        Ok(Box::new(Replay { context: Rc::clone(&self.context), call, copies: copies as usize, events, graph: None }))
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        if let Some((nvml, _)) = &self.nvml {
            // SAFETY: the library was initialised when it was stored.
            unsafe { (nvml.shutdown)() };
        }
    }
}

/// A recorded graph of calls.
struct Graph {
    calls: u32,
    exec: Opaque,
}

/// A product that is replayed as a graph.
struct Replay {
    context: Rc<Context>,
    call: Box<dyn Call>,
    copies: usize,
    events: [Opaque; 2],
    graph: Option<Graph>,
}

impl Replay {
    fn record(&mut self, calls: u32) -> Result<Opaque, String> {
        if let Some(graph) = &self.graph
            && graph.calls == calls
        {
            return Ok(graph.exec);
        }
        self.forget();
        // Libraries load their code on the first call, which a capture does not allow.
        self.call.enqueue(0)?;
        self.context.wait()?;
        let (d, stream) = (&self.context.driver, self.context.stream);
        let (mut graph, mut exec) = (null_mut(), null_mut());
        // SAFETY: capture begins and ends here on the context's own stream; the graph is destroyed once instantiated.
        unsafe {
            check((d.begin_capture)(stream, CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture")?;
            let enqueued = (0..calls as usize).try_for_each(|turn| self.call.enqueue(turn % self.copies));
            check((d.end_capture)(stream, &mut graph), "cuStreamEndCapture")?;
            let made = enqueued.and_then(|()| check((d.instantiate)(&mut exec, graph, 0), "cuGraphInstantiate"));
            (d.graph_destroy)(graph);
            made?;
        }
        self.graph = Some(Graph { calls, exec });
        Ok(exec)
    }

    fn forget(&mut self) {
        if let Some(graph) = self.graph.take() {
            // SAFETY: the graph is destroyed once, after its last replay has been waited for.
            unsafe { (self.context.driver.exec_destroy)(graph.exec) };
        }
    }
}

impl Prepared for Replay {
    fn kernel(&self) -> String {
        self.call.name()
    }

    fn replay(&mut self, calls: u32) -> Result<f64, String> {
        let exec = self.record(calls)?;
        let (d, stream) = (&self.context.driver, self.context.stream);
        let mut milliseconds = 0.0;
        // SAFETY: events, graph and stream are this product's own and alive.
        unsafe {
            check((d.record)(self.events[0], stream), "cuEventRecord")?;
            check((d.graph_launch)(exec, stream), "cuGraphLaunch")?;
            check((d.record)(self.events[1], stream), "cuEventRecord")?;
            check((d.event_wait)(self.events[1]), "cuEventSynchronize")?;
            check((d.elapsed)(&mut milliseconds, self.events[0], self.events[1]), "cuEventElapsedTime")?;
        }
        Ok(f64::from(milliseconds) * 1e-3)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.forget();
        for event in self.events {
            // SAFETY: each event is destroyed once.
            unsafe { (self.context.driver.event_destroy)(event) };
        }
    }
}

/// A pointer to a host value that a library reads during the call.
pub fn host<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}
