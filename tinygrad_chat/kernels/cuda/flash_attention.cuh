// ops.attention on tensor cores without ever writing a score (Dao et al., arXiv:2205.14135 and 2307.08691): a block
// takes some queries of one head, and the keys tile by tile. The derivation is docs/derivations/flash_attention.md.

#include "tiles.cuh"

constexpr float LOG2_E = 1.4426950408889634f;

// The largest number in a warp.
__device__ inline int warp_most(int x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x = max(x, __shfl_xor_sync(ALL, x, distance));
    return x;
}

// The greatest of N numbers in shared memory, none below 0.
template <int N, typename Number> __device__ inline int greatest_of(const Number* numbers) {
    int most = 0;
    for (int i = threadIdx.x % WARP; i < N; i += WARP) most = max(most, int(numbers[i]));
    return warp_most(most);
}

// The sizes of a call, and which keys a query sees: those of its document and of `window` positions, up to its own or
// up to the last key.
struct Shape {
    int T, S, heads, shared, causal, window;  // `shared` neighbouring heads have one key/value head
    const long long* starts;                  // for each query of the sequence, its document's first key; or null

    __device__ int position(int query) const { return S - T + query; }
    // The first key in a query's window, and the first that it sees; behind the last query, that of the last.
    __device__ int first_in_window(int query) const { return max(position(min(query, T - 1)) + 1 - window, 0); }
    __device__ int first_key(int query) const {
        const int first = first_in_window(query);
        return starts ? max(first, int(starts[min(query, T - 1)])) : first;
    }
    // The last key that a query sees; behind the last query, none.
    __device__ int last_key(int query) const { return query >= T ? -1 : causal ? position(query) : S - 1; }
    // Whether a query sees a key, if `first` is the first that it sees.
    __device__ bool sees(int query, int key, int first) const { return key >= first && key <= last_key(query); }
    // Whether all of these queries see all of these keys, if each sees key `first`: most tiles need no mask.
    __device__ bool all_see(int query, int queries, int key, int keys, int first) const {
        return query + queries <= T && key + keys <= S && key >= first &&
               (!causal || key + keys - 1 <= position(query));
    }
    // The key behind the last that one of the queries before `end` sees.
    __device__ int end_of_keys(int end) const { return causal ? position(min(end, T)) : S; }
    // The first query that sees one of the keys from `key` to `end`, and the query behind the last.
    __device__ int first_query(int key) const { return causal ? max(key - position(0), 0) : 0; }
    __device__ int end_of_queries(int key, int end) const {
        const int in_window = max(min((long long)end - 1 + window - position(0), (long long)T), 0LL);
        if (!starts) return in_window;
        int last = -1;
        for (int query = first_query(key) + threadIdx.x % WARP; query < in_window; query += WARP)
            if (starts[query] < end) last = query;
        return warp_most(last) + 1;
    }
};

__device__ inline Shape shape_of(long long T, long long S, long long heads, long long shared, long long causal,
                                 long long window, const long long* starts, int batch) {
    return {int(T), int(S), int(heads), int(shared), int(causal), int(window), starts ? starts + batch * T : starts};
}

// The first key that each of N queries sees, in shared memory, and the least and greatest of them.
template <int N> struct FirstKeys {
    const int* of;
    int least, greatest;

    __device__ FirstKeys(const Shape& shape, int begin, int* memory) : of(memory) {
        for (int i = threadIdx.x; i < N; i += THREADS) memory[i] = shape.first_key(begin + i);
        __syncthreads();
        int least_negated = -memory[0];
        for (int i = threadIdx.x % WARP; i < N; i += WARP) least_negated = max(least_negated, -memory[i]);
        least = -warp_most(least_negated);
        greatest = greatest_of<N>(memory);
    }
};

// The rows of a head in (batch, length, heads D), whose batches and rows are that many elements apart.
template <typename T>
__device__ inline Rows<T> rows_of(T* x, long long batch_stride, long long stride, int batch, int head, int length) {
    return {x + batch * batch_stride + head * D, stride, length};
}

// The four lanes that hold a row of sums.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}
__device__ inline float quad_max(float x) {
    x = max(x, __shfl_xor_sync(ALL, x, 1));
    return max(x, __shfl_xor_sync(ALL, x, 2));
}

constexpr float ROOM = 8;

// Turn scores into exponentials, 2 ** (factor * (score - largest)), of which `total` is the sum. A row's `largest` is
// its largest score so far, or less by ROOM in the exponent at most: exponentials of up to 2 ** ROOM are as exact, and
// only where a row has outgrown them, what was summed before it shrinks. A row that has seen nothing yet has weights
// of 1, which its first true score shrinks to 0.
template <int M, int N>
__device__ inline void weigh_anew(Sums<M, N>& scores, Sums<M, D / 8>& sums, float (&largest)[M][2],
                                  float (&total)[M][2], float factor) {
    float most[M][2];
    bool outgrown = false;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float x = largest[m][half];
#pragma unroll
            for (int n = 0; n < N; ++n) x = max(x, max(scores.at[m][n][2 * half], scores.at[m][n][2 * half + 1]));
            x = quad_max(x);
            most[m][half] = (x - largest[m][half]) * factor <= ROOM ? largest[m][half] : x;
            outgrown |= most[m][half] != largest[m][half];
        }
    if (__any_sync(ALL, outgrown)) {
        float shrink[M][2];
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                shrink[m][half] = exp2f((largest[m][half] - most[m][half]) * factor);
                largest[m][half] = most[m][half];
                total[m][half] *= shrink[m][half];
            }
        sums.each([&](float& x, int m, int, int i) { x *= shrink[m][i / 2]; });
    }
    scores.each([&](float& score, int m, int, int i) {
        score = exp2f(score * factor - largest[m][i / 2] * factor);
        total[m][i / 2] += score;
    });
}

