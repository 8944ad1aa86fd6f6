#!/usr/bin/env python3
"""Reference values for tests/exact/saliency.rs, by definition and with numpy alone (seed 20240607).

SparseGPT is written from its derivation (explicit inverse of the remaining Hessian at every column), not as the lazy,
blocked Cholesky form that the library uses. Run: python3 scripts/saliency_reference.py > tests/fixtures/saliency.json
"""
import json

import numpy as np

SEED = 20240607


def kept(total, sparsity):
    return total - int(np.floor(total * sparsity + 0.5))


def top(scores, keep):
    """Marks the `keep` largest, the first of equal ones."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    stays = np.zeros(len(scores), bool)
    stays[order[:keep]] = True
    return stays


def sparsegpt(weights, x, block, nm=None, sparsity=None):
    w = weights.astype(np.float64).copy()
    n, k = w.shape
    h = x.astype(np.float64).T @ x.astype(np.float64)
    h += 0.01 * np.mean(np.diag(h)) * np.eye(k)
    remaining = [np.linalg.inv(h[j:, j:]) for j in range(k)]
    mask = np.ones((n, k), bool)
    for j in range(k):
        if nm and j % nm[1] == 0:
            keep, m = nm
            pivots = np.array([remaining[c][0, 0] for c in range(j, j + m)])
            for r in range(n):
                mask[r, j : j + m] = top(list(w[r, j : j + m] ** 2 / pivots), keep)
        if sparsity is not None and j % block == 0:
            end = min(j + block, k)
            pivots = np.array([remaining[c][0, 0] for c in range(j, end)])
            scores = (w[:, j:end] ** 2 / pivots).reshape(-1)
            mask[:, j:end] = top(list(scores), kept(scores.size, sparsity)).reshape(n, end - j)
        inverse = remaining[j]
        for r in range(n):
            if not mask[r, j]:
                w[r, j:] -= w[r, j] / inverse[0, 0] * inverse[0, :]
                w[r, j] = 0.0
    return mask, w


def flat(a):
    return [float(v) for v in np.asarray(a).reshape(-1)]


def bits(mask):
    return ["".join("1" if v else "0" for v in row) for row in mask]


def main():
    rng = np.random.default_rng(SEED)
    n, k, samples = 6, 16, 24
    w = rng.standard_normal((n, k)).astype(np.float32)
    # Correlated inputs, so that off-diagonal products matter.
    mix = rng.standard_normal((k, k)) * 0.4 + np.eye(k)
    x = (rng.standard_normal((samples, k)) @ mix).astype(np.float32)
    g = rng.standard_normal((3, n, k)).astype(np.float32)
    norms = np.linalg.norm(x.astype(np.float64), axis=0)
    wanda = np.abs(w) * norms
    half = np.array([top(list(row), kept(k, 0.5)) for row in wanda])
    nm_mask, nm_w = sparsegpt(w, x, 8, nm=(2, 4))
    un_mask, un_w = sparsegpt(w, x, 8, sparsity=0.6)
    h = x.astype(np.float64).T @ x.astype(np.float64)
    damped = np.linalg.inv(h + 0.01 * np.mean(np.diag(h)) * np.eye(k))
    dense = x.astype(np.float64) @ w.astype(np.float64).T
    error = lambda v: float(np.linalg.norm(x @ (w - v).T) / np.linalg.norm(dense))
    print(json.dumps({
        "script": "scripts/saliency_reference.py", "seed": SEED, "n": n, "k": k, "samples": samples, "block": 8,
        "weights": flat(w), "inputs": flat(x), "gradients": flat(g),
        "wanda": flat(wanda), "wanda_mask_50": bits(half),
        "obd_inputs": flat(0.5 * 2 * np.diag(h) * w.astype(np.float64) ** 2),
        "obd_fisher": flat(0.5 * np.mean(g.astype(np.float64) ** 2, axis=0) * w.astype(np.float64) ** 2),
        "taylor": flat(np.abs(w * np.mean(g.astype(np.float64), axis=0))),
        "obs": flat(w.astype(np.float64) ** 2 / np.diag(damped)),
        "sparsegpt_nm": {"mask": bits(nm_mask), "weights": flat(nm_w), "output_error": error(nm_w)},
        "sparsegpt_60": {"mask": bits(un_mask), "weights": flat(un_w), "output_error": error(un_w)},
    }, indent=None))


if __name__ == "__main__":
    main()
