// The middle of ops.attention, between its two products: a warp turns a row of scores (S) into weights, and backward.

constexpr int WARPS = 8;

// The positions that the query of a row sees: from `first` up to, but not including, `last`. Rows are counted over
// sequences, heads and T queries; starts (sequences, T), unless null, says where each query's document begins.
__device__ inline void find_seen(long long row, const long long* starts, long long T, long long S, long long heads,
                                 long long causal, long long reach, int& first, int& last) {
    const long long t = row % T, position = S - T + t;
    first = position + 1 > reach ? position + 1 - reach : 0;
    if (starts) first = max(first, static_cast<int>(starts[row / (heads * T) * T + t]));
    last = causal ? position + 1 : S;
}

template <int W> __device__ void softmax_row(const float* scores, REAL* weights, int S, int first, int last) {
    const int lane = threadIdx.x % WARP, begin = first / W * W;  // the first vector with a visible key
    float values[W], largest = LOWEST, sum = 0;
    for (int s = begin + lane * W; s < last; s += WARP * W) {
        load<W>(scores + s, values);
        for (int w = 0; w < W; ++w)
            if (first <= s + w && s + w < last) largest = max(largest, values[w]);
    }
    largest = warp_max(largest);
    for (int s = begin + lane * W; s < last; s += WARP * W) {
        load<W>(scores + s, values);
        for (int w = 0; w < W; ++w)
            if (first <= s + w && s + w < last) sum += expf(values[w] - largest);
    }
    const float share = 1 / warp_sum(sum);
    for (int s = lane * W; s < S; s += WARP * W) {
        load<W>(scores + s, values);
        for (int w = 0; w < W; ++w) values[w] = first <= s + w && s + w < last ? expf(values[w] - largest) * share : 0;
        store<W>(weights + s, values);
    }
}

// scores (rows, S) -> weights (rows, S), 0 for hidden keys.
extern "C" __global__ void masked_softmax(const float* scores, REAL* weights, const long long* starts, long long rows,
                                          long long T, long long S, long long heads, long long causal,
                                          long long reach, long long wide) {
    const long long row = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (row >= rows) return;
    int first, last;
    find_seen(row, starts, T, S, heads, causal, reach, first, last);
    scores += row * S, weights += row * S;
    if (wide)
        softmax_row<WIDE>(scores, weights, S, first, last);
    else
        softmax_row<1>(scores, weights, S, first, last);
}

template <int W>
__device__ void softmax_row_backward(const REAL* weights, const float* d_weights, REAL* d_scores, int S, int first,
                                     int last, float scale) {
    const int lane = threadIdx.x % WARP;
    float shares[W], d[W], along = 0;
    for (int s = first / W * W + lane * W; s < last; s += WARP * W) {
        load<W>(weights + s, shares);
        load<W>(d_weights + s, d);
        for (int w = 0; w < W; ++w)
            if (first <= s + w && s + w < last) along += d[w] * shares[w];
    }
    along = warp_sum(along);
    for (int s = lane * W; s < S; s += WARP * W) {
        load<W>(weights + s, shares);
        load<W>(d_weights + s, d);
        for (int w = 0; w < W; ++w)
            d[w] = first <= s + w && s + w < last ? scale * shares[w] * (d[w] - along) : 0;
        store<W>(d_scores + s, d);
    }
}

// d_weights (rows, S) -> d_scores (rows, S), times `scale`.
extern "C" __global__ void masked_softmax_backward(const REAL* weights, const float* d_weights, REAL* d_scores,
                                                   const long long* starts, long long rows, long long T, long long S,
                                                   long long heads, long long causal, long long reach, long long wide,
                                                   float scale) {
    const long long row = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (row >= rows) return;
    int first, last;
    find_seen(row, starts, T, S, heads, causal, reach, first, last);
    weights += row * S, d_weights += row * S, d_scores += row * S;
    if (wide)
        softmax_row_backward<WIDE>(weights, d_weights, d_scores, S, first, last, scale);
    else
        softmax_row_backward<1>(weights, d_weights, d_scores, S, first, last, scale);
}
