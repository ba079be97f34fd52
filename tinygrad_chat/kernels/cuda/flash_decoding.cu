// Flash decoding (Dao, Haziza, Massa and Sizov, 2023): ops.attention for one query of each sequence, as in generation.
// Its cost is to read all keys and values (heads that share some find them in the L2 cache), so many blocks share that:
// each has a head and a chunk of the keys, and `flash_decoding_combine` adds up what they leave. A chunk begins at the
// same key whatever S is, so the same bits come from a cache with room behind its keys.

constexpr int CHUNK = 128;  // keys, one for each thread

// The keys that the query sees: from `first` to before `end`.
struct Seen {
    int first, end;
};

__device__ inline Seen keys_seen(const long long* starts, const long long* length, long long S, long long window,
                                 int batch) {
    const int end = length ? *length : S, in_window = max(end - static_cast<int>(window), 0);
    return {starts ? max(in_window, static_cast<int>(starts[batch])) : in_window, end};
}

template <int W> __device__ float dot(const REAL* x, const REAL* y, int D) {
    float sum = 0, left[W], right[W];
#pragma unroll 4  // so that several loads are on their way at once
    for (int d = 0; d < D; d += W) {
        load<W>(x + d, left);
        load<W>(y + d, right);
        for (int w = 0; w < W; ++w) sum += left[w] * right[w];
    }
    return sum;
}

// sums (D) = weights (keys) @ values (keys, D). As many threads as a row has vectors share a row; the rows in between
// are added up by way of `partial`, which has room for W numbers of each thread.
template <int W>
__device__ void weighted_sum(const float* weights, const REAL* values, long long row, int first, int end, int D,
                             float* partial, float* sums) {
    for (int begin = 0; begin < D; begin += CHUNK * W) {
        const int vectors = min((D - begin) / W, CHUNK), groups = CHUNK / vectors;
        const int group = threadIdx.x / vectors, d = begin + threadIdx.x % vectors * W;
        float sum[W] = {}, x[W];
        if (group < groups)
#pragma unroll 4
            for (int s = first + group; s < end; s += groups) {
                load<W>(values + s * row + d, x);
                for (int w = 0; w < W; ++w) sum[w] += weights[s] * x[w];
            }
        __syncthreads();  // what was there may still be read
        for (int w = 0; w < W; ++w) partial[threadIdx.x * W + w] = sum[w];
        __syncthreads();
        for (int i = threadIdx.x; i < vectors * W; i += CHUNK) {
            float all = 0;
            for (int group = 0; group < groups; ++group) all += partial[group * vectors * W + i];
            sums[begin + i] = all;
        }
    }
}

// Of each chunk of each row, a row being a sequence's head: the largest score, the sum of the exponentials of scores
// less that, and `sums` (rows, chunks, D), the values weighted by these. Of a chunk without a key that is seen, a sum
// of 0 and nothing else.
extern "C" __global__ void __launch_bounds__(CHUNK)
    flash_decoding_split(const REAL* query, const REAL* key, const REAL* value, const long long* starts,
                         const long long* length, float* largest, float* totals, float* sums, long long S,
                         long long D, long long shared, long long window, long long query_row, long long key_batch,
                         long long key_row, long long value_batch, long long value_row, long long wide, float scale) {
    __shared__ float weights[CHUNK], partial[CHUNK * WIDE];
    const int head = blockIdx.y, batch = blockIdx.z, begin = blockIdx.x * CHUNK, s = threadIdx.x;
    const long long place = (batch * static_cast<long long>(gridDim.y) + head) * gridDim.x + blockIdx.x;
    const Seen seen = keys_seen(starts, length, S, window, batch);
    const int first = max(seen.first - begin, 0), end = min(seen.end - begin, CHUNK);
    if (first >= end) {
        if (s == 0) totals[place] = 0;
        return;
    }
    query += batch * query_row + head * D;
    key += batch * key_batch + (begin + s) * key_row + head / shared * D;
    value += batch * value_batch + begin * value_row + head / shared * D;
    const bool is_seen = first <= s && s < end;
    float score = LOWEST;
    if (is_seen) score = scale * (wide ? dot<WIDE>(query, key, D) : dot<1>(query, key, D));
    const float most = block_max(score, partial), weight = is_seen ? expf(score - most) : 0;
    weights[s] = weight;
    const float total = block_sum(weight, partial);
    if (s == 0) largest[place] = most, totals[place] = total;
    if (wide)
        weighted_sum<WIDE>(weights, value, value_row, first, end, D, partial, sums + place * D);
    else
        weighted_sum<1>(weights, value, value_row, first, end, D, partial, sums + place * D);
}

// out (rows, D): a block has a row.
extern "C" __global__ void __launch_bounds__(CHUNK)
    flash_decoding_combine(const float* largest, const float* totals, const float* sums, REAL* out, long long chunks,
                           long long D) {
    const long long row = blockIdx.x;
    largest += row * chunks, totals += row * chunks, sums += row * chunks * D, out += row * D;
    float most = LOWEST, total = 0;
    for (int chunk = 0; chunk < chunks; ++chunk)
        if (totals[chunk] != 0) most = max(most, largest[chunk]);
    for (int chunk = 0; chunk < chunks; ++chunk)
        if (totals[chunk] != 0) total += expf(largest[chunk] - most) * totals[chunk];
    for (int d = threadIdx.x; d < D; d += CHUNK) {
        float sum = 0;
        for (int chunk = 0; chunk < chunks; ++chunk)
            if (totals[chunk] != 0) sum += expf(largest[chunk] - most) * sums[chunk * D + d];
        round_to(out[d], sum / total);
    }
}
