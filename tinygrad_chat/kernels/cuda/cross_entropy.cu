// ops.cross_entropy: logits (N, V), one block per row; the gradient may overwrite the logits.

__device__ inline float bend(float logit, float cap) { return cap > 0 ? cap * tanhf(logit / cap) : logit; }

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
extern "C" __global__ void cross_entropy(const REAL* logits, const long long* labels, float* log_sums, float* losses,
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
    const bool known = 0 <= label && label < V;
    const float nothing = __uint_as_float(0x7fc00000);
    losses[n] = label == ignored ? 0 : known ? log_sums[n] - bend(to_float(logits[label]), cap) : nothing;
}

// losses (N) -> loss, their sum, each times its weight if there are `weights` (N), divided by `token_count` or, if that
// is 0, by the number of labels that count; and the factor of each row's gradient. One block.
extern "C" __global__ void mean_loss(const float* losses, const long long* labels, const float* weights, float* loss,
                                     float* factor, long long N, long long ignored, long long token_count) {
    __shared__ float partial[WARP];
    float sum = 0, count = 0;
    for (long long n = threadIdx.x; n < N; n += blockDim.x) {
        sum += weights ? weights[n] * losses[n] : losses[n];
        count += labels[n] != ignored;
    }
    sum = block_sum(sum, partial);
    count = max(1.0f, block_sum(count, partial));
    if (threadIdx.x > 0) return;
    *factor = 1 / (token_count > 0 ? token_count : count);
    *loss = sum * *factor;
}

template <int W>
__device__ void row_gradient(const REAL* logits, REAL* d_logits, long long V, long long label, float log_sum, float scale,
                             float cap) {
    float values[W];
    for (long long v = threadIdx.x * W; v < V; v += blockDim.x * W) {
        load<W>(logits + v, values);
        for (int w = 0; w < W; ++w) {
            const float logit = bend(values[w], cap), bent = logit / cap;
            values[w] = scale * (expf(logit - log_sum) - (v + w == label));
            if (cap > 0) values[w] *= 1 - bent * bent;
        }
        store<W>(d_logits + v, values);
    }
}

// d_logits (N, V), which may be the logits themselves; 0 in a row whose label is `ignored`, whatever its logits are.
extern "C" __global__ void cross_entropy_backward(const REAL* logits, const long long* labels, const float* weights,
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
