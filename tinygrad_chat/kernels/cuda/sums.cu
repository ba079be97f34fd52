// Sums over rows: the gradients of biases and of whatever was added to many rows. Always in the same order: each chunk
// of rows is summed, then the chunks are added.

template <int W> __device__ void sum_columns(const REAL* x, float* partial, long long N, long long C) {
    const long long c = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (c >= C) return;
    float values[W], sums[W] = {};
    for (long long n = blockIdx.y; n < N; n += gridDim.y) {
        load<W>(x + n * C + c, values);
        for (int w = 0; w < W; ++w) sums[w] += values[w];
    }
    store<W>(partial + blockIdx.y * C + c, sums);
}

// x (N, C) -> partial (chunks, C), where chunk y adds the rows y, y + chunks, y + 2 chunks, ... W columns per thread.
extern "C" __global__ void column_sums(const REAL* x, float* partial, long long N, long long C, long long wide) {
    if (wide)
        sum_columns<WIDE>(x, partial, N, C);
    else
        sum_columns<1>(x, partial, N, C);
}

// partial (chunks, C), whose rows are `partial_row` elements apart -> out (C)
extern "C" __global__ void add_chunks(const float* partial, float* out, long long chunks, long long C,
                                      long long partial_row) {
    const long long c = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
    if (c >= C) return;
    float sum = 0;
    for (long long chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * partial_row + c];
    out[c] = sum;
}
