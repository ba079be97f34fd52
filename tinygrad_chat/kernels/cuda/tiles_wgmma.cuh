// Products of tiles by wgmma: the four warps of a block multiply 64 rows at a time. Both factors stay in shared memory,
// but for weights.

constexpr int EIGHT_ROWS = 8 * TOGETHER * sizeof(bfloat16);  // bytes: what is swizzled alike, 1024

// A factor begins so many elements behind the beginning of a tile. How far its parts are apart is in units of 16 bytes:
// eight rows follow eight others after EIGHT_ROWS ("stride"), 64 channels follow 64 others after `halves` elements
// ("leading"). Where channels are the depth, of which a product takes 16, the latter is not used. Bits 49 to 51 are 0,
// as tiles begin at multiples of EIGHT_ROWS. What is known when this is compiled comes last: the rest is computed once.
__device__ inline unsigned long long descriptor(const bfloat16* tile, int behind, int halves) {
    constexpr unsigned long long SWIZZLED_BY_128_BYTES = 1ull << 62, EIGHT_ROWS_APART = EIGHT_ROWS / 16ull << 32;
    const unsigned long long place = (shared_address(tile) & 0x3ffff) / 16, halves_apart = halves / 8ull << 16;
    return place + (SWIZZLED_BY_128_BYTES | EIGHT_ROWS_APART | halves_apart) + behind / 8;
}

// Rows of a tile from `row` on, with channels 16 k to 16 k + 15 as the depth. Swizzling counts from addresses, so the
// next 16 channels of 64 are 32 bytes further.
template <int N> __device__ inline unsigned long long channels_of(const Tile<N>& tile, int row, int k) {
    constexpr int STEPS = TOGETHER / 16;
    return descriptor(tile.begin, k / STEPS * (N * TOGETHER) + row * TOGETHER + k % STEPS * 16, 8);
}

// All channels of a tile, with rows 16 k to 16 k + 15 as the depth.
template <int N> __device__ inline unsigned long long rows_of_tile(const Tile<N>& tile, int k) {
    return descriptor(tile.begin, 16 * k * TOGETHER, N * TOGETHER);
}

// The left factor of many products: it stays where it is.
template <int M> using KeptRows = Tile<16 * WARPS * M>;

// Before products that add to sums and read registers that were written before.
template <int M, int N> __device__ inline void begin_products(Sums<M, N>& sums) {
    sums.each([](float& x, int, int, int) { stay(x); });
    fence_products();
}

// Begin sums += left @ right.T over the channels.
template <int M, int N>
__device__ inline void add_products_of_rows(Sums<M, N>& sums, const Tile<16 * WARPS * M>& left,
                                            const Tile<8 * N>& right) {
    begin_products(sums);
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
#pragma unroll
        for (int m = 0; m < M; ++m)
            begin_product<false>(sums.at[m], channels_of(left, 16 * WARPS * m, k), channels_of(right, 0, k));
    end_group_of_products();
}

// Begin sums (64 M x D) += weights (64 M x 8 N), rounded, @ tile (8 N x D).
template <int M, int N>
__device__ inline void add_weighted_rows(Sums<M, D / 8>& sums, const Sums<M, N>& weights, const Tile<8 * N>& tile) {
    Fragment rows[M][N / 2];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int k = 0; k < N / 2; ++k) rows[m][k] = weights.rounded(m, k);
    begin_products(sums);
#pragma unroll
    for (int k = 0; k < N / 2; ++k)
#pragma unroll
        for (int m = 0; m < M; ++m) begin_product<true>(sums.at[m], rows[m][k], rows_of_tile(tile, k));
    end_group_of_products();
}

// Wait for all products: these sums, and no others, are what was begun.
template <int M, int... N> __device__ inline void finish_products(Sums<M, N>&... sums) {
    wait_for_products<0>();
    (sums.each([](float& x, int, int, int) { stay(x); }), ...);
}
