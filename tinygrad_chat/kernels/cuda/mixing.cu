// What nanochat adds to a GPT: ops.scaled_sum, ops.gated_sum and ops.smear. Scales are read from device memory.

constexpr int WARPS = 8;

template <int W>
__device__ void sum_scaled(const REAL* x, const REAL* y, REAL* out, long long size, float x_scale, float y_scale) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (i >= size) return;
    float values[W], others[W];
    load<W>(x + i, values);
    load<W>(y + i, others);
    for (int w = 0; w < W; ++w) values[w] = x_scale * values[w] + y_scale * others[w];
    store<W>(out + i, values);
}

// out = x_scales[layer] x + sign y_scales[layer] y, where a null x_scales stands for 1.
extern "C" __global__ void scaled_sum(const REAL* x, const REAL* y, const REAL* y_scales, const REAL* x_scales,
                                      REAL* out, long long size, long long layer, float sign, long long wide) {
    const float x_scale = x_scales ? to_float(x_scales[layer]) : 1, y_scale = sign * to_float(y_scales[layer]);
    if (wide)
        sum_scaled<WIDE>(x, y, out, size, x_scale, y_scale);
    else
        sum_scaled<1>(x, y, out, size, x_scale, y_scale);
}

template <int W>
__device__ void sum_scaled_backward(const REAL* x, const REAL* y, const REAL* d_out, REAL* d_x, REAL* d_y,
                                    long long size, float x_scale, float y_scale, float& along_x, float& along_y) {
    const long long stride = static_cast<long long>(gridDim.x) * blockDim.x * W;
    float values[W], d[W];
    for (long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W; i < size; i += stride) {
        load<W>(d_out + i, d);
        load<W>(y + i, values);
        for (int w = 0; w < W; ++w) along_y += d[w] * values[w], values[w] = y_scale * d[w];
        store<W>(d_y + i, values);
        if (!d_x) continue;
        load<W>(x + i, values);
        for (int w = 0; w < W; ++w) along_x += d[w] * values[w], values[w] = x_scale * d[w];
        store<W>(d_x + i, values);
    }
}

// d_out -> d_y and, unless it and x_scales are null, d_x; and each block's sums of d_out x and d_out y in
// partial (blocks, 2), which the next kernel adds up.
extern "C" __global__ void scaled_sum_backward(const REAL* x, const REAL* y, const REAL* y_scales,
                                               const REAL* x_scales, const REAL* d_out, REAL* d_x, REAL* d_y,
                                               float* partial, long long size, long long layer, float sign,
                                               long long wide) {
    __shared__ float warps[WARPS];
    const float x_scale = x_scales ? to_float(x_scales[layer]) : 1, y_scale = sign * to_float(y_scales[layer]);
    float along_x = 0, along_y = 0;
    if (wide)
        sum_scaled_backward<WIDE>(x, y, d_out, d_x, d_y, size, x_scale, y_scale, along_x, along_y);
    else
        sum_scaled_backward<1>(x, y, d_out, d_x, d_y, size, x_scale, y_scale, along_x, along_y);
    along_x = block_sum(along_x, warps);
    along_y = block_sum(along_y, warps);
    if (threadIdx.x == 0) partial[2 * blockIdx.x] = along_x, partial[2 * blockIdx.x + 1] = along_y;
}

// partial (blocks, 2) -> d_x_scales, unless null, and d_y_scales (L): 0 except at `layer`. One block.
extern "C" __global__ void scaled_sum_backward_scales(const float* partial, float* d_y_scales, float* d_x_scales,
                                                      long long blocks, long long L, long long layer, float sign) {
    __shared__ float warps[WARPS];
    float along_x = 0, along_y = 0;
    for (long long n = threadIdx.x; n < blocks; n += blockDim.x) along_x += partial[2 * n], along_y += partial[2 * n + 1];
    along_x = block_sum(along_x, warps);
    along_y = block_sum(along_y, warps);
    for (long long l = threadIdx.x; l < L; l += blockDim.x) {
        d_y_scales[l] = l == layer ? sign * along_y : 0;
        if (d_x_scales) d_x_scales[l] = l == layer ? along_x : 0;
    }
}

template <int W> __device__ void sum_gated(const REAL* x, const REAL* y, REAL* out, int D, float gate) {
    float values[W], others[W];
    for (int d = threadIdx.x % WARP * W; d < D; d += WARP * W) {
        load<W>(x + d, values);
        load<W>(y + d, others);
        for (int w = 0; w < W; ++w) values[w] += gate * others[w];
        store<W>(out + d, values);
    }
}

// x and y (N, D), N counted over rows and their heads, logits (N) -> out = x + reach sigmoid(logit) y; a warp per head.
// x may be a slice, whose rows are `x_row` elements apart.
extern "C" __global__ void gated_sum(const REAL* x, const REAL* y, const REAL* logits, REAL* out, long long N,
                                     long long heads, long long D, long long x_row, float reach, long long wide) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const float gate = reach * sigmoid(to_float(logits[n]));
    x += n / heads * x_row + n % heads * D;
    if (wide)
        sum_gated<WIDE>(x, y + n * D, out + n * D, D, gate);
    else
        sum_gated<1>(x, y + n * D, out + n * D, D, gate);
}

