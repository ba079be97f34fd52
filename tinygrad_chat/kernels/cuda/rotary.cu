// ops.rotary: heads (N, D), N counted over batch, positions and heads; a warp turns one.

constexpr int WARPS = 8;

// Turn x by its position's angles, or back, which is the rule backwards. With an `rms` other than 0, each head is
// given that root mean square.
// cosine and sine (T, D / 2) -> out. The head's 1 / root mean square is kept in `inverse_rms` (N).
extern "C" __global__ void rotary(const REAL* x, const float* cosine, const float* sine, REAL* out, float* inverse_rms,
                                  long long N, long long T, long long heads, long long D, float epsilon,
                                  float rms) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const int lane = threadIdx.x % WARP, half = D / 2;
    const long long t = n / heads % T;
    x += n * D, out += n * D, cosine += t * half, sine += t * half;
    float scale = 1;
    if (rms) {
        float square = 0;
        for (int d = lane; d < D; d += WARP) square += to_float(x[d]) * to_float(x[d]);
        const float inverse = rsqrtf(warp_sum(square) / D + epsilon);
        if (lane == 0) inverse_rms[n] = inverse;
        scale = rms * inverse;
    }
    for (int d = lane; d < half; d += WARP) {
        const float first = to_float(x[d]) * scale, second = to_float(x[d + half]) * scale;
        round_to(out[d], first * cosine[d] - second * sine[d]);
        round_to(out[d + half], first * sine[d] + second * cosine[d]);
    }
}

// d_out -> d_x: turned back; with `rms`, less its part along the head, which a norm takes away.
extern "C" __global__ void rotary_backward(const REAL* x, const float* cosine, const float* sine,
                                           const float* inverse_rms, const REAL* d_out, REAL* d_x, long long N,
                                           long long T, long long heads, long long D, float rms) {
    const long long n = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP;
    if (n >= N) return;
    const int lane = threadIdx.x % WARP, half = D / 2;
    const long long t = n / heads % T;
    x += n * D, d_out += n * D, d_x += n * D, cosine += t * half, sine += t * half;
    const float inverse = rms ? inverse_rms[n] : 1, scale = rms ? rms * inverse : 1;
    float along = 0;
    if (rms) {
        for (int d = lane; d < half; d += WARP) {
            const float first = to_float(d_out[d]), second = to_float(d_out[d + half]);
            along += (first * cosine[d] + second * sine[d]) * to_float(x[d]) +
                     (second * cosine[d] - first * sine[d]) * to_float(x[d + half]);
        }
        along = warp_sum(along) * inverse * inverse / D;
    }
    for (int d = lane; d < half; d += WARP) {
        const float first = to_float(d_out[d]), second = to_float(d_out[d + half]);
        const float d_first = first * cosine[d] + second * sine[d], d_second = second * cosine[d] - first * sine[d];
        round_to(d_x[d], scale * (d_first - (rms ? along * to_float(x[d]) : 0)));
        round_to(d_x[d + half], scale * (d_second - (rms ? along * to_float(x[d + half]) : 0)));
    }
}
