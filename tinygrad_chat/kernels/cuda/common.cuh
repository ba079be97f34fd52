// Shared by all kernels. REAL, the type of activations and compute weights, is set when they are compiled: float or
// bfloat16. Sums are floats, added in a deterministic order.

#ifndef CHECK  // only the tests, which run kernels on the host, define it; assert would run on a GPU, too
#define CHECK(condition)
#endif

struct bfloat16 {
    unsigned short bits;  // the upper half of a float
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bfloat16 x) { return __uint_as_float(static_cast<unsigned int>(x.bits) << 16); }

// The bits of the bfloat16 nearest to x, ties to even, and 0x7fff for every NaN: what the instruction in `pair`
// computes. Adding to the bits carries into the exponent, as it should, but would turn a NaN into a number.
__device__ inline unsigned int nearest_bfloat16(float x) {
    const unsigned int bits = __float_as_uint(x);
    return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff;
}

// Two numbers rounded to bfloat16, the first in the lower half.
__device__ inline unsigned int pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned int rounded;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(rounded) : "f"(second), "f"(first));
    return rounded;
#else
    return nearest_bfloat16(first) | nearest_bfloat16(second) << 16;
#endif
}

__device__ inline void round_to(float& out, float x) { out = x; }
__device__ inline void round_to(bfloat16& out, float x) { out.bits = static_cast<unsigned short>(pair(x, 0)); }

// W elements are loaded or stored at once: 16 bytes, or one element where rows are not aligned to that.
[[maybe_unused]] constexpr int WIDE = 16 / sizeof(REAL);

template <int W, typename T> struct alignas(W * sizeof(T)) Vector {
    T at[W];
};

template <int W> __device__ inline void round_to(Vector<W, float>& out, const float (&x)[W]) {
    for (int w = 0; w < W; ++w) out.at[w] = x[w];
}

template <int W> __device__ inline void round_to(Vector<W, bfloat16>& out, const float (&x)[W]) {
    for (int w = 0; w + 1 < W; w += 2) {
        const unsigned int both = pair(x[w], x[w + 1]);
        out.at[w].bits = static_cast<unsigned short>(both);
        out.at[w + 1].bits = static_cast<unsigned short>(both >> 16);
    }
    if (W % 2) round_to(out.at[W - 1], x[W - 1]);
}

template <int W, typename T> __device__ inline void load(const T* address, float (&out)[W]) {
    CHECK(reinterpret_cast<unsigned long long>(address) % sizeof(Vector<W, T>) == 0);
    const Vector<W, T> vector = *reinterpret_cast<const Vector<W, T>*>(address);
    for (int w = 0; w < W; ++w) out[w] = to_float(vector.at[w]);
}

template <int W, typename T> __device__ inline void store(T* address, const float (&x)[W]) {
    CHECK(reinterpret_cast<unsigned long long>(address) % sizeof(Vector<W, T>) == 0);
    Vector<W, T> vector;
    round_to(vector, x);
    *reinterpret_cast<Vector<W, T>*>(address) = vector;
}

// W elements as they lie in memory: to keep them in half the registers that floats would take, if they are bfloat16.
template <int W, typename T> __device__ inline Vector<W, T> load_vector(const T* address) {
    return *reinterpret_cast<const Vector<W, T>*>(address);
}

template <int W, typename T> __device__ inline void unpack(const Vector<W, T>& vector, float (&out)[W]) {
    for (int w = 0; w < W; ++w) out[w] = to_float(vector.at[w]);
}

// The initial value of a maximum: finite, so that minus infinity minus it is not NaN.
[[maybe_unused]] constexpr float LOWEST = -3.402823466e38f;
constexpr int WARP = 32;
constexpr unsigned int ALL = 0xffffffff;

__device__ inline float warp_sum(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL, x, distance);
    return x;
}

__device__ inline float warp_max(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x = max(x, __shfl_xor_sync(ALL, x, distance));
    return x;
}

// The sum over a block of whole warps, returned to every thread. `partial` has room for one number per warp.
__device__ inline float block_sum(float x, float* partial) {
    x = warp_sum(x);
    __syncthreads();  // an earlier sum may still be read
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0;
    for (int warp = 0; warp < blockDim.x / WARP; ++warp) sum += partial[warp];
    return sum;
}

__device__ inline float block_max(float x, float* partial) {
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = x;
    __syncthreads();
    float largest = partial[0];
    for (int warp = 1; warp < blockDim.x / WARP; ++warp) largest = max(largest, partial[warp]);
    return largest;
}

// As in the op: the exponential does not overflow, and small results keep full precision.
__device__ inline float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0 ? e : 1) / (1 + e);
}
