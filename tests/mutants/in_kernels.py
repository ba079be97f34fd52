"""Faults in the kernels: those in NumPy, the compiled ones, and CUDA's, which tests run on the host."""

from __future__ import annotations

FAULTS = {
    "kernels/numpy/pointwise.py": {
        "gelu: the slope of the cube without its 3": ("slope *= 6 *", "slope *= 2 *"),
    },
    "kernels/numpy/linear.py": {
        "few rows leave a transposed result": ("np.ascontiguousarray(weight.dot(rows.T).T)", "weight.dot(rows.T).T"),
    },
    "kernels/numpy/normalization.py": {
        "layernorm: the mean's part is missing": ("d_x -= along_mean", "pass"),
        "rmsnorm: the gain plays no part along the row": ("products @ (factor / C)", "products @ (factor * 0 + 1 / C)"),
    },
    "kernels/numpy/embedding.py": {
        "sorting: rows stay in their order": ("np.add.reduceat(d_rows[order]", "np.add.reduceat(d_rows"),
        "a token counted from the end is another": (".astype(np.int64) % len(table)", ".astype(np.int64)"),
    },
    "kernels/numpy/cross_entropy.py": {
        "each row has the first one's weight": ("d_part[each] -= shares[part]", "d_part[each] -= shares[0]"),
        "the upstream gradient is taken for 1": ("d_rows if d_out == 1 else d_rows * d_out", "d_rows"),
    },
    "kernels/numpy/attention.py": {
        "a block sees a key before its window": ("S - T + start + 1 - window", "S - T + start - window"),
        "keys of other documents are seen": (
            "if document_starts is not None:\n            _hide",
            "if False:\n            _hide",
        ),
        "a block skips keys of its first document": (".min(initial=S - T", ".max(initial=S - T"),
        "the query's gradient is not scaled": ("d_query *= scale", "pass"),
        "only the first of the heads that share a key counts": (
            "d_x.sum(axis=2, keepdims=True)",
            "d_x[:, :, :1]",
        ),
    },
    "kernels/numpy/adamw.py": {
        "every slice decays as the first": ("max(0, decayed - start)", "decayed"),
    },
    "kernels/numba/pointwise.py": {
        "gelu: the slope is that at 4 beyond 4": ("flat = real(3), real(GELU_FLAT)", "flat = real(3), real(4)"),
        "squared_relu: a factor of 2 is missing": ("(x[i] + x[i])", "x[i]"),
        "swiglu: the gradients are swapped": (
            "d_gate, d_up)\n        return d_gate.",
            "d_up, d_gate)\n        return d_gate.",
        ),
    },
    "kernels/numba/normalization.py": {
        "every channel has the first one's bias": ("y += bias[c]", "y += bias[0]"),
        "rmsnorm: the mean is taken out": ("along_mean / real(C) if centred else real(0)", "along_mean / real(C)"),
    },
    "kernels/numba/cross_entropy.py": {
        "a label is as heavy as the batch": ("row[label] -= real(weight)", "row[label] -= real(1)"),
        "ignored rows have a gradient": ("row[:] = real(0)", "row[:] = real(1)"),
        "the soft cap's slope is missing": ("d_rows *= 1 - bent * bent", "pass"),
    },
    "kernels/numba/softmax.py": {
        "softmax: the maximum stays in": ("exponential(rows[n, c] - largest)", "exponential(rows[n, c])"),
        "softmax: the gradient of the sum is missing": ("(d_out[n, c] - along)", "d_out[n, c]"),
        "log_softmax: the sum counts once for all": ("exponential(out[n, c]) * total", "total"),
        "another axis is taken for the last": ("np.moveaxis(array, axis, -1)", "np.moveaxis(array, -1, -1)"),
    },
    "kernels/numba/threads.py": {
        "the last part is left out": ("range(1, parts)]", "range(1, parts - 1)]"),
        "what does not divide is left out": ("(part + 1) * count // parts", "(part + 1) * (count // parts)"),
    },
    "kernels/numba/embedding.py": {
        "a token seen twice gets one gradient": ("row[c] += rows[n, c]", "row[c] = rows[n, c]"),
    },
    "kernels/numba/rotary.py": {
        "the gradient is turned on": (
            "d_y[i + half] * cosine[t, i] - d_y[i] * sine[t, i]",
            "d_y[i + half] * cosine[t, i] + d_y[i] * sine[t, i]",
        ),
        "the part along the head is a sum, not a mean": ("inverse * inverse / real(D)", "inverse * inverse"),
        "the gain's gradient forgets the size of heads": ("d[i] * x[i] * size", "d[i] * x[i]"),
    },
    "kernels/numba/attention.py": {
        "the gradient of a sum of 1 is missing": ("(d_weights[n, s] - along)", "d_weights[n, s]"),
    },
    "kernels/numba/tiles.py": {
        "a product adds nothing to what is there": (
            "total.add_incoming(vector, reading)",
            "total.add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), reading)",
        ),
        "blocks do not change places": ("LANES + lane - distance + offset", "LANES + lane - distance"),
    },
    "kernels/numba/tiled_attention.py": {
        "the gradient of a sum of 1 is missing": ("(d_score[s] - along) * weight[s]", "d_score[s] * weight[s]"),
        "the scale is missing in the backward rule": ("into[d] = d_row[d] * factor", "into[d] = d_row[d]"),
        "later keys are seen": ("line[hidden - first :] = -np.inf", "line[hidden - first :] += 0"),
        "other documents are seen": ("line[: seen - first] = -np.inf", "line[: seen - first] += 0"),
        "only one head that shares a value counts": (
            "range(g * (H // G), (g + 1) * (H // G))",
            "range(g * (H // G), g * (H // G) + 1)",
        ),
        "a thread computes one head": ("(part + 1) * B * G // parts", "part * B * G // parts + 1"),
    },
    "kernels/numba/small_attention.py": {
        "the window is one too long": ("max(start, position + 1 - reach)", "max(start, position - reach)"),
        "other documents are seen": ("max(start, position + 1", "max(0, position + 1"),
        "all attention is causal": ("position + 1 if causal else S", "position + 1"),
        "the scale is missing in the backward rule": ("weights[t, h, s] * factor", "weights[t, h, s]"),
        "heads that share a value overwrite its gradient": ("d_v[d] += weight", "d_v[d] = weight"),
        "rows of a cache lie side by side": ("x.strides[0] // x.itemsize", "S * W"),
    },
    "kernels/numba/linear.py": {
        "columns that are no whole step are left out": (" or C % STEP or D < LINES", " or D < LINES"),
        "a weight in any order is read": ("contiguous(weight))", "weight.ravel('K').reshape(weight.shape))"),
    },
    "kernels/numba/products.py": {
        "the last thread leaves its end out": (
            "(part + 1) * groups // parts",
            "part * groups // parts + groups // parts",
        ),
        "the last lines are left out": ("(len(weight) + LINES - 1) // LINES", "len(weight) // LINES"),
    },
    "kernels/numba/quantized_product.py": {
        "sums leave 32 bits": ("LARGEST_INT32 // (LARGEST_INT8 * columns)", "LARGEST_INT32 // LARGEST_INT8"),
        "all lines are the first ones": ("weight.numbers[start:stop].view", "weight.numbers[: stop - start].view"),
    },
    "kernels/numba/compilation.py": {
        "which copy of a function is called depends on the process": ('"forceinline": inlined', '"forceinline": False'),
        "machine code outlives a change in a file it imports from": (
            "frozenset({file}).union(*further)",
            "frozenset({file})",
        ),
    },
    "kernels/numba/vectors.py": {
        "only even columns count": (
            "builder.shuffle_vector(first, second, odd)",
            "builder.shuffle_vector(first, second, even)",
        ),
        "all rows have the size of the first": ("_SIZES_OF_ROWS, row, rows)[r]", "_SIZES_OF_ROWS, row, rows)[0]"),
        "the second half of a step is the first again": ("builder.add(column, _INT64(start))", "column"),
    },
    "kernels/numpy/quantized_product.py": {
        "each slice leaves its last line out": ("min(start + step, D))", "start + step - 1)"),
    },
    "kernels/numba/exponential.py": {
        "a term of the series has another's factor": ("_C4) * r + _C3", "_C4) * r + _C4"),
        "the smallest numbers are 0": ("-126 * math.log(2)", "-120 * math.log(2)"),
    },
    "kernels/numba/adamw.py": {
        "each part decays as if it were the first": ("min(max(first, decayed), end)", "min(first + decayed, end)"),
        "the squares' correction is missing": ("np.sqrt(square[i]) * scale", "np.sqrt(square[i])"),
    },
    "kernels/cuda/pointwise.cu": {
        "gelu: the slope is that at 4 beyond 4": ("max(-10.0f, min(x, 10.0f))", "max(-4.0f, min(x, 4.0f))"),
        "swiglu: the gate's slope is the sigmoid's alone": ("* s * (1 + gates[w] * (1 - s));", "* s;"),
        "swiglu: the gate's gradient is written where a whole array's rows would lie": (
            "d_gate + n * d_gate_row",
            "d_gate + n * C",
        ),
    },
    "kernels/cuda/pointwise.py": {
        "swiglu: vectors are read where rows do not begin with one": ("math.gcd(C, *apart)", "C"),
    },
    "kernels/cuda/plans.py": {
        "what is added to counts once more for each timing": ("        out[...] = before\n", "        pass\n"),
        "a choice is made while a graph is captured": (
            " or backend.xp.cuda.get_current_stream().is_capturing()",
            "",
        ),
        "all addresses count as aligned": ("key = product, addresses & -addresses", "key = product, ALIGNMENT"),
        "earlier choices are not looked at": ("kept = choices.algorithms.get(name)", "kept = None"),
    },
    "kernels/cuda/cublas_lt.py": {
        "parts of a sum are added in the result's type": (
            "REDUCTION_SCHEME_COMPUTE_TYPE = 2",
            "REDUCTION_SCHEME_COMPUTE_TYPE = 7",
        ),
        "a transposed matrix is described as it is read": (
            "stored = (columns, rows) if operand.transposed else (rows, columns)",
            "stored = (rows, columns)",
        ),
    },
    "kernels/cuda/flash_attention.py": {
        "the rows of all inputs are as far apart as the query's": (
            "for x in arrays for stride in x.strides[:2]]",
            "for x in [arrays[0]] * len(arrays) for stride in x.strides[:2]]",
        ),
        "rows that begin anywhere are copied by 16 bytes": (
            "return x if whole and aligned else contiguous(x, x.dtype)",
            "return x",
        ),
    },
    "kernels/cuda/slices.py": {
        "arrays that were allocated one behind the other are one": (" or _owner(x) is not _owner(first)", ""),
        "a gap between slices is taken for a part of them": ("x.data.ptr != end", "x.data.ptr < end"),
        "slices of fewer rows are as good": ("and x.shape == tuple(shape) ", ""),
        "gradients never lie together": ("if any(x.shape[:-1] != first", "if True or any(x.shape[:-1] != first"),
    },
    "kernels/cuda/linear.py": {
        "the gradients that other layers have for the input are lost": ("add=part.start > 0)", "add=False)"),
        "a layer takes the gradient of another": ("used[part]", "range(len(layers))[part]"),
    },
    "kernels/cuda/pending.py": {
        "what is to be added is written with the rest": ("len(set(adds)) > 1 or ", ""),
        "each weight has the gradient of the first": (
            "self._left[rows], self._right, buffer",
            "self._left[: len(buffer)], self._right, buffer",
        ),
    },
    "kernels/cuda/cubins.py": {
        "a cubin of another compiler is as good": ("repr((code, given, nvrtc.getVersion()))", "repr((code, given))"),
        "a cubin is not compiled as CuPy compiles others": ("(*options, *ADDED_BY_CUPY, f", "(*options, f"),
        "a program is never destroyed": ("nvrtc.destroyProgram(program)", "pass"),
    },
    "kernels/cuda/flash_attention.cuh": {
        "a window begins a tile late": (
            "max(position(min(query, T - 1)) + 1 - window, 0);",
            "max(position(min(query, T - 1)) + 64 - window, 0);",
        ),
    },
    "kernels/cuda/flash_backward.cuh": {
        "the last tile of queries is left out": (
            "first + QUERIES_OF_TILE < end_of_queries",
            "first + 2 * QUERIES_OF_TILE <= end_of_queries",
        ),
    },
    "kernels/cuda/mixing.cu": {
        "gated_sum: a slice is read as if it were the whole": (
            "x += n / heads * x_row + n % heads * D;",
            "x += n * D;",
        ),
    },
    "kernels/cuda/mixing.py": {
        "gated_sum: vectors are read where rows do not begin with one": (" and apart % each == 0", ""),
        "gated_sum: vectors of a gradient, too": (" and d_apart % each == 0", ""),
    },
    "kernels/cuda/sums.py": {
        "rows of partial sums are taken to lie one behind the other": (
            "partial.strides[0] // partial.itemsize",
            "out.size",
        ),
    },
    "kernels/cuda/shape.py": {
        "gradients of places chosen twice are summed in their own type": ("d_out.astype(np.float32)", "d_out"),
        "a part's gradient is added to a sum that others have": ("total if own else total.copy()", "total"),
    },
    "kernels/cuda/normalization.py": {
        "the gradients of those that read a norm's input beside it are lost": (
            "backward(d_total, d_out)[0]",
            "backward(None, d_out)[0]",
        ),
    },
    "kernels/cuda/matmul.py": {
        "more than two leading axes are left as they are": ("(-1,) if len(batch) > 2 else batch", "batch"),
        "the gradient of a broadcast factor is not summed": ("sum_to(d_y, y)", "d_y"),
    },
    "kernels/cuda/attention.py": {
        "with a length, CuPy is asked to multiply batches of bfloat16": (
            "functools.partial(_in_float32, length=length)",
            "functools.partial(ops.attention.reference, length=length)",
        ),
    },
    "kernels/cuda/rotary.py": {
        "a gradient is overwritten whoever has it": ("d_out if may_overwrite(d_out) else d_out.copy()", "d_out"),
        "every gradient is copied": ("d_out if may_overwrite(d_out) else d_out.copy()", "d_out.copy()"),
        "vectors are read where a gradient's rows do not begin with one": ("math.gcd(apart, d_apart)", "apart"),
    },
    "kernels/cuda/rotary.cu": {
        "a slice is read as if it were the whole": ("return n / heads * row + n % heads * D", "return n * D"),
        "the gain is left out of the gradient": ("d_first[w] *= first[w], d_second", "d_second"),
    },
    "kernels/cuda/normalization.cu": {
        "what comes through the stream is lost": ("values[w] += stream[w];", ";"),
        "the bias's gradient has the gain's place": (
            "partial[(2 * blockIdx.y + 1) * C + c] = d_bias",
            "partial[(2 * blockIdx.y + 1) * C + c] = d_gain",
        ),
    },
    "kernels/cuda/flash_decoding.cu": {
        "chunks are added as they are": ("sum += expf(largest[chunk] - most) * sums", "sum += sums"),
        "rows between those of a group are lost": ("s < end; s += groups)", "s < end; s += CHUNK)"),
        "the window is one too short": (
            "max(end - static_cast<int>(window), 0)",
            "max(end + 1 - static_cast<int>(window), 0)",
        ),
        "of neighbouring heads each has keys of its own": (
            "+ (begin + s) * key_row + head / shared * D",
            "+ (begin + s) * key_row + head * D",
        ),
    },
    "kernels/cuda/cache.cu": {
        "values are written where keys are": ("values + first * values_row", "keys + first * values_row"),
        "all tokens are written to one column": ("to + batch * to_batch + t * to_row + c", "to + batch * to_batch + c"),
    },
    "kernels/cuda/cache.py": {
        "vectors are read where rows do not begin with one": ("math.gcd(C, *apart)", "C"),
    },
    "kernels/cuda/muon.py": {
        "what is there is added as it is": ("tf32=False, add=a", "tf32=False, add=True"),
        "matrices begin with whole vectors": ("each > 1 and all(span.start % each == 0 for span in spans)", "each > 1"),
    },
    "kernels/cuda/muon.cu": {
        "matrices lie one after the other": ("gradient += starts[n / R] + n % R * K", "gradient += starts[0] + n * K"),
        "the momentum does not look ahead": ("g[w] += momentum * (m[w] - g[w])", "g[w] += m[w] - g[w]"),
        "rows have no norm below a thousandth": ("max(sqrtf(squares[r]), 1e-6f)", "max(sqrtf(squares[r]), 1e-3f)"),
        "of the columns' sums only the first chunk counts": ("chunk < chunks", "chunk < 1"),
        "a weight with a step of 0 does not decay": ("step[w] * weight[w] >= 0", "step[w] * weight[w] > 0"),
    },
    "kernels/cuda/adamw.cu": {
        "all weights decay": ("(i + w < decayed ? by.shrink : 1.0f)", "by.shrink"),
    },
    "kernels/cuda/clipping.cu": {
        "the gradient's norm counts each block's first sum": (
            "i < count; i += blockDim.x) sum += partial[i]",
            "i < 1; i += blockDim.x) sum += partial[i]",
        ),
    },
}
