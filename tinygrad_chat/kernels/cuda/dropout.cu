// ops.dropout: which elements are dropped is computed from the seed and their index, as in the op, and never stored.

// The index-th number of the sequence that starts at `seed` (SplitMix64: Steele, Lea and Flood, OOPSLA 2014), as 24 bits.
__device__ inline float draw(unsigned long long seed, unsigned long long index) {
    unsigned long long z = seed + (index + 1) * 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return ((z ^ z >> 31) >> 40) * (1.0f / (1 << 24));
}

template <int W>
__device__ void drop_elements(const REAL* x, REAL* out, unsigned long long seed, unsigned long long offset,
                              long long size, float rate, float scale) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (i >= size) return;
    float values[W];
    load<W>(x + i, values);
    for (int w = 0; w < W; ++w) values[w] = draw(seed, offset + i + w) >= rate ? values[w] * scale : 0;
    store<W>(out + i, values);
}

// x -> out, and the same in the backward pass: d_out -> d_x. `offset` elements of the whole array precede the first.
// Seed and offset, which change from step to step, are read from memory, so a step captured in a CUDA graph reads new
// ones.
extern "C" __global__ void dropout(const REAL* x, REAL* out, const unsigned long long* seed,
                                   const unsigned long long* offset, long long size, float rate, float scale,
                                   long long wide) {
    if (wide)
        drop_elements<WIDE>(x, out, *seed, *offset, size, rate, scale);
    else
        drop_elements<1>(x, out, *seed, *offset, size, rate, scale);
}
