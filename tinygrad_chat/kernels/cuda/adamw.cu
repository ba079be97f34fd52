// optim.adamw.adamw_update and optim.clipping.norm_and_scale, over the flat buffers of all parameters. What they need
// to know about the gradient stays on the device.

struct Update {
    float shrink, rate, new_share, new_square_share, correction, epsilon, grad_scale;
};

template <int W>
__device__ void update_elements(float* data, const float* gradient, float* mean, float* square, REAL* copy, long long size,
                                long long decayed, const Update& by) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (i >= size) return;
    float x[W], g[W], m[W], s[W];
    load<W>(data + i, x);
    load<W>(gradient + i, g);
    load<W>(mean + i, m);
    load<W>(square + i, s);
    for (int w = 0; w < W; ++w) {
        g[w] *= by.grad_scale;
        m[w] += by.new_share * (g[w] - m[w]);
        s[w] = (1 - by.new_square_share) * s[w] + by.new_square_share * g[w] * g[w];
        const float kept = x[w] * (i + w < decayed ? by.shrink : 1.0f);
        x[w] = kept - by.rate * m[w] / (sqrtf(s[w]) * by.correction + by.epsilon);
    }
    store<W>(data + i, x);
    store<W>(mean + i, m);
    store<W>(square + i, s);
    if (copy) store<W>(copy + i, x);
}

// One pass; the first `decayed` weights decay. `copy`, unless null, receives the compute weights: rounded to REAL.
// The gradient counts times `grad_scale`, unless null; if that is not finite, nothing changes. The scalars, which
// change from step to step, are read from memory, so a step captured in a CUDA graph reads new ones.
extern "C" __global__ void adamw_update(float* data, const float* gradient, float* mean, float* square, REAL* copy,
                                        const float* grad_scale, const float* scalars, long long size,
                                        long long decayed, long long wide) {
    const float scale = grad_scale ? *grad_scale : 1;
    if (!(fabsf(scale) <= -LOWEST)) return;
    const Update by = {scalars[0], scalars[1], scalars[2], scalars[3], scalars[4], scalars[5], scale};
    if (wide)
        update_elements<WIDE>(data, gradient, mean, square, copy, size, decayed, by);
    else
        update_elements<1>(data, gradient, mean, square, copy, size, decayed, by);
}

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
