// Products of tiles by mma.sync: each warp multiplies its rows.

// Of 64 M rows those that a warp has, as left factors: 16 rows of each 64, channels 16 k to 16 k + 15.
template <int N> __device__ inline Fragment left_fragment(const Tile<N>& tile, int m, int k) {
    const int lane = threadIdx.x % WARP, row = threadIdx.x / WARP * 16 + lane % 16;
    return load_matrices(tile.from(16 * WARPS * m).piece(row, 2 * k ^ lane / 16));
}

// Rows `row`, a multiple of eight, to `row` + 15 and channels 16 k to 16 k + 15 as the right factor, transposed: its
// rows are columns there, eight for each half of the pairs.
template <int N> __device__ inline Fragment right_fragment_of_rows(const Tile<N>& tile, int row, int k) {
    const int lane = threadIdx.x % WARP;
    return load_matrices(tile.from(row).piece(lane % 8 + lane / 16 * 8, 2 * k ^ lane / 8 % 2));
}

// The same part as the right factor, as it is: its channels are columns there, eight for each half of the pairs.
template <int N> __device__ inline Fragment right_fragment(const Tile<N>& tile, int row, int k) {
    const int lane = threadIdx.x % WARP;
    return load_transposed(tile.from(row).piece(lane % 16, 2 * k ^ lane / 16));
}

// The left factor of many products: the rows of a tile, kept in registers.
template <int M> struct KeptRows {
    Fragment at[M][D / 16];

    __device__ explicit KeptRows(const Tile<16 * WARPS * M>& tile) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int k = 0; k < D / 16; ++k) at[m][k] = left_fragment(tile, m, k);
    }
};

template <int M> __device__ inline Fragment left_fragment(const KeptRows<M>& rows, int m, int k) {
    return rows.at[m][k];
}

// Columns 16 n to 16 n + 15 of the sums += rows @ columns, over a depth of 16.
template <int M, int N>
__device__ inline void add_product(Sums<M, N>& sums, const Fragment (&rows)[M], int n, const Fragment& columns) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
        multiply(sums.at[m][2 * n], rows[m], columns.pairs[0], columns.pairs[1]);
        multiply(sums.at[m][2 * n + 1], rows[m], columns.pairs[2], columns.pairs[3]);
    }
}

// sums += left @ right.T over the channels: `left` are 64 M rows, in a tile or kept.
template <int M, int N, typename Left>
__device__ inline void add_products_of_rows(Sums<M, N>& sums, const Left& left, const Tile<8 * N>& right) {
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        Fragment rows[M];
#pragma unroll
        for (int m = 0; m < M; ++m) rows[m] = left_fragment(left, m, k);
#pragma unroll
        for (int n = 0; n < N / 2; ++n) add_product(sums, rows, n, right_fragment_of_rows(right, 16 * n, k));
    }
}

// sums (64 M x D) += weights (64 M x 8 N), rounded, @ tile (8 N x D).
template <int M, int N>
__device__ inline void add_weighted_rows(Sums<M, D / 8>& sums, const Sums<M, N>& weights, const Tile<8 * N>& tile) {
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
        Fragment rows[M];
#pragma unroll
        for (int m = 0; m < M; ++m) rows[m] = weights.rounded(m, k);
#pragma unroll
        for (int n = 0; n < D / 16; ++n) add_product(sums, rows, n, right_fragment(tile, 16 * k, n));
    }
}

// Wait for products that add to these sums: mma.sync has.
template <int M, int... N> __device__ inline void finish_products(Sums<M, N>&...) {}
