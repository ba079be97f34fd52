// The backward rule of flash_attention.cuh, in two kernels, so that no two blocks add to one place and the sums have
// one order. Both compute the weights again. With d_scores = weights * (d_out @ value.T - delta):
//     d_value = weights.T @ d_out,   d_key = scale * d_scores.T @ query,   d_query = scale * d_scores @ key

// delta (B, H, T): for each query of a head, the sum of d_out * out over its channels, by a warp.
extern "C" __global__ void __launch_bounds__(THREADS)
    flash_delta(const bfloat16* out, const bfloat16* d_out, float* minus_delta, long long T, long long heads,
                long long rows) {
    const long long row = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (row >= rows) return;
    const long long place = ((row / (heads * T) * T + row % T) * heads + row / T % heads) * D;
    float sum = 0;
    for (int d = threadIdx.x % WARP; d < D; d += WARP) sum += to_float(out[place + d]) * to_float(d_out[place + d]);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) minus_delta[row] = -sum;
}

// d_key and d_value (B, S, G D): a block has some keys, and takes the queries of all heads that share them tile by
// tile. Rows are keys and columns queries, so that both results are products of what is in registers with a tile.
extern "C" __global__ void __launch_bounds__(THREADS)
    flash_backward_keys(const bfloat16* query, const bfloat16* key, const bfloat16* value, const long long* starts,
                        const bfloat16* d_out, const float* log2_sums, const float* minus_delta, bfloat16* d_key,
                        bfloat16* d_value, long long T, long long S, long long heads, long long shared,
                        long long causal, long long window, long long query_batch, long long query_row,
                        long long key_batch, long long key_row, long long value_batch, long long value_row,
                        float scale, long long d_key_batch, long long d_key_row, long long d_value_batch,
                        long long d_value_row) {
    constexpr int M = KEYS_OF_BLOCK / (16 * WARPS), N = QUERIES_OF_TILE / 8;
    const Shape shape = shape_of(T, S, heads, shared, causal, window, starts, blockIdx.z);
    DYNAMIC_SHARED(memory);
    const Tile<KEYS_OF_BLOCK> key_tile{reinterpret_cast<bfloat16*>(memory)}, value_tile{key_tile.behind(1)};
    const Tile<QUERIES_OF_TILE> query_tiles{value_tile.behind(1)}, d_out_tiles{query_tiles.behind(2)};  // two of each
    // Of the queries of both tiles, likewise; starts of documents, if there are any.
    long long* starts_here = reinterpret_cast<long long*>(d_out_tiles.behind(2));
    float* log2_sums_here = reinterpret_cast<float*>(starts_here + 2 * QUERIES_OF_TILE);
    float* minus_delta_here = log2_sums_here + 2 * QUERIES_OF_TILE;

    const int begin = blockIdx.x * KEYS_OF_BLOCK, group = blockIdx.y, batch = blockIdx.z;
    // The queries that see one of these keys: from the first one's position on, while the last is in the window and in
    // the same document. Their tiles are taken head by head.
    const int first_query = shape.first_query(begin) / QUERIES_OF_TILE * QUERIES_OF_TILE;
    const int end_of_queries = shape.end_of_queries(begin, begin + KEYS_OF_BLOCK);
    const int end_of_heads = (group + 1) * shape.shared;
    const auto fetch_queries = [&](int head, int first, int stage) {
        const auto all_queries = rows_of(query, query_batch, query_row, batch, head, shape.T);
        const auto all_d_outs = rows_of(d_out, T * heads * D, heads * D, batch, head, shape.T);
        fetch(query_tiles.at(stage), all_queries, first);
        fetch(d_out_tiles.at(stage), all_d_outs, first);
        // Below 2 ** 31, as each of these numbers belongs to a row of at least 128 bytes in four arrays.
        const int place = (batch * shape.heads + head) * shape.T + first;
        const int numbers = stage * QUERIES_OF_TILE, left = shape.T - first;
        fetch_numbers<QUERIES_OF_TILE>(log2_sums_here + numbers, log2_sums + place, left);
        fetch_numbers<QUERIES_OF_TILE>(minus_delta_here + numbers, minus_delta + place, left);
        if (starts) fetch_numbers<QUERIES_OF_TILE>(starts_here + numbers, shape.starts + first, left);
    };

    int head = first_query < end_of_queries ? group * shape.shared : end_of_heads, first = first_query;
    fetch(key_tile, rows_of(key, key_batch, key_row, batch, group, shape.S), begin);
    fetch(value_tile, rows_of(value, value_batch, value_row, batch, group, shape.S), begin);
    if (head < end_of_heads) fetch_queries(head, first, 0);
    end_group_of_copies();
    Sums<M, D / 8> key_sums, value_sums;
    for (int stage = 0; head < end_of_heads; stage ^= 1) {
        const bool head_goes_on = first + QUERIES_OF_TILE < end_of_queries;
        const int next_head = head_goes_on ? head : head + 1;
        const int next = head_goes_on ? first + QUERIES_OF_TILE : first_query;
        receive_copies();
        __syncthreads();  // all have copied this tile and have read the one whose place the next takes
        if (next_head < end_of_heads) fetch_queries(next_head, next, stage ^ 1);
        end_group_of_copies();
        const Tile<QUERIES_OF_TILE> queries = query_tiles.at(stage), d_outs = d_out_tiles.at(stage);
        const int numbers = stage * QUERIES_OF_TILE;
        int last_first_key = shape.first_in_window(first + QUERIES_OF_TILE - 1);
        if (starts) last_first_key = max(last_first_key, greatest_of<QUERIES_OF_TILE>(starts_here + numbers));
        const bool all = shape.all_see(first, QUERIES_OF_TILE, begin, KEYS_OF_BLOCK, last_first_key);
        Sums<M, N> weights, d_scores;
        d_scores.each([&](float& sum, int, int n, int i) { sum = minus_delta_here[numbers + d_scores.column(n, i)]; });
        add_products_of_rows(weights, key_tile, queries);
        add_products_of_rows(d_scores, value_tile, d_outs);
        finish_products(weights, d_scores);
        if (!all)
            weights.each([&](float& score, int m, int n, int i) {
                const int column = weights.column(n, i), key = begin + weights.row(m, i);
                const int document = starts ? int(starts_here[numbers + column]) : 0;
                const int first_key = max(shape.first_in_window(first + column), document);
                if (!shape.sees(first + column, key, first_key)) score = LOWEST;
            });
        weights.each([&](float& weight, int m, int n, int i) {
            weight = exp2f(weight * (scale * LOG2_E) - log2_sums_here[numbers + weights.column(n, i)]);
            d_scores.at[m][n][i] *= weight;
        });
        add_weighted_rows(value_sums, weights, d_outs);
        add_weighted_rows(key_sums, d_scores, queries);
        finish_products(value_sums, key_sums);
        head = next_head;
        first = next;
    }
    wait_for_copies<0>();  // the tiles of keys and values are written to now, even if no query has waited for them
    key_sums.scale(scale);
    write_rows(key_sums, key_tile, rows_of(d_key, d_key_batch, d_key_row, batch, group, shape.S), begin);
    write_rows(value_sums, value_tile, rows_of(d_value, d_value_batch, d_value_row, batch, group, shape.S), begin);
}

