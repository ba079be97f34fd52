// ops.layernorm and ops.rmsnorm, and with an addition before them ops.add_layernorm and ops.add_rmsnorm: rows (N, C), a
// warp for each, which reads its row several times, after the first time from the cache.

constexpr int WARPS = 8;

template <int W> __device__ void add_row(const REAL* x, const REAL* branch, REAL* total, int C) {
    float values[W], others[W];
    for (int c = threadIdx.x % WARP * W; c < C; c += WARP * W) {
        load<W>(x + c, values);
        load<W>(branch + c, others);
        for (int w = 0; w < W; ++w) values[w] += others[w];
        store<W>(total + c, values);
    }
}

template <int W>
__device__ void normalize_row(const REAL* x, const REAL* gain, const REAL* bias, REAL* out, float* statistics, int C,
                              float epsilon, bool centred) {
    const int lane = threadIdx.x % WARP;
    float values[W], mean = 0, square = 0;
    if (centred) {
        for (int c = lane * W; c < C; c += WARP * W) {
            load<W>(x + c, values);
            for (int w = 0; w < W; ++w) mean += values[w];
        }
        mean = warp_sum(mean) / C;
    }
    for (int c = lane * W; c < C; c += WARP * W) {
        load<W>(x + c, values);
        for (int w = 0; w < W; ++w) square += (values[w] - mean) * (values[w] - mean);
    }
    const float inverse_std = rsqrtf(warp_sum(square) / C + epsilon);
    for (int c = lane * W; c < C; c += WARP * W) {
        float scale[W], shift[W];
        load<W>(x + c, values);
        if (gain) load<W>(gain + c, scale);
        if (bias) load<W>(bias + c, shift);
        for (int w = 0; w < W; ++w) {
            values[w] = (values[w] - mean) * inverse_std;
            if (gain) values[w] *= scale[w];
            if (bias) values[w] += shift[w];
        }
        store<W>(out + c, values);
    }
    if (lane == 0) statistics[0] = mean, statistics[1] = inverse_std;
}

// x (N, C), gain (C) and bias (C) or null -> out (N, C), and each row's mean, or 0, and 1 / standard deviation (N, 2).
// Unless null, branch (N, C) is added first, into total (N, C).
extern "C" __global__ void normalize(const REAL* x, const REAL* branch, const REAL* gain, const REAL* bias, REAL* total,
                                     REAL* out, float* statistics, long long N, long long C, float epsilon,
                                     long long centred, long long wide) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    x += n * C, out += n * C, statistics += 2 * n;
    if (branch) {
        branch += n * C, total += n * C;
        if (wide)
            add_row<WIDE>(x, branch, total, C);
        else
            add_row<1>(x, branch, total, C);
        x = total;  // each lane reads only what it wrote itself
    }
    if (wide)
        normalize_row<WIDE>(x, gain, bias, out, statistics, C, epsilon, centred);
    else
        normalize_row<1>(x, gain, bias, out, statistics, C, epsilon, centred);
}

template <int W>
__device__ void normalize_row_backward(const REAL* x, const REAL* gain, const float* statistics, const REAL* d_total,
                                       const REAL* d_out, REAL* d_x, int C, bool centred) {
    const int lane = threadIdx.x % WARP;
    const float mean = statistics[0], inverse_std = statistics[1];
    float values[W], d_unit[W], scale[W], stream[W], along_mean = 0, along_unit = 0;
    for (int c = lane * W; c < C; c += WARP * W) {
        load<W>(x + c, values);
        load<W>(d_out + c, d_unit);
        if (gain) load<W>(gain + c, scale);
        for (int w = 0; w < W; ++w) {
            if (gain) d_unit[w] *= scale[w];
            along_mean += d_unit[w];
            along_unit += d_unit[w] * (values[w] - mean) * inverse_std;
        }
    }
    along_mean = centred ? warp_sum(along_mean) / C : 0;
    along_unit = warp_sum(along_unit) / C;
    for (int c = lane * W; c < C; c += WARP * W) {
        load<W>(x + c, values);
        load<W>(d_out + c, d_unit);
        if (gain) load<W>(gain + c, scale);
        if (d_total) load<W>(d_total + c, stream);
        for (int w = 0; w < W; ++w) {
            const float unit = (values[w] - mean) * inverse_std;
            if (gain) d_unit[w] *= scale[w];
            values[w] = inverse_std * (d_unit[w] - along_mean - unit * along_unit);
            if (d_total) values[w] += stream[w];
        }
        store<W>(d_x + c, values);
    }
}

// d_out (N, C) -> d_x (N, C), where x is the total, plus d_total (N, C) unless null.
extern "C" __global__ void normalize_backward(const REAL* x, const REAL* gain, const float* statistics,
                                              const REAL* d_total, const REAL* d_out, REAL* d_x, long long N,
                                              long long C, long long centred, long long wide) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    x += n * C, statistics += 2 * n, d_out += n * C, d_x += n * C;
    if (d_total) d_total += n * C;
    if (wide)
        normalize_row_backward<WIDE>(x, gain, statistics, d_total, d_out, d_x, C, centred);
    else
        normalize_row_backward<1>(x, gain, statistics, d_total, d_out, d_x, C, centred);
}

// The sums over rows that are the gradients of gain and bias, for the rows of one chunk each: partial (chunks, 2, C).
// One column per thread; the next kernel adds up the chunks.
extern "C" __global__ void normalize_backward_columns(const REAL* x, const float* statistics, const REAL* d_out,
                                                      float* partial, long long N, long long C) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    float d_gain = 0, d_bias = 0;
    for (long long n = blockIdx.y; n < N; n += gridDim.y) {
        const float d = to_float(d_out[n * C + c]);
        d_gain += d * (to_float(x[n * C + c]) - statistics[2 * n]) * statistics[2 * n + 1];
        d_bias += d;
    }
    partial[2 * blockIdx.y * C + c] = d_gain;
    partial[(2 * blockIdx.y + 1) * C + c] = d_bias;
}
