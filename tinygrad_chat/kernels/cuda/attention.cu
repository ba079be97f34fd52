// The middle of ops.attention, between its two products: a warp turns a row of scores (S) into weights, and back.

constexpr int WARPS = 8;

// The positions that query t sees: from the first up to, not including, the last.
__device__ inline void find_seen(long long t, long long T, long long S, long long causal, long long reach, int& first,
                                 int& last) {
    const long long position = S - T + t;
    first = position + 1 > reach ? position + 1 - reach : 0;
    last = causal ? position + 1 : S;
}

// scores (rows, S) -> weights (rows, S), 0 where nothing is seen. Rows are counted over sequences, heads and T queries.
extern "C" __global__ void masked_softmax(const float* scores, REAL* weights, long long rows, long long T, long long S,
                                          long long causal, long long reach) {
    const long long row = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (row >= rows) return;
    const int lane = threadIdx.x % WARP;
    int first, last;
    find_seen(row % T, T, S, causal, reach, first, last);
    scores += row * S, weights += row * S;
    float largest = LOWEST, sum = 0;
    for (int s = first + lane; s < last; s += WARP) largest = max(largest, scores[s]);
    largest = warp_max(largest);
    for (int s = first + lane; s < last; s += WARP) sum += expf(scores[s] - largest);
    const float share = 1 / warp_sum(sum);
    for (int s = lane; s < S; s += WARP)
        round_to(weights[s], first <= s && s < last ? expf(scores[s] - largest) * share : 0);
}

// d_weights (rows, S) -> d_scores (rows, S), times `scale`.
extern "C" __global__ void masked_softmax_backward(const REAL* weights, const float* d_weights, REAL* d_scores,
                                                   long long rows, long long T, long long S, long long causal,
                                                   long long reach, float scale) {
    const long long row = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (row >= rows) return;
    const int lane = threadIdx.x % WARP;
    int first, last;
    find_seen(row % T, T, S, causal, reach, first, last);
    weights += row * S, d_weights += row * S, d_scores += row * S;
    float along = 0;
    for (int s = first + lane; s < last; s += WARP) along += d_weights[s] * to_float(weights[s]);
    along = warp_sum(along);
    for (int s = lane; s < S; s += WARP)
        round_to(d_scores[s],
                 first <= s && s < last ? scale * to_float(weights[s]) * (d_weights[s] - along) : 0);
}