// d_query (B, T, H D): a block has some queries of one head, and takes the keys tile by tile. A multiprocessor's
// registers suffice for three blocks.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    flash_backward_queries(const bfloat16* query, const bfloat16* key, const bfloat16* value, const long long* starts,
                           const bfloat16* d_out, const float* log2_sums, const float* minus_delta, bfloat16* d_query,
                           long long T, long long S, long long heads, long long shared, long long causal,
                           long long window, long long query_batch, long long query_row, long long key_batch,
                           long long key_row, long long value_batch, long long value_row, float scale,
                           long long d_query_batch, long long d_query_row) {
    constexpr int M = QUERIES_OF_BLOCK / (16 * WARPS), N = KEYS_OF_TILE / 8;
    const Shape shape = shape_of(T, S, heads, shared, causal, window, starts, blockIdx.z);
    DYNAMIC_SHARED(memory);
    const Tile<QUERIES_OF_BLOCK> query_tile{reinterpret_cast<bfloat16*>(memory)}, d_out_tile{query_tile.behind(1)};
    const Tile<KEYS_OF_TILE> key_tiles{d_out_tile.behind(1)}, value_tiles{key_tiles.behind(2)};  // two of each
    int* first_keys_here = reinterpret_cast<int*>(value_tiles.behind(2));  // of the block's queries
    float* log2_sums_here = reinterpret_cast<float*>(first_keys_here + QUERIES_OF_BLOCK);
    float* minus_delta_here = log2_sums_here + QUERIES_OF_BLOCK;

    const int begin = (gridDim.x - 1 - blockIdx.x) * QUERIES_OF_BLOCK, head = blockIdx.y, batch = blockIdx.z;
    const auto keys = rows_of(key, key_batch, key_row, batch, head / shape.shared, shape.S);
    const auto values = rows_of(value, value_batch, value_row, batch, head / shape.shared, shape.S);
    const FirstKeys<QUERIES_OF_BLOCK> first_keys(shape, begin, first_keys_here);
    const int first_tile = first_keys.least / KEYS_OF_TILE;
    const int end_tile = (shape.end_of_keys(begin + QUERIES_OF_BLOCK) + KEYS_OF_TILE - 1) / KEYS_OF_TILE;
    const auto fetch_tile = [&](int tile, int stage) {
        fetch(key_tiles.at(stage), keys, tile * KEYS_OF_TILE);
        fetch(value_tiles.at(stage), values, tile * KEYS_OF_TILE);
    };

    fetch(query_tile, rows_of(query, query_batch, query_row, batch, head, shape.T), begin);
    fetch(d_out_tile, rows_of(d_out, T * heads * D, heads * D, batch, head, shape.T), begin);
    const int place = (batch * shape.heads + head) * shape.T + begin;
    fetch_numbers<QUERIES_OF_BLOCK>(log2_sums_here, log2_sums + place, shape.T - begin);
    fetch_numbers<QUERIES_OF_BLOCK>(minus_delta_here, minus_delta + place, shape.T - begin);
    fetch_tile(first_tile, 0);
    end_group_of_copies();
    Sums<M, D / 8> sums;
    for (int tile = first_tile, stage = 0; tile < end_tile; ++tile, stage ^= 1) {
        receive_copies();
        __syncthreads();  // all have copied this tile and have read the one whose place the next takes
        if (tile + 1 < end_tile) fetch_tile(tile + 1, stage ^ 1);
        end_group_of_copies();
        const int first_key = tile * KEYS_OF_TILE;
        Sums<M, N> weights, d_scores;
        d_scores.each([&](float& sum, int m, int, int i) { sum = minus_delta_here[d_scores.row(m, i)]; });
        add_products_of_rows(weights, query_tile, key_tiles.at(stage));
        add_products_of_rows(d_scores, d_out_tile, value_tiles.at(stage));
        finish_products(weights, d_scores);
        if (!shape.all_see(begin, QUERIES_OF_BLOCK, first_key, KEYS_OF_TILE, first_keys.greatest))
            weights.each([&](float& score, int m, int n, int i) {
                const int row = weights.row(m, i), key = first_key + weights.column(n, i);
                if (!shape.sees(begin + row, key, first_keys.of[row])) score = LOWEST;
            });
        weights.each([&](float& weight, int m, int n, int i) {
            weight = exp2f(weight * (scale * LOG2_E) - log2_sums_here[weights.row(m, i)]);
            d_scores.at[m][n][i] *= weight;
        });
        add_weighted_rows(sums, d_scores, key_tiles.at(stage));
        finish_products(sums);
    }
    sums.scale(scale);
    write_rows(sums, query_tile, rows_of(d_query, d_query_batch, d_query_row, batch, head, shape.T), begin);
}