// out (B, T, H D), and for each query log2_sums (B, H, T): the logarithm to base 2 of the sum of the exponentials of
// its scores, from which the backward pass computes the weights again.
extern "C" __global__ void __launch_bounds__(THREADS)
    flash_attention(const bfloat16* query, const bfloat16* key, const bfloat16* value, const long long* starts,
                    bfloat16* out, float* log2_sums, long long T, long long S, long long heads, long long shared,
                    long long causal, long long window, long long query_batch, long long query_row,
                    long long key_batch, long long key_row, long long value_batch, long long value_row, float scale) {
    constexpr int M = FORWARD_QUERIES / (16 * WARPS), N = FORWARD_KEYS / 8;
    const int head = blockIdx.y, batch = blockIdx.z;
    const Shape shape = shape_of(T, S, heads, shared, causal, window, starts, batch);
    DYNAMIC_SHARED(memory);
    const Tile<FORWARD_QUERIES> query_tile{reinterpret_cast<bfloat16*>(memory)};
    const Tile<FORWARD_KEYS> key_tiles{query_tile.behind(1)};  // two of keys, two of values: one read, one on its way
    const Tile<FORWARD_KEYS> value_tiles{key_tiles.behind(2)};
    int* first_keys_here = reinterpret_cast<int*>(value_tiles.behind(2));

    const int begin = (gridDim.x - 1 - blockIdx.x) * FORWARD_QUERIES;  // the last queries see most: they come first
    const auto queries = rows_of(query, query_batch, query_row, batch, head, shape.T);
    const auto keys = rows_of(key, key_batch, key_row, batch, head / shape.shared, shape.S);
    const auto values = rows_of(value, value_batch, value_row, batch, head / shape.shared, shape.S);
    const FirstKeys<FORWARD_QUERIES> first_keys(shape, begin, first_keys_here);
    const int first_tile = first_keys.least / FORWARD_KEYS;
    const int end_tile = (shape.end_of_keys(begin + FORWARD_QUERIES) + FORWARD_KEYS - 1) / FORWARD_KEYS;
    const auto fetch_tile = [&](int tile, int stage) {
        fetch(key_tiles.at(stage), keys, tile * FORWARD_KEYS);
        fetch(value_tiles.at(stage), values, tile * FORWARD_KEYS);
    };

    fetch(query_tile, queries, begin);
    fetch_tile(first_tile, 0);
    end_group_of_copies();
    receive_copies();
    __syncthreads();
    const KeptRows<M> queries_here(query_tile);
    Sums<M, D / 8> sums;  // of values, weighted by exponentials of scores less the largest so far
    float largest[M][2], total[M][2] = {};
#pragma unroll
    for (int m = 0; m < M; ++m) largest[m][0] = largest[m][1] = LOWEST;
    for (int tile = first_tile, stage = 0; tile < end_tile; ++tile, stage ^= 1) {
        receive_copies();
        __syncthreads();  // all have copied this tile and have read the one whose place the next takes
        if (tile + 1 < end_tile) fetch_tile(tile + 1, stage ^ 1);
        end_group_of_copies();
        const int first_key = tile * FORWARD_KEYS;
        Sums<M, N> scores;
        add_products_of_rows(scores, queries_here, key_tiles.at(stage));
        finish_products(scores);
        if (!shape.all_see(begin, FORWARD_QUERIES, first_key, FORWARD_KEYS, first_keys.greatest))
            scores.each([&](float& score, int m, int n, int i) {
                const int row = scores.row(m, i), key = first_key + scores.column(n, i);
                if (!shape.sees(begin + row, key, first_keys.of[row])) score = LOWEST;
            });
        weigh_anew(scores, sums, largest, total, scale * LOG2_E);
        add_weighted_rows(sums, scores, value_tiles.at(stage));
        finish_products(sums);
    }
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int t = begin + sums.row(m, 2 * half);
            const float sum = quad_sum(total[m][half]);
            if (threadIdx.x % 4 == 0 && t < shape.T)
                log2_sums[(batch * heads + head) * T + t] = largest[m][half] * (scale * LOG2_E) + log2f(sum);
            total[m][half] = 1 / sum;
        }
    sums.each([&](float& x, int m, int, int i) { x *= total[m][i / 2]; });
    write_rows(sums, query_tile, rows_of(out, T * heads * D, heads * D, batch, head, shape.T), begin);
}
