// optim.clipping.norm_and_scale, over the flat buffer of all gradients. Both numbers stay on the device.

template <int W> __device__ float share_of_squares(const float* gradient, long long size) {
    float values[W], sum = 0;
    const long long stride = gridDim.x * static_cast<long long>(blockDim.x) * W;
    for (long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W; i < size; i += stride) {
        load<W>(gradient + i, values);
        for (int w = 0; w < W; ++w) sum += values[w] * values[w];
    }
    return sum;
}

// gradient (size) -> partial (blocks): each block's sum of squares.
extern "C" __global__ void square_sums(const float* gradient, float* partial, long long size, long long wide) {
    __shared__ float sums[WARP];
    const float own = wide ? share_of_squares<WIDE>(gradient, size) : share_of_squares<1>(gradient, size);
    const float sum = block_sum(own, sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// partial (count) -> norm, the root of their sum, and the scale that takes a gradient to the norm `limit` if its own is
// larger: else 1, and NaN for a norm that is not finite. One block.
extern "C" __global__ void norm_and_scale(const float* partial, float* norm, float* scale, long long count,
                                          float limit) {
    __shared__ float sums[WARP];
    float sum = 0;
    for (long long i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x > 0) return;
    const float root = sqrtf(sum), nothing = __uint_as_float(0x7fc00000);
    *norm = root;
    *scale = !(root <= -LOWEST) ? nothing : root > limit ? limit / root : 1;
}