template <int W>
__device__ float sum_gated_backward(const REAL* y, const REAL* d_out, REAL* d_y, int D, float gate) {
    float values[W], others[W], along = 0;
    for (int d = threadIdx.x % WARP * W; d < D; d += WARP * W) {
        load<W>(d_out + d, values);
        load<W>(y + d, others);
        for (int w = 0; w < W; ++w) along += values[w] * others[w], values[w] *= gate;
        store<W>(d_y + d, values);
    }
    return warp_sum(along);
}

// d_out (N, D) -> d_y (N, D) and d_logits (N); d_x is d_out, which may be a slice as x may.
extern "C" __global__ void gated_sum_backward(const REAL* y, const REAL* logits, const REAL* d_out, REAL* d_y,
                                              REAL* d_logits, long long N, long long heads, long long D,
                                              long long d_out_row, float reach, long long wide) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const float openness = sigmoid(to_float(logits[n])), gate = reach * openness;
    y += n * D, d_out += n / heads * d_out_row + n % heads * D, d_y += n * D;
    const float along = wide ? sum_gated_backward<WIDE>(y, d_out, d_y, D, gate)
                             : sum_gated_backward<1>(y, d_out, d_y, D, gate);
    if (threadIdx.x % WARP == 0) round_to(d_logits[n], along * gate * (1 - openness));
}

template <int W> __device__ void smear_row(const REAL* x, const REAL* earlier, REAL* out, int C, float gate) {
    float values[W], others[W];
    for (int c = threadIdx.x % WARP * W; c < C; c += WARP * W) {
        load<W>(x + c, values);
        if (earlier) load<W>(earlier + c, others);
        for (int w = 0; w < W; ++w)
            if (earlier) values[w] += gate * others[w];
        store<W>(out + c, values);
    }
}

// x (N, C), N = B T counted over sequences and positions, weight (K), scale (1), before (B, C) or null -> out (N, C),
// and how open the gate of each row is (N). A warp per row; the row before it comes from the cache.
extern "C" __global__ void smear(const REAL* x, const REAL* weight, const REAL* scale, const REAL* before, REAL* out,
                                 float* openness, long long N, long long T, long long C, long long K, long long wide) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const int lane = threadIdx.x % WARP;
    const REAL* earlier = n % T ? x + (n - 1) * C : before ? before + n / T * C : nullptr;
    x += n * C, out += n * C;
    float logit = 0;
    for (int k = lane; k < K; k += WARP) logit += to_float(x[k]) * to_float(weight[k]);
    const float open = sigmoid(warp_sum(logit)), gate = to_float(scale[0]) * open;
    if (lane == 0) openness[n] = open;
    if (wide)
        smear_row<WIDE>(x, earlier, out, C, gate);
    else
        smear_row<1>(x, earlier, out, C, gate);
}

// One row; `later_gate` is the gate by which it was added to the next. Returns the sum of d_out times the row before.
template <int W>
__device__ float smear_row_backward(const REAL* earlier, const REAL* weight, const REAL* d_out, REAL* d_x, int C, int K,
                                    bool has_later, float later_gate, float slope) {
    const int lane = threadIdx.x % WARP;
    float values[W], others[W], along = 0;
    if (earlier) {
        for (int c = lane * W; c < C; c += WARP * W) {
            load<W>(d_out + c, values);
            load<W>(earlier + c, others);
            for (int w = 0; w < W; ++w) along += values[w] * others[w];
        }
        along = warp_sum(along);
    }
    const float d_logit = slope * along;
    for (int c = lane * W; c < C; c += WARP * W) {
        load<W>(d_out + c, values);
        if (has_later) load<W>(d_out + C + c, others);
        for (int w = 0; w < W; ++w) {
            if (has_later) values[w] += later_gate * others[w];
            if (c + w < K) values[w] += d_logit * to_float(weight[c + w]);
        }
        store<W>(d_x + c, values);
    }
    return along;
}

// d_out (N, C) -> d_x (N, C), and for each row (N, 2) its logit's gradient and what it adds to the scale's.
extern "C" __global__ void smear_backward(const REAL* x, const REAL* weight, const REAL* scale, const REAL* before,
                                          const float* openness, const REAL* d_out, REAL* d_x, float* d_rows,
                                          long long N, long long T, long long C, long long K, long long wide) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const REAL* earlier = n % T ? x + (n - 1) * C : before ? before + n / T * C : nullptr;
    const bool has_later = (n + 1) % T;
    const float factor = to_float(scale[0]), open = openness[n];
    const float slope = factor * open * (1 - open), later_gate = has_later ? factor * openness[n + 1] : 0;
    d_out += n * C, d_x += n * C;
    const float along = wide ? smear_row_backward<WIDE>(earlier, weight, d_out, d_x, C, K, has_later, later_gate, slope)
                             : smear_row_backward<1>(earlier, weight, d_out, d_x, C, K, has_later, later_gate, slope);
    if (threadIdx.x % WARP == 0) d_rows[2 * n] = slope * along, d_rows[2 * n + 1] = open * along;
}

// The sums over rows that are the gradients of weight and scale, for the rows of one chunk each: partial (chunks, K + 1).
// One column per thread; the next kernel adds up the chunks.
extern "C" __global__ void smear_backward_columns(const REAL* x, const float* d_rows, float* partial, long long N,
                                                  long long C, long long K) {
    const long long k = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (k > K) return;
    float sum = 0;
    for (long long n = blockIdx.y; n < N; n += gridDim.y)
        sum += k < K ? d_rows[2 * n] * to_float(x[n * C + k]) : d_rows[2 * n + 1];
    partial[blockIdx.y * (K + 1) + k] = sum;
}
