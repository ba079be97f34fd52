// Tiles of rows in shared memory, and a block's products of them: by mma.sync, each warp its rows, or, with WGMMA,
// by wgmma, all four warps together. A row has D elements of bfloat16, in pieces of 16 bytes. 64 channels of a row lie
// together, 128 bytes; those of all rows come before the next 64. Piece p of row r lies at place p ^ (r % 8), so that
// one piece of eight rows lies in all banks (swizzling), and where wgmma expects it.

#include "tensor_cores.cuh"
#ifdef WGMMA
#include "wgmma.cuh"
#endif

constexpr int WARPS = 4;
constexpr int THREADS = WARP * WARPS;
constexpr int PIECES = D / 8;
constexpr int TOGETHER = 64;  // channels
constexpr int ROWS_AT_ONCE = THREADS / PIECES;  // of which the threads of a block have a piece each

// Rows of D elements in global memory, `stride` elements apart.
template <typename T> struct Rows {
    T* first;
    long long stride;
    int count;
};

// N rows in shared memory.
template <int N> struct Tile {
    bfloat16* begin;

    // The piece comes last, so that a loop over pieces of one row changes bits of an offset that it computes once.
    __device__ bfloat16* piece(int row, int piece) const {
        return begin + piece / 8 * (N * TOGETHER) + ((row * TOGETHER + 8 * (row % 8)) ^ 8 * (piece % 8));
    }
    // From a row on, a multiple of eight.
    __device__ Tile from(int row) const { return {begin + row * TOGETHER}; }
    // Of several tiles, one behind the other.
    __device__ Tile at(int i) const { return {behind(i)}; }
    // The place behind so many tiles.
    __device__ bfloat16* behind(int tiles) const { return begin + tiles * N * D; }
};

// Begin to copy rows, from row `begin` on, to a tile; rows that are not there become zeros. A thread copies the same
// piece of rows that are whole groups of eight apart, so all lie in the same place of their rows.
template <int N> __device__ inline void fetch(const Tile<N>& tile, const Rows<const bfloat16>& rows, int begin) {
    static_assert(N % ROWS_AT_ONCE == 0 && ROWS_AT_ONCE % 8 == 0);
    const int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    bfloat16* to = tile.piece(row, piece);
    const bfloat16* from = rows.first + (begin + row) * rows.stride + 8 * piece;
    if (begin + N <= rows.count) {
#pragma unroll
        for (int i = 0; i < N; i += ROWS_AT_ONCE) copy_async(to + i * TOGETHER, from + i * rows.stride);
    } else {
#pragma unroll 1
        for (int i = 0; i < N; i += ROWS_AT_ONCE) {
            const bool there = begin + row + i < rows.count;
            copy_async(to + i * TOGETHER, there ? from + i * rows.stride : rows.first, there);
        }
    }
}

// Begin to copy N numbers, at most one a thread; those from the `count`th on become zeros.
template <int N, typename Number> __device__ inline void fetch_numbers(Number* to, const Number* from, int count) {
    static_assert(N <= THREADS);
    const int i = threadIdx.x;
    if (i < N) copy_number_async(to + i, i < count ? from + i : from, i < count);
}

// Wait until all copies that this thread has begun have arrived, so that products may read them behind a barrier.
__device__ inline void receive_copies() {
    wait_for_copies<0>();
#ifdef WGMMA
    show_copies();
#endif
}

// What a warp has of a product of 64 M rows with 8 N columns: 16 rows of each 64. Sums lie as `multiply` leaves them.
template <int M, int N> struct Sums {
    float at[M][N][4] = {};

    // Which row and column of the product this lane's number i of tile (m, n) is.
    __device__ static int row(int m, int i) {
        return 16 * WARPS * m + threadIdx.x / WARP * 16 + threadIdx.x % WARP / 4 + 8 * (i / 2);
    }
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

#ifdef WGMMA
#include "tiles_wgmma.cuh"
#else
#include "tiles_mma_sync.cuh"
#endif

// Write a block's sums, rounded, to rows from `begin` on, by way of a tile: so that a row is written in 16-byte pieces.
template <int M>
__device__ inline void write_rows(Sums<M, D / 8>& sums, const Tile<16 * WARPS * M>& tile, const Rows<bfloat16>& rows,
                                  int begin) {
    __syncthreads();  // the tile may still be read
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < D / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                bfloat16* place = tile.piece(sums.row(m, i), n) + sums.column(0, i);
                *reinterpret_cast<unsigned int*>(place) = pair(sums.at[m][n][i], sums.at[m][n][i + 1]);
            }
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * WARPS * M * PIECES; i += THREADS) {
        const int row = begin + i / PIECES, piece = i % PIECES;
        if (row < rows.count)
            *reinterpret_cast<Vector<8, bfloat16>*>(rows.first + row * rows.stride + 8 * piece) =
                *reinterpret_cast<const Vector<8, bfloat16>*>(tile.piece(i / PIECES, piece));
    }
}
