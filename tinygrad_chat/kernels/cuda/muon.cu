// optim.muon.muon_update, all but its products, of a stack of N matrices (R, K). Weights and gradients are flat buffers, in
// which a matrix begins where `starts` (N) says; in all other arrays the matrices follow one another. A warp has a row.

constexpr int WARPS = 8;

__device__ inline long long row_of_warp() { return blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP; }

__device__ inline bool is_finite(const float* scale) { return !scale || fabsf(*scale) <= -LOWEST; }

template <int W>
__device__ float look_ahead_in_row(const float* gradient, float* mean, float* ahead, long long K, float scale,
                                   float momentum) {
    float g[W], m[W], squares = 0;
    for (long long k = threadIdx.x % WARP * W; k < K; k += WARP * W) {
        load<W>(gradient + k, g);
        load<W>(mean + k, m);
        for (int w = 0; w < W; ++w) {
            g[w] *= scale;
            m[w] += (1 - momentum) * (g[w] - m[w]);
            g[w] += momentum * (m[w] - g[w]);
            squares += g[w] * g[w];
        }
        store<W>(mean + k, m);
        store<W>(ahead + k, g);
    }
    return warp_sum(squares);
}

// The mean of the gradients, a gradient that looks ahead by Nesterov's rule (N, R, K), and the square of the norm of each
// of its rows (N, R). The gradient counts times `grad_scale`, unless null; if that is not finite, nothing is written, and
// what is computed from the rest counts for nothing. The momentum is the first of the scalars.
extern "C" __global__ void look_ahead(const float* gradient, const long long* starts, float* mean, float* ahead,
                                      float* squares, const float* grad_scale, const float* scalars, long long rows,
                                      long long R, long long K, long long wide) {
    const long long n = row_of_warp();
    if (n >= rows || !is_finite(grad_scale)) return;
    const float scale = grad_scale ? *grad_scale : 1;
    gradient += starts[n / R] + n % R * K, mean += n * K, ahead += n * K;
    const float sum = wide ? look_ahead_in_row<WIDE>(gradient, mean, ahead, K, scale, scalars[0])
                           : look_ahead_in_row<1>(gradient, mean, ahead, K, scale, scalars[0]);
    if (threadIdx.x % WARP == 0) squares[n] = sum;
}

// squares (N, R) of the norms of rows -> the factors (N, R) that give rows equal norms and a matrix one just below 1. One
// block per matrix.
extern "C" __global__ void equal_rows(const float* squares, float* factors, long long R) {
    __shared__ float partial[WARP];
    squares += blockIdx.x * R, factors += blockIdx.x * R;
    float sum = 0, scaled = 0;
    for (long long r = threadIdx.x; r < R; r += blockDim.x) sum += squares[r];
    const float root = sqrtf(block_sum(sum, partial) / R);
    for (long long r = threadIdx.x; r < R; r += blockDim.x) {
        const float scale = root / max(sqrtf(squares[r]), 1e-6f);
        factors[r] = scale;
        scaled += squares[r] * scale * scale;
    }
    const float norm = 1.01f * sqrtf(block_sum(scaled, partial)) + 1e-6f;
    for (long long r = threadIdx.x; r < R; r += blockDim.x) factors[r] /= norm;
}

template <int W>
__device__ void scale_row(const float* x, float factor, float* out, REAL* rounded, long long K) {
    float values[W];
    for (long long k = threadIdx.x % WARP * W; k < K; k += WARP * W) {
        load<W>(x + k, values);
        for (int w = 0; w < W; ++w) values[w] *= factor;
        store<W>(out + k, values);
        store<W>(rounded + k, values);
    }
}

// x (rows, K) times factors (rows) -> out (rows, K), and rounded to REAL: the first product's factor.
extern "C" __global__ void scale_rows(const float* x, const float* factors, float* out, REAL* rounded, long long rows,
                                      long long K, long long wide) {
    const long long n = row_of_warp();
    if (n >= rows) return;
    if (wide)
        scale_row<WIDE>(x + n * K, factors[n], out + n * K, rounded + n * K, K);
    else
        scale_row<1>(x + n * K, factors[n], out + n * K, rounded + n * K, K);
}

template <int W> __device__ float squares_of_row(const float* x, long long K) {
    float values[W], sum = 0;
    for (long long k = threadIdx.x % WARP * W; k < K; k += WARP * W) {
        load<W>(x + k, values);
        for (int w = 0; w < W; ++w) sum += values[w] * values[w];
    }
    return warp_sum(sum);
}

// x (rows, K) -> squares (rows): the sum of squares of each row.
extern "C" __global__ void row_squares(const float* x, float* squares, long long rows, long long K, long long wide) {
    const long long n = row_of_warp();
    if (n >= rows) return;
    const float sum = wide ? squares_of_row<WIDE>(x + n * K, K) : squares_of_row<1>(x + n * K, K);
    if (threadIdx.x % WARP == 0) squares[n] = sum;
}

