// Tiles of rows in shared memory, and a warp's products of them. A row has D elements of bfloat16, in pieces of 16
// bytes: piece p of row r lies at place p ^ (r % 8), so that the eight rows of a matrix that `load_matrices` reads at
// once lie in different banks (swizzling).

#include "tensor_cores.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARP * WARPS;
constexpr int PIECES = D / 8;
constexpr int ROWS_AT_ONCE = THREADS / PIECES;  // of which the threads of a block have a piece each

// Rows of D elements in global memory, `stride` elements apart.
template <typename T> struct Rows {
    T* first;
    long long stride;
    int count;
};

// The piece comes last, so that a loop over pieces of one row changes bits of an offset that it computes once.
__device__ inline bfloat16* piece_of(bfloat16* tile, int row, int piece) {
    return tile + ((row * D + 8 * (row % 8)) ^ 8 * piece);
}

// Begin to copy N rows, from row `begin` on, to a tile; rows that are not there become zeros. A thread copies the same
// piece of rows that are whole groups of eight apart, so all lie in the same place of their rows.
template <int N> __device__ inline void fetch(bfloat16* tile, const Rows<const bfloat16>& rows, int begin) {
    static_assert(N % ROWS_AT_ONCE == 0 && ROWS_AT_ONCE % 8 == 0);
    const int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    bfloat16* to = piece_of(tile, row, piece);
    const bfloat16* from = rows.first + (begin + row) * rows.stride + 8 * piece;
    if (begin + N <= rows.count) {
#pragma unroll
        for (int i = 0; i < N; i += ROWS_AT_ONCE) copy_async(to + i * D, from + i * rows.stride);
    } else {
#pragma unroll 1
        for (int i = 0; i < N; i += ROWS_AT_ONCE) {
            const bool there = begin + row + i < rows.count;
            copy_async(to + i * D, there ? from + i * rows.stride : rows.first, there);
        }
    }
}

// Begin to copy N numbers, at most one a thread; those from the `count`th on become zeros.
template <int N, typename Number> __device__ inline void fetch_numbers(Number* to, const Number* from, int count) {
    static_assert(N <= THREADS);
    const int i = threadIdx.x;
    if (i < N) copy_number_async(to + i, i < count ? from + i : from, i < count);
}

// Rows `row`, a multiple of eight, to `row` + 15 and channels 16 k to 16 k + 15, as the left factor.
__device__ inline Fragment left_fragment(bfloat16* tile, int row, int k) {
    const int lane = threadIdx.x % WARP;
    return load_matrices(piece_of(tile + row * D, lane % 16, 2 * k ^ lane / 16));
}

// The same part as the right factor, transposed: its rows are columns there, eight for each half of the pairs.
__device__ inline Fragment right_fragment_of_rows(bfloat16* tile, int row, int k) {
    const int lane = threadIdx.x % WARP;
    return load_matrices(piece_of(tile + row * D, lane % 8 + lane / 16 * 8, 2 * k ^ lane / 8 % 2));
}

// The same part as the right factor, as it is: its channels are columns there, eight for each half of the pairs.
__device__ inline Fragment right_fragment(bfloat16* tile, int row, int k) {
    const int lane = threadIdx.x % WARP;
    return load_transposed(piece_of(tile + row * D, lane % 16, 2 * k ^ lane / 16));
}

// The 16 M rows that a warp has of a product with 8 N columns: sums as `multiply` leaves them.
template <int M, int N> struct Sums {
    float at[M][N][4] = {};

    // Which row and column of its warp's part this lane's number i of tile (m, n) is.
    __device__ static int row(int m, int i) { return 16 * m + threadIdx.x % WARP / 4 + 8 * (i / 2); }
    __device__ static int column(int n, int i) { return 8 * n + 2 * (threadIdx.x % 4) + i % 2; }

    // Rounded, as the left factor of a further product: its columns 16 k to 16 k + 15.
    __device__ Fragment rounded(int m, int k) const {
        const float(&first)[4] = at[m][2 * k], (&second)[4] = at[m][2 * k + 1];
        return {{pair(first[0], first[1]), pair(first[2], first[3]),  //
                 pair(second[0], second[1]), pair(second[2], second[3])}};
    }

    // Call visit(number, m, n, i) for each number of this lane.
    template <typename Visit> __device__ void each(Visit visit) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) visit(at[m][n][i], m, n, i);
    }

    __device__ void scale(float factor) {
        each([factor](float& x, int, int, int) { x *= factor; });
    }
};

// The left factor of `add_products_of_rows`: a tile's rows from `first` on, each fragment loaded when it is needed.
__device__ inline auto fragments_of(bfloat16* tile, int first) {
    return [=](int m, int k) { return left_fragment(tile, first + 16 * m, k); };
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

// sums += left @ right.T over the channels: left(m, k) are fragments of 16 M rows, `right` is a tile of 8 N rows.
template <int M, int N, typename Left>
__device__ inline void add_products_of_rows(Sums<M, N>& sums, Left left, bfloat16* right) {
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        Fragment rows[M];
#pragma unroll
        for (int m = 0; m < M; ++m) rows[m] = left(m, k);
#pragma unroll
        for (int n = 0; n < N / 2; ++n) add_product(sums, rows, n, right_fragment_of_rows(right, 16 * n, k));
    }
}

// sums (16 M x D) += weights (16 M x 8 N), rounded, @ a tile of 8 N rows.
template <int M, int N>
__device__ inline void add_weighted_rows(Sums<M, D / 8>& sums, const Sums<M, N>& weights, bfloat16* tile) {
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
        Fragment rows[M];
#pragma unroll
        for (int m = 0; m < M; ++m) rows[m] = weights.rounded(m, k);
#pragma unroll
        for (int n = 0; n < D / 16; ++n) add_product(sums, rows, n, right_fragment(tile, 16 * k, n));
    }
}

// Write a block's sums, rounded, to rows from `begin` on, by way of a tile: so that a row is written in 16-byte pieces.
template <int M>
__device__ inline void write_rows(Sums<M, D / 8>& sums, bfloat16* tile, const Rows<bfloat16>& rows, int begin) {
    constexpr int N = 16 * M * WARPS;
    const int first = threadIdx.x / WARP * 16 * M;
    __syncthreads();  // the tile may still be read
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < D / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                bfloat16* place = piece_of(tile, first + sums.row(m, i), n) + sums.column(0, i);
                *reinterpret_cast<unsigned int*>(place) = pair(sums.at[m][n][i], sums.at[m][n][i + 1]);
            }
    __syncthreads();
    for (int i = threadIdx.x; i < N * PIECES; i += THREADS) {
        const int row = begin + i / PIECES, piece = i % PIECES;
        if (row < rows.count)
            *reinterpret_cast<Vector<8, bfloat16>*>(rows.first + row * rows.stride + 8 * piece) =
                *reinterpret_cast<const Vector<8, bfloat16>*>(piece_of(tile, i / PIECES, piece));
    }
}
