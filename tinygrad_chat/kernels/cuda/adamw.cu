// optim.adamw.adamw_update, over the flat buffers of all parameters.

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
