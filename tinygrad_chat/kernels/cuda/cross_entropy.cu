// ops.cross_entropy: logits (N, V), one block per row; the gradient may overwrite the logits. A row that fits in the
// registers of a block is read once, and its gradient is computed together with its loss; a longer one is read by one
// kernel for the loss and by another for the gradient.

__device__ inline float bend(float logit, float cap) { return cap > 0 ? cap * tanhf(logit / cap) : logit; }

// NaN where there is no such logit.
__device__ inline float label_logit(const REAL* logits, long long label, long long V, float cap) {
    return 0 <= label && label < V ? bend(to_float(logits[label]), cap) : __uint_as_float(0x7fc00000);
}

// The maximum of a thread's share of a row, and the sum of its exponentials relative to that maximum.
template <int W> __device__ void scan_row(const REAL* logits, long long V, float cap, float& largest, float& sum) {
    float values[W];
    for (long long v = threadIdx.x * W; v < V; v += blockDim.x * W) {
        load<W>(logits + v, values);
        for (int w = 0; w < W; ++w) {
            const float logit = bend(values[w], cap);
            if (!(logit <= largest)) {  // also true for a NaN, which stays in the sum
                sum = sum * expf(largest - logit) + 1;
                largest = logit;
            } else {
                sum += expf(logit - largest);
            }
        }
    }
}

// logits, labels (N) -> the logarithm of each row's sum of exponentials, and its loss: 0 where the label is `ignored`,
// NaN where it is not below V. A `cap` of 0 means no cap.
extern "C" __global__ void cross_entropy(const REAL* logits, const int* labels, float* log_sums, float* losses,
                                         long long V, long long ignored, float cap, long long wide) {
    __shared__ float partial[WARP];
    const long long n = blockIdx.x, label = labels[n];
    logits += n * V;
    float largest = LOWEST, sum = 0;
    if (wide)
        scan_row<WIDE>(logits, V, cap, largest, sum);
    else
        scan_row<1>(logits, V, cap, largest, sum);
    const float row_largest = block_max(largest, partial);
    sum = block_sum(sum * expf(largest - row_largest), partial);
    if (threadIdx.x > 0) return;
    log_sums[n] = row_largest + logf(sum);
    const float at_label = label_logit(logits, label, V, cap);
    losses[n] = label == ignored ? 0 : log_sums[n] - at_label;
}

// labels (N) -> factor, of each row's loss and gradient: 1 / `token_count` or, if that is null, 1 / the number of
// labels that count. One block.
extern "C" __global__ void row_factor(const int* labels, float* factor, const long long* token_count, long long N,
                                      long long ignored) {
    __shared__ float partial[WARP];
    float count = 0;
    for (long long n = threadIdx.x; n < N && !token_count; n += blockDim.x) count += labels[n] != ignored;
    count = max(1.0f, block_sum(count, partial));
    if (threadIdx.x == 0) *factor = 1 / (token_count ? *token_count : count);
}

// losses (N) -> loss, their sum, each times its weight if there are `weights` (N), and all times `factor`. One block.
extern "C" __global__ void mean_loss(const float* losses, const float* weights, const float* factor, float* loss,
                                     long long N) {
    __shared__ float partial[WARP];
    float sum = 0;
    for (long long n = threadIdx.x; n < N; n += blockDim.x) sum += weights ? weights[n] * losses[n] : losses[n];
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) *loss = sum * *factor;
}

// The gradient of a logit x, whose row's loss counts `scale` times.
__device__ inline float logit_gradient(float x, bool is_label, float log_sum, float scale, float cap) {
    const float logit = bend(x, cap), bent = logit / cap;
    const float gradient = scale * (expf(logit - log_sum) - is_label);
    return cap > 0 ? gradient * (1 - bent * bent) : gradient;
}

template <int W>
__device__ void row_gradient(const REAL* logits, REAL* d_logits, long long V, long long label, float log_sum, float scale,
                             float cap) {
    float values[W];
    for (long long v = threadIdx.x * W; v < V; v += blockDim.x * W) {
        load<W>(logits + v, values);
        for (int w = 0; w < W; ++w) values[w] = logit_gradient(values[w], v + w == label, log_sum, scale, cap);
        store<W>(d_logits + v, values);
    }
}

