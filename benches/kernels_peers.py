#!/usr/bin/env python3
"""hwsim's kernels beside MKL, PyTorch, scipy, sprs, faer and the crate gemm: one process, one thread, interleaved rounds.

    cargo build --release --manifest-path benches/peers/Cargo.toml
    pip install mkl numpy scipy torch      (torch may be left out: its rows are then missing)
    python3 benches/kernels_peers.py [--sizes 1024,4096] [--columns 1,32,128,512] [--sparsities 0.5,0.9] -o kernels_peers.csv

Each round runs every kernel in turn for about 3 ms; a row's time is the minimum over 11 rounds of a round's mean, in
thread CPU time (three rounds for kernels above 50 ms). Packing, and MKL's mkl_sparse_optimize, are never inside. MKL gets int32 indices and row-major operands.
"""
import argparse
import ctypes
import datetime
import glob
import os
import platform
import subprocess
import sys
import time

os.environ.update(MKL_NUM_THREADS="1", OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", MKL_THREADING_LAYER="SEQUENTIAL",
                  MKL_INTERFACE_LAYER="LP64")
import numpy as np
import scipy
import scipy.sparse

try:
    import torch
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
except ImportError:
    torch = None

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS, ROUND = 11, 0.003
SLOW = 0.05  # seconds: kernels above it run three rounds
F = ctypes.POINTER(ctypes.c_float)
I = ctypes.POINTER(ctypes.c_int)


def aligned(shape):
    """fp32 that begin at a cache line."""
    count = int(np.prod(shape))
    raw = np.zeros(count + 16, np.float32)
    skip = (-raw.ctypes.data) % 64 // 4
    return raw[skip : skip + count].reshape(shape)


def pointer(a, kind=F):
    return a.ctypes.data_as(kind)


class Descr(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("mode", ctypes.c_int), ("diag", ctypes.c_int)]


class Mkl:
    GENERAL, ROW_MAJOR, NO_TRANSPOSE = 20, 101, 10

    def __init__(self, lib, weights, block, columns):
        self.lib, self.handle = lib, ctypes.c_void_p()
        self.block = block
        matrix = scipy.sparse.csr_matrix(weights) if block is None else scipy.sparse.bsr_matrix(weights, blocksize=block)
        self.index = matrix.indices.astype(np.int32)
        self.starts = matrix.indptr.astype(np.int32)
        self.data = np.ascontiguousarray(matrix.data, np.float32)
        n, k = weights.shape
        self.n = n
        begin, end = pointer(self.starts, I), pointer(self.starts[1:], I)
        if block is None:
            status = lib.mkl_sparse_s_create_csr(ctypes.byref(self.handle), 0, n, k, begin, end,
                                                 pointer(self.index, I), pointer(self.data))
        else:
            status = lib.mkl_sparse_s_create_bsr(ctypes.byref(self.handle), 0, self.ROW_MAJOR, n // block[0],
                                                 k // block[1], block[0], begin, end, pointer(self.index, I),
                                                 pointer(self.data))
        assert status == 0, status
        self.descr = Descr(self.GENERAL, 0, 0)
        if columns == 1:
            lib.mkl_sparse_set_mv_hint(self.handle, self.NO_TRANSPOSE, self.descr, 1000)
        else:
            lib.mkl_sparse_set_mm_hint(self.handle, self.NO_TRANSPOSE, self.descr, self.ROW_MAJOR, columns, 1000)
        lib.mkl_sparse_optimize(self.handle)

    def __call__(self, x, y, times):
        one, none = ctypes.c_float(1), ctypes.c_float(0)
        m = x.shape[1]
        for _ in range(times):
            if m == 1:
                status = self.lib.mkl_sparse_s_mv(self.NO_TRANSPOSE, one, self.handle, self.descr, pointer(x), none, pointer(y))
            else:
                status = self.lib.mkl_sparse_s_mm(self.NO_TRANSPOSE, one, self.handle, self.descr, self.ROW_MAJOR,
                                                  pointer(x), m, m, none, pointer(y), m)
        assert status == 0, status

    def close(self):
        self.lib.mkl_sparse_destroy(self.handle)


class MklDense:
    def __init__(self, lib, weights):
        self.lib, self.weights = lib, weights

    def __call__(self, x, y, times):
        (n, k), m = self.weights.shape, x.shape[1]
        one, none = ctypes.c_float(1), ctypes.c_float(0)
        for _ in range(times):
            if m == 1:
                self.lib.cblas_sgemv(101, 111, n, k, one, pointer(self.weights), k, pointer(x), 1, none, pointer(y), 1)
            else:
                self.lib.cblas_sgemm(101, 111, 111, n, m, k, one, pointer(self.weights), k, pointer(x), m, none, pointer(y), m)

    def close(self):
        pass


class Scipy:
    def __init__(self, weights):
        self.matrix = scipy.sparse.csr_matrix(weights)

    def __call__(self, x, y, times):
        for _ in range(times):
            y[:] = self.matrix @ x

    def close(self):
        pass


class Torch:
    """dense: `torch.mm`; None: a CSR tensor; (r, c): a BSR tensor of such blocks."""

    def __init__(self, weights, how):
        self.weights = torch.from_numpy(weights)
        if how is None:
            self.weights = self.weights.to_sparse_csr()
        elif how != "dense":
            self.weights = self.weights.to_sparse_bsr(how)

    def __call__(self, x, y, times):
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        if isinstance(self.weights, torch.Tensor) and self.weights.layout == torch.strided:
            for _ in range(times):
                torch.mm(self.weights, x, out=y)
        else:
            for _ in range(times):
                product = self.weights @ x
            y.copy_(product)

    def close(self):
        pass


