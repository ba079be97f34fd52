// ops.cross_entropy: logits (N, V), a block for each row, and the gradient in the logits' place.

__device__ inline float bend(float logit, float cap) { return cap > 0 ? cap * tanhf(logit / cap) : logit; }

// logits, labels (N) -> the logarithm of each row's sum of exponentials, and its loss: 0 where the label is `ignored`,
// NaN where it is none of V. A `cap` of 0 is none.
extern "C" __global__ void cross_entropy(const REAL* logits, const long long* labels, float* log_sums, float* losses,
                                         long long V, long long ignored, float cap) {
    __shared__ float partial[WARP];
    const long long n = blockIdx.x, label = labels[n];
    logits += n * V;
    float largest = LOWEST, sum = 0;
    for (long long v = threadIdx.x; v < V; v += blockDim.x) {
        const float logit = bend(to_float(logits[v]), cap);
        if (!(logit <= largest)) {  // also where it is a NaN, which stays in the sum
            sum = sum * expf(largest - logit) + 1;
            largest = logit;
        } else {
            sum += expf(logit - largest);
        }
    }
    const float row_largest = block_max(largest, partial);
    sum = block_sum(sum * expf(largest - row_largest), partial);
    if (threadIdx.x > 0) return;
    log_sums[n] = row_largest + logf(sum);
    const bool known = 0 <= label && label < V;
    losses[n] = label == ignored ? 0 : known ? log_sums[n] - bend(to_float(logits[label]), cap) : __uint_as_float(0x7fc00000);
}

// losses (N) -> loss, `share` times their mean over the labels that count, and what each row's gradient is multiplied by.
// One block.
extern "C" __global__ void mean_loss(const float* losses, const long long* labels, float* loss, float* factor,
                                     long long N, long long ignored, float share) {
    __shared__ float partial[WARP];
    float sum = 0, count = 0;
    for (long long n = threadIdx.x; n < N; n += blockDim.x) {
        sum += losses[n];
        count += labels[n] != ignored;
    }
    sum = block_sum(sum, partial);
    count = max(1.0f, block_sum(count, partial));
    if (threadIdx.x > 0) return;
    *factor = share / count;
    *loss = sum * *factor;
}

// d_logits (N, V), which may be the logits themselves.
extern "C" __global__ void cross_entropy_backward(const REAL* logits, const long long* labels, const float* log_sums,
                                                  const float* factor, const float* d_out, REAL* d_logits, long long V,
                                                  long long ignored, float cap) {
    const long long n = blockIdx.x, label = labels[n];
    const float scale = label == ignored ? 0 : *factor * *d_out, log_sum = log_sums[n];
    logits += n * V, d_logits += n * V;
    for (long long v = threadIdx.x; v < V; v += blockDim.x) {
        const float logit = bend(to_float(logits[v]), cap), bent = logit / cap;
        float d = scale * (expf(logit - log_sum) - (v == label));
        if (cap > 0) d *= 1 - bent * bent;
        round_to(d_logits[v], d);
    }
}
