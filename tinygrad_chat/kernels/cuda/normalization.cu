// ops.layernorm and ops.rmsnorm, and with an addition before them ops.add_layernorm and ops.add_rmsnorm: rows (N, C), a
// warp for each. A row of whole vectors that is not too long stays in registers (HELD); any other is read several
// times, after the first time from the cache.

constexpr int WARPS = 8;
constexpr int MAX_HELD = 1024;  // columns
template <int W> constexpr int PIECES = MAX_HELD / (WARP * W);  // of W columns that a lane has

__device__ inline float as_stored(float x) {
    REAL stored;
    round_to(stored, x);
    return to_float(stored);
}

template <int W, bool HELD>
__device__ void normalize_row(const REAL* x, const REAL* branch, const REAL* gain, const REAL* bias, REAL* total,
                              REAL* out, float* statistics, int C, float epsilon, bool centred) {
    const int lane = threadIdx.x % WARP;
    float row[HELD ? PIECES<W> : 1][W], values[W], mean = 0, square = 0;
#pragma unroll
    for (int piece = 0; !HELD || piece < PIECES<W>; ++piece) {
        const int c = (piece * WARP + lane) * W;
        if (c >= C) break;
        load<W>(x + c, values);
        if (branch) {
            float others[W];
            load<W>(branch + c, others);
            for (int w = 0; w < W; ++w) values[w] = as_stored(values[w] + others[w]);
            store<W>(total + c, values);
        }
        for (int w = 0; w < W; ++w) {
            mean += values[w];
            if (HELD) row[piece][w] = values[w];
        }
    }
    mean = centred ? warp_sum(mean) / C : 0;
    const REAL* again = branch ? total : x;  // each lane reads only what it wrote itself
#pragma unroll
    for (int piece = 0; !HELD || piece < PIECES<W>; ++piece) {
        const int c = (piece * WARP + lane) * W;
        if (c >= C) break;
        if (!HELD) load<W>(again + c, row[0]);
        for (int w = 0; w < W; ++w) {
            const float distance = row[HELD ? piece : 0][w] - mean;
            square += distance * distance;
        }
    }
    const float inverse_std = rsqrtf(warp_sum(square) / C + epsilon);
#pragma unroll
    for (int piece = 0; !HELD || piece < PIECES<W>; ++piece) {
        const int c = (piece * WARP + lane) * W;
        if (c >= C) break;
        float scale[W], shift[W];
        if (!HELD) load<W>(again + c, row[0]);
        if (gain) load<W>(gain + c, scale);
        if (bias) load<W>(bias + c, shift);
        for (int w = 0; w < W; ++w) {
            values[w] = (row[HELD ? piece : 0][w] - mean) * inverse_std;
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
    if (branch) branch += n * C, total += n * C;
    if (wide && C <= MAX_HELD)
        normalize_row<WIDE, true>(x, branch, gain, bias, total, out, statistics, C, epsilon, centred);
    else if (wide)
        normalize_row<WIDE, false>(x, branch, gain, bias, total, out, statistics, C, epsilon, centred);
    else
        normalize_row<1, false>(x, branch, gain, bias, total, out, statistics, C, epsilon, centred);
}

// A lane's share of the gradients of gain and bias, of the rows that its warp has seen.
template <int W> struct ColumnSums {
    float gain[PIECES<W>][W] = {}, bias[PIECES<W>][W] = {};
};

template <int W, bool HELD>
__device__ void normalize_row_backward(const REAL* x, const REAL* gain, const float* statistics, const REAL* d_total,
                                       const REAL* d_out, REAL* d_x, int C, bool centred, ColumnSums<W>* sums) {
    const int lane = threadIdx.x % WARP;
    const float mean = statistics[0], inverse_std = statistics[1];
    Vector<W, REAL> row[HELD ? PIECES<W> : 1], d_row[HELD ? PIECES<W> : 1];
    float values[W], d_unit[W], scale[W], stream[W], along_mean = 0, along_unit = 0;
#pragma unroll
    for (int piece = 0; !HELD || piece < PIECES<W>; ++piece) {
        const int c = (piece * WARP + lane) * W, kept = HELD ? piece : 0;
        if (c >= C) break;
        row[kept] = load_vector<W>(x + c), d_row[kept] = load_vector<W>(d_out + c);
        unpack(row[kept], values), unpack(d_row[kept], d_unit);
        if (gain) load<W>(gain + c, scale);
        for (int w = 0; w < W; ++w) {
            const float unit = (values[w] - mean) * inverse_std;
            if (HELD && sums) sums->gain[piece][w] += d_unit[w] * unit, sums->bias[piece][w] += d_unit[w];
            if (gain) d_unit[w] *= scale[w];
            along_mean += d_unit[w];
            along_unit += d_unit[w] * unit;
        }
    }
    along_mean = centred ? warp_sum(along_mean) / C : 0;
    along_unit = warp_sum(along_unit) / C;
#pragma unroll
    for (int piece = 0; !HELD || piece < PIECES<W>; ++piece) {
        const int c = (piece * WARP + lane) * W, kept = HELD ? piece : 0;
        if (c >= C) break;
        if (!HELD) row[kept] = load_vector<W>(x + c), d_row[kept] = load_vector<W>(d_out + c);
        unpack(row[kept], values), unpack(d_row[kept], d_unit);
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
    if (wide && C <= MAX_HELD)
        normalize_row_backward<WIDE, true>(x, gain, statistics, d_total, d_out, d_x, C, centred, nullptr);
    else if (wide)
        normalize_row_backward<WIDE, false>(x, gain, statistics, d_total, d_out, d_x, C, centred, nullptr);
    else
        normalize_row_backward<1, false>(x, gain, statistics, d_total, d_out, d_x, C, centred, nullptr);
}

// The same for rows that stay in registers, with the sums over rows that are the gradients of gain and bias, for one
// block's rows each: partial (blocks, 2, C). The warps' sums are added one after the other.
extern "C" __global__ void normalize_backward_with_columns(const REAL* x, const REAL* gain, const float* statistics,
                                                           const REAL* d_total, const REAL* d_out, REAL* d_x,
                                                           float* partial, long long N, long long C,
                                                           long long centred) {
    __shared__ float sums[2][MAX_HELD];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    ColumnSums<WIDE> own;
    const long long stride = gridDim.x * static_cast<long long>(WARPS);
    for (long long n = blockIdx.x * static_cast<long long>(WARPS) + warp; n < N; n += stride)
        normalize_row_backward<WIDE, true>(x + n * C, gain, statistics + 2 * n, d_total ? d_total + n * C : nullptr,
                                           d_out + n * C, d_x + n * C, C, centred, &own);
    for (int turn = 0; turn < WARPS; ++turn) {
        __syncthreads();
        if (turn != warp) continue;
#pragma unroll
        for (int piece = 0; piece < PIECES<WIDE>; ++piece) {
            const int c = (piece * WARP + lane) * WIDE;
            if (c >= C) break;
            for (int w = 0; w < WIDE; ++w) {
                sums[0][c + w] = own.gain[piece][w] + (turn == 0 ? 0 : sums[0][c + w]);
                sums[1][c + w] = own.bias[piece][w] + (turn == 0 ? 0 : sums[1][c + w]);
            }
        }
    }
    __syncthreads();
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        partial[2 * blockIdx.x * C + c] = sums[0][c];
        partial[(2 * blockIdx.x + 1) * C + c] = sums[1][c];
    }
}

// Those sums alone, for any rows: partial (chunks, 2, C). One column per thread; the next kernel adds up the chunks.
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
