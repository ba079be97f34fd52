// ops.rotary: heads (N, D), N counted over batch, positions and heads; one warp per head. Those of a position lie side by
// side; x may be a slice, whose positions are `x_row` elements apart.

constexpr int WARPS = 8;

// Rotate x by the angles of its position. Before that, unless `rms` is 0, each head is scaled to that root mean square,
// and unless `gain` (D) is null, its channels are multiplied by it.
// cosine and sine (T, D / 2) -> out. The head's 1 / root mean square is saved in `inverse_rms` (N).
extern "C" __global__ void rotary(const REAL* x, const REAL* gain, const float* cosine, const float* sine, REAL* out,
                                  float* inverse_rms, long long N, long long T, long long heads, long long D,
                                  long long x_row, float epsilon, float rms) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const int lane = threadIdx.x % WARP, half = D / 2;
    const long long t = n / heads % T;
    x += n / heads * x_row + n % heads * D, out += n * D, cosine += t * half, sine += t * half;
    float scale = 1;
    if (rms) {
        float square = 0;
        for (int d = lane; d < D; d += WARP) square += to_float(x[d]) * to_float(x[d]);
        const float inverse = rsqrtf(warp_sum(square) / D + epsilon);
        if (lane == 0) inverse_rms[n] = inverse;
        scale = rms * inverse;
    }
    for (int d = lane; d < half; d += WARP) {
        float first = to_float(x[d]) * scale, second = to_float(x[d + half]) * scale;
        if (gain) first *= to_float(gain[d]), second *= to_float(gain[d + half]);
        round_to(out[d], first * cosine[d] - second * sine[d]);
        round_to(out[d + half], first * sine[d] + second * cosine[d]);
    }
}

// The gradient of pair d of a head, rotated back and times the gain, which may be null.
__device__ void turn_back(const REAL* d_out, const REAL* gain, const float* cosine, const float* sine, int d, int half,
                          float& d_first, float& d_second) {
    const float first = to_float(d_out[d]), second = to_float(d_out[d + half]);
    d_first = first * cosine[d] + second * sine[d], d_second = second * cosine[d] - first * sine[d];
    if (gain) d_first *= to_float(gain[d]), d_second *= to_float(gain[d + half]);
}

// d_out -> d_x: rotated back and times the gain; with `rms`, minus its component along the head, as in rmsnorm.
extern "C" __global__ void rotary_backward(const REAL* x, const REAL* gain, const float* cosine, const float* sine,
                                           const float* inverse_rms, const REAL* d_out, REAL* d_x, long long N,
                                           long long T, long long heads, long long D, long long x_row, float rms) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const int lane = threadIdx.x % WARP, half = D / 2;
    const long long t = n / heads % T;
    x += n / heads * x_row + n % heads * D, d_out += n * D, d_x += n * D, cosine += t * half, sine += t * half;
    const float inverse = rms ? inverse_rms[n] : 1, scale = rms ? rms * inverse : 1;
    float along = 0, d_first, d_second;
    if (rms) {
        for (int d = lane; d < half; d += WARP) {
            turn_back(d_out, gain, cosine, sine, d, half, d_first, d_second);
            along += d_first * to_float(x[d]) + d_second * to_float(x[d + half]);
        }
        along = warp_sum(along) * inverse * inverse / D;
    }
    for (int d = lane; d < half; d += WARP) {
        turn_back(d_out, gain, cosine, sine, d, half, d_first, d_second);
        round_to(d_x[d], scale * (d_first - (rms ? along * to_float(x[d]) : 0)));
        round_to(d_x[d + half], scale * (d_second - (rms ? along * to_float(x[d + half]) : 0)));
    }
}

// The sums over heads that are the gain's gradient, for the heads of one chunk each: partial (chunks, D). One pair per
// thread; add_chunks adds up the chunks.
extern "C" __global__ void rotary_backward_gain(const REAL* x, const float* cosine, const float* sine,
                                                const float* inverse_rms, const REAL* d_out, float* partial,
                                                long long N, long long T, long long heads, long long D,
                                                long long x_row, float rms) {
    const int d = blockIdx.x * blockDim.x + threadIdx.x, half = D / 2;
    if (d >= half) return;
    float d_first, d_second, first = 0, second = 0;
    for (long long n = blockIdx.y; n < N; n += gridDim.y) {
        const long long t = n / heads % T * half;
        const float scale = rms ? rms * inverse_rms[n] : 1;
        turn_back(d_out + n * D, nullptr, cosine + t, sine + t, d, half, d_first, d_second);
        const REAL* head = x + n / heads * x_row + n % heads * D;
        first += d_first * to_float(head[d]) * scale;
        second += d_second * to_float(head[d + half]) * scale;
    }
    partial[blockIdx.y * D + d] = first;
    partial[blockIdx.y * D + d + half] = second;
}