class Rust:
    def __init__(self, lib, name, pattern, weights, columns):
        self.lib = lib
        self.peer = lib.peer_new(name.encode(), pattern.encode(), *weights.shape, pointer(weights), columns)
        if not self.peer:
            raise ValueError(f"{name} refuses {pattern}")

    def __call__(self, x, y, times):
        self.lib.peer_run(self.peer, pointer(x), x.shape[1], pointer(y), times)

    def close(self):
        self.lib.peer_free(self.peer)


def load():
    rust = os.environ.get("HWSIM_PEERS") or os.path.join(HERE, "peers/target/release/libhwsim_peers.so")
    rust = ctypes.CDLL(rust)
    size = ctypes.c_size_t
    rust.peer_weights.argtypes = [ctypes.c_char_p, size, size, ctypes.c_uint64, F]
    rust.peer_new.argtypes = [ctypes.c_char_p, ctypes.c_char_p, size, size, F, size]
    rust.peer_new.restype = ctypes.c_void_p
    rust.peer_run.argtypes = [ctypes.c_void_p, F, size, F, size]
    rust.peer_free.argtypes = [ctypes.c_void_p]
    found = glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.so*"))
    if not found:
        print("MKL is not installed in this environment: left out", file=sys.stderr)
    return rust, ctypes.CDLL(found[0], mode=ctypes.RTLD_GLOBAL) if found else None


def cases(sparsities):
    yield "dense", [("hwsim:dense", None), ("hwsim:int8", None), ("hwsim:bf16", None), ("gemm", None), ("mkl", "dense"),
                   ("torch", "dense")]
    for s in sparsities:
        yield f"unstructured@{s}", [("hwsim:csr", None), ("mkl", None), ("torch", None), ("scipy", None), ("sprs", None), ("faer", None)]
        yield f"block:8x1@{s}", [("hwsim:bsr", None)]
        for b in (4, 16):
            yield f"block:{b}x{b}@{s}", [("hwsim:bsr", None), ("mkl", (b, b)), ("torch", (b, b))]
    yield "2:4", [("hwsim:nm", None), ("hwsim:csr", None)]
    yield "1:4", [("hwsim:nm", None)]


def measure(rust, mkl, n, k, m, sparsities):
    x, jobs, expected = aligned((k, m)), [], {}
    x[:] = np.random.default_rng(1).uniform(-1, 1, (k, m))
    for pattern, kernels in cases(sparsities):
        weights = aligned((n, k))
        assert rust.peer_weights(pattern.encode(), n, k, 1, pointer(weights)) == 0
        product = weights @ x
        for name, how in kernels:
            if name == "mkl":
                if mkl is None:
                    continue
                run = MklDense(mkl, weights) if how == "dense" else Mkl(mkl, weights, how, m)
                name = "mkl" if how == "dense" else "mkl csr" if how is None else "mkl bsr"
            elif name == "torch":
                if torch is None:
                    continue
                run = Torch(weights, how)
                name = "torch" if how == "dense" else "torch csr" if how is None else "torch bsr"
            elif name == "scipy":
                run = Scipy(weights)
            else:
                try:
                    run = Rust(rust, name, pattern, weights, m)
                except ValueError:
                    continue
            y = aligned((n, m))
            start = time.thread_time()
            run(x, y, 1)
            once = time.thread_time() - start
            tolerance = 0.03 if name in ("hwsim:int8", "hwsim:bf16") else 1e-3
            error = np.abs(y - product).max() / np.abs(product).max()
            assert error < tolerance, f"{name} {pattern} {n}x{k}x{m}: error {error}"
            jobs.append([pattern, name, run, max(1, round(ROUND / max(once, 1e-6))), float("inf")])
    y = aligned((n, m))
    for round_ in range(ROUNDS + 1):
        for job in jobs:
            if round_ > 3 and job[4] > SLOW:
                continue
            start = time.thread_time()
            job[2](x, y, job[3])
            took = (time.thread_time() - start) / job[3]
            if round_ == 0:
                job[3] = max(1, round(ROUND / took))
            else:
                job[4] = min(job[4], took)
    dense = min(j[4] for j in jobs if j[0] == "dense" and j[1] in ("hwsim:dense", "gemm", "mkl", "torch"))
    rows = [(n, k, m, p, name, f"{best * 1e6:.2f}", f"{dense / best:.3f}") for p, name, _, _, best in jobs]
    for job in jobs:
        job[2].close()
    return rows


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--sizes", default="1024,4096")
    args.add_argument("--columns", default="1,32,128,512")
    args.add_argument("--sparsities", default="0.5,0.7,0.8,0.9,0.95,0.99")
    args.add_argument("-o", "--output", required=True)
    args = args.parse_args()
    rust, mkl = load()
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    lines = [f"# {' '.join(sys.argv)}; commit {commit}; {model}; {datetime.date.today()}; numpy {np.__version__}, scipy {scipy.__version__}"
             + (f", torch {torch.__version__}" if torch else ""),
             "# one thread; us: minimum over 11 interleaved rounds of about 3 ms; speedup: over the fastest fp32 dense of the same size",
             "n,k,m,pattern,kernel,us,speedup"]
    for size in map(int, args.sizes.split(",")):
        for m in map(int, args.columns.split(",")):
            rows = measure(rust, mkl, size, size, m, args.sparsities.split(","))
            lines += [",".join(map(str, r)) for r in rows]
            print(f"{size} x {size} x {m}: {len(rows)} kernels", file=sys.stderr)
            with open(args.output, "w") as out:
                out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