template <int W> __device__ void add_squares(const float* x, float* partial, long long R, long long K) {
    const long long k = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (k >= K) return;
    float values[W], sums[W] = {};
    for (long long r = blockIdx.y; r < R; r += gridDim.y) {
        load<W>(x + (blockIdx.z * R + r) * K + k, values);
        for (int w = 0; w < W; ++w) sums[w] += values[w] * values[w];
    }
    store<W>(partial + (blockIdx.z * static_cast<long long>(gridDim.y) + blockIdx.y) * K + k, sums);
}

// x (N, R, K) -> partial (N, chunks, K): the sums of squares of the columns within the rows y, y + chunks, ...
extern "C" __global__ void column_squares(const float* x, float* partial, long long R, long long K, long long wide) {
    if (wide)
        add_squares<WIDE>(x, partial, R, K);
    else
        add_squares<1>(x, partial, R, K);
}

// partial (N, chunks, L), of the sums of squares of L lines of `length` elements each, rows or columns -> the running mean
// square (N, L) and the factors (N, L) that lines are to be multiplied by. If `grad_scale` is not finite, nothing is
// written. One block per matrix.
extern "C" __global__ void even_out(const float* partial, float* square, float* factors, const float* grad_scale,
                                    long long chunks, long long L, long long length, float new_share) {
    if (!is_finite(grad_scale)) return;
    __shared__ float sums[WARP];
    partial += blockIdx.x * chunks * L, square += blockIdx.x * L, factors += blockIdx.x * L;
    float total = 0, before = 0, after = 0;
    for (long long line = threadIdx.x; line < L; line += blockDim.x) {
        float sum = 0;
        for (long long chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * L + line];
        factors[line] = sum / length;  // the mean square, for now; each thread reads only what it wrote itself
        total += sum / length;
    }
    const float count = length, norm = sqrtf(static_cast<float>(length));  // of a matrix with as many equal directions
    const float to_norm = norm / max(sqrtf(count * block_sum(total, sums)), 1e-6f);
    for (long long line = threadIdx.x; line < L; line += blockDim.x) {
        const float mean = factors[line] * to_norm * to_norm;
        square[line] += new_share * (mean - square[line]);
        const float scale = 1 / sqrtf(max(square[line], 1e-10f));
        factors[line] = scale;
        before += mean;
        after += mean * scale * scale;
    }
    before = sqrtf(count * block_sum(before, sums));
    after = sqrtf(count * block_sum(after, sums));
    const float kept = to_norm * before / max(after, 1e-10f);
    for (long long line = threadIdx.x; line < L; line += blockDim.x) factors[line] *= kept;
}

template <int W>
__device__ void move_row(float* data, REAL* copy, const float* x, const float* factors, bool by_rows, long long K,
                         float rate, float decay) {
    float weight[W], step[W], factor[W];
    if (by_rows)
        for (int w = 0; w < W; ++w) factor[w] = *factors;
    for (long long k = threadIdx.x % WARP * W; k < K; k += WARP * W) {
        load<W>(data + k, weight);
        load<W>(x + k, step);
        if (!by_rows) load<W>(factors + k, factor);
        for (int w = 0; w < W; ++w) {
            step[w] *= factor[w];
            const float decayed = step[w] * weight[w] >= 0 ? weight[w] * (rate * decay) : 0;
            weight[w] -= step[w] * rate + decayed;
        }
        store<W>(data + k, weight);
        if (copy) store<W>(copy + k, weight);
    }
}

// Weights move by x (N, R, K) times the factors of its rows (N, R) or columns (N, K), and decay where that does not
// enlarge them; if `grad_scale` is not finite, nothing happens. `copy`, unless null, receives the compute weights. The
// scalars are the momentum, the rate, which counts times `stretch`, and the decay.
extern "C" __global__ void move_matrices(float* data, REAL* copy, const long long* starts, const float* x,
                                         const float* factors, const float* grad_scale, const float* scalars,
                                         long long rows, long long R, long long K, long long by_rows, float stretch,
                                         long long wide) {
    const long long n = row_of_warp();
    if (n >= rows || !is_finite(grad_scale)) return;
    const long long place = starts[n / R] + n % R * K;
    const float rate = scalars[1] * stretch;
    data += place, x += n * K, factors += by_rows ? n : n / R * K;
    if (copy) copy += place;
    if (wide)
        move_row<WIDE>(data, copy, x, factors, by_rows, K, rate, scalars[2]);
    else
        move_row<1>(data, copy, x, factors, by_rows, K, rate, scalars[2]);
}