// d_logits (N, V), which may be the logits themselves; 0 in a row whose label is `ignored`, whatever its logits are.
extern "C" __global__ void cross_entropy_backward(const REAL* logits, const int* labels, const float* weights,
                                                  const float* log_sums, const float* factor, const float* d_out, REAL* d_logits, long long V,
                                                  long long ignored, float cap, long long wide) {
    const long long n = blockIdx.x, label = labels[n];
    logits += n * V, d_logits += n * V;
    if (label == ignored) {
        for (long long v = threadIdx.x; v < V; v += blockDim.x) round_to(d_logits[v], 0);
        return;
    }
    const float scale = *factor * *d_out * (weights ? weights[n] : 1);
    if (wide)
        row_gradient<WIDE>(logits, d_logits, V, label, log_sums[n], scale, cap);
    else
        row_gradient<1>(logits, d_logits, V, label, log_sums[n], scale, cap);
}

constexpr int MAX_THREADS = 512;
constexpr int PIECES = 13;  // of W logits that a thread holds: 104 KiB in a block

__device__ inline void ignore_row(REAL* d_logits, float* loss, long long V) {
    for (long long v = threadIdx.x; v < V; v += blockDim.x) round_to(d_logits[v], 0);
    if (threadIdx.x == 0) *loss = 0;
}

// The loss of a row of at most PIECES * blockDim.x * W logits, and its gradient.
template <int W>
__device__ void row_at_once(const REAL* logits, REAL* d_logits, float* loss, int V, int label, float scale, float cap) {
    __shared__ float partial[WARP];
    Vector<W, REAL> row[PIECES];
    float largest = LOWEST, sum = 0, values[W];
#pragma unroll
    for (int piece = 0; piece < PIECES; ++piece) {
        const int v = (piece * blockDim.x + threadIdx.x) * W;
        if (v >= V) continue;
        row[piece] = load_vector<W>(logits + v);
        for (int w = 0; w < W; ++w) largest = max(largest, to_float(row[piece].at[w]));
    }
    largest = bend(block_max(largest, partial), cap);  // the largest also when bent, as bending keeps the order
#pragma unroll
    for (int piece = 0; piece < PIECES; ++piece) {
        const bool there = (piece * blockDim.x + threadIdx.x) * W < V;
        for (int w = 0; w < W; ++w) {
            if (there) sum += expf(bend(to_float(row[piece].at[w]), cap) - largest);
            if (w % 4 == 3) __syncwarp();  // the compiler would mix more pieces than there are registers for
        }
    }
    const float at_label = label_logit(logits, label, V, cap);  // before another thread overwrites it, behind a barrier
    const float log_sum = largest + logf(block_sum(sum, partial));
    if (threadIdx.x == 0) *loss = log_sum - at_label;
#pragma unroll
    for (int piece = 0; piece < PIECES; ++piece) {
        __syncwarp();
        const int v = (piece * blockDim.x + threadIdx.x) * W;
        if (v >= V) continue;
        for (int w = 0; w < W; ++w)
            values[w] = logit_gradient(to_float(row[piece].at[w]), v + w == label, log_sum, scale, cap);
        store<W>(d_logits + v, values);
    }
}

// losses (N) and, for a d_out of 1, d_logits (N, V), as by the other kernels in turn.
extern "C" __global__ void __launch_bounds__(MAX_THREADS)
    cross_entropy_at_once(const REAL* logits, const int* labels, const float* weights, const float* factor,
                          float* losses, REAL* d_logits, long long V, long long ignored, float cap, long long wide) {
    const long long n = blockIdx.x, label = labels[n];
    const float scale = *factor * (weights ? weights[n] : 1);
    const int known = max(-1LL, min(label, V));  // a number no wider than needed: registers are scarce
    logits += n * V, d_logits += n * V, losses += n;
    if (label == ignored)
        ignore_row(d_logits, losses, V);
    else if (wide)
        row_at_once<WIDE>(logits, d_logits, losses, V, known, scale, cap);
    else
        row_at_once<1>(logits, d_logits, losses, V, known, scale, cap);
}

template <int W>
__device__ void scale_elements(const REAL* gradient, REAL* out, float d_out, long long size) {
    float values[W];
    const long long stride = gridDim.x * static_cast<long long>(blockDim.x) * W;
    for (long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W; i < size; i += stride) {
        load<W>(gradient + i, values);
        for (int w = 0; w < W; ++w) values[w] *= d_out;
        store<W>(out + i, values);
    }
}

// out (size), perhaps the gradient itself: the gradient times d_out. As a rule that is 1 and there is nothing to do, so
// there are few blocks.
extern "C" __global__ void scale_gradient(const REAL* gradient, const float* d_out, REAL* out, long long size,
                                          long long wide) {
    if (*d_out == 1 && out == gradient) return;
    if (wide)
        scale_elements<WIDE>(gradient, out, *d_out, size);
    else
        scale_elements<1>(gradient, out, *d_out, size);
}
