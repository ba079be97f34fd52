// ops.rotary: heads (N, D), N counted over batch, positions and heads. Those of a position lie side by side; x may
// be a slice, whose positions are `x_row` elements apart. A warp has one head or, where a lane takes WIDE pairs of
// channels at once, as many as that leaves lanes for. The sums of the norm are a whole warp's for each head, in the
// same order either way.

constexpr int WARPS = 8;

// Where head n begins in an array whose positions are `row` elements apart.
__device__ long long head_at(long long n, long long heads, long long D, long long row) {
    return n / heads * row + n % heads * D;
}

// Which of N heads are a warp's, and which lanes have a head.
template <int W> struct Heads {
    int lane, lanes;       // of a head
    long long begin, end;  // of the warp
    long long n;           // the lane's head, which may be N or more

    __device__ Heads(long long N, long long D) {
        lanes = W == 1 ? WARP : min(static_cast<int>(D / 2 / W), WARP);
        lane = threadIdx.x % WARP % lanes;
        begin = (blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP) * (WARP / lanes);
        n = begin + threadIdx.x % WARP / lanes;
        end = min(begin + WARP / lanes, N);
    }
};

template <int W>
__device__ void rotate(const REAL* x, const REAL* gain, const float* cosine, const float* sine, REAL* out,
                       float* inverse_rms, long long N, long long T, long long heads, long long D, long long x_row,
                       float epsilon, float rms) {
    const Heads<W> of(N, D);
    const int half = D / 2;
    float scale = 1;
    for (long long n = of.begin; rms && n < of.end; ++n) {
        const REAL* head = x + head_at(n, heads, D, x_row);
        float square = 0;
        for (int d = threadIdx.x % WARP; d < D; d += WARP) square += to_float(head[d]) * to_float(head[d]);
        const float inverse = rsqrtf(warp_sum(square) / D + epsilon);
        if (n == of.n && of.lane == 0) inverse_rms[n] = inverse;
        if (n == of.n) scale = rms * inverse;
    }
    if (of.n >= N) return;
    const long long t = of.n / heads % T;
    x += head_at(of.n, heads, D, x_row), out += of.n * D, cosine += t * half, sine += t * half;
    float first[W], second[W], gain_first[W], gain_second[W], c[W], s[W];
    for (int d = of.lane * W; d < half; d += of.lanes * W) {
        load<W>(x + d, first), load<W>(x + d + half, second), load<W>(cosine + d, c), load<W>(sine + d, s);
        if (gain) load<W>(gain + d, gain_first), load<W>(gain + d + half, gain_second);
        for (int w = 0; w < W; ++w) {
            float a = first[w] * scale, b = second[w] * scale;
            if (gain) a *= gain_first[w], b *= gain_second[w];
            first[w] = a * c[w] - b * s[w];
            second[w] = a * s[w] + b * c[w];
        }
        store<W>(out + d, first), store<W>(out + d + half, second);
    }
}

// Rotate x by the angles of its position. Before that, unless `rms` is 0, each head is scaled to that root mean square,
// and unless `gain` (D) is null, its channels are multiplied by it.
// cosine and sine (T, D / 2) -> out. The head's 1 / root mean square is saved in `inverse_rms` (N).
extern "C" __global__ void rotary(const REAL* x, const REAL* gain, const float* cosine, const float* sine, REAL* out,
                                  float* inverse_rms, long long N, long long T, long long heads, long long D,
                                  long long x_row, long long wide, float epsilon, float rms) {
    if (wide)
        rotate<WIDE>(x, gain, cosine, sine, out, inverse_rms, N, T, heads, D, x_row, epsilon, rms);
    else
        rotate<1>(x, gain, cosine, sine, out, inverse_rms, N, T, heads, D, x_row, epsilon, rms);
}

// The gradients of W pairs of a head from pair d on, rotated back and times the gain, which may be null.
template <int W>
__device__ void turn_back(const REAL* d_out, const REAL* gain, const float* cosine, const float* sine, int d, int half,
                          float (&d_first)[W], float (&d_second)[W]) {
    float first[W], second[W], c[W], s[W];
    load<W>(d_out + d, first), load<W>(d_out + d + half, second), load<W>(cosine + d, c), load<W>(sine + d, s);
    for (int w = 0; w < W; ++w) {
        d_first[w] = first[w] * c[w] + second[w] * s[w];
        d_second[w] = second[w] * c[w] - first[w] * s[w];
    }
    if (!gain) return;
    load<W>(gain + d, first), load<W>(gain + d + half, second);
    for (int w = 0; w < W; ++w) d_first[w] *= first[w], d_second[w] *= second[w];
}

template <int W>
__device__ void rotate_back(const REAL* x, const REAL* gain, const float* cosine, const float* sine,
                            const float* inverse_rms, REAL* d_x, long long N, long long T, long long heads,
                            long long D, long long x_row, long long d_x_row, float rms) {
    const Heads<W> of(N, D);
    const int half = D / 2;
    float along = 0;
    for (long long n = of.begin; rms && n < of.end; ++n) {
        const REAL* head = x + head_at(n, heads, D, x_row);
        const REAL* d_head = d_x + head_at(n, heads, D, d_x_row);
        const long long t = n / heads % T * half;
        float sum = 0, d_first[1], d_second[1];
        for (int d = threadIdx.x % WARP; d < half; d += WARP) {
            turn_back<1>(d_head, gain, cosine + t, sine + t, d, half, d_first, d_second);
            sum += d_first[0] * to_float(head[d]) + d_second[0] * to_float(head[d + half]);
        }
        sum = warp_sum(sum);
        if (n == of.n) along = sum * inverse_rms[n] * inverse_rms[n] / D;
    }
    if (of.n >= N) return;
    const float scale = rms ? rms * inverse_rms[of.n] : 1;
    const long long t = of.n / heads % T * half;
    x += head_at(of.n, heads, D, x_row), d_x += head_at(of.n, heads, D, d_x_row), cosine += t, sine += t;
    float first[W], second[W], d_first[W], d_second[W];
    for (int d = of.lane * W; d < half; d += of.lanes * W) {
        turn_back<W>(d_x, gain, cosine, sine, d, half, d_first, d_second);
        if (rms) load<W>(x + d, first), load<W>(x + d + half, second);
        for (int w = 0; w < W; ++w) {
            d_first[w] = scale * (d_first[w] - (rms ? along * first[w] : 0));
            d_second[w] = scale * (d_second[w] - (rms ? along * second[w] : 0));
        }
        store<W>(d_x + d, d_first), store<W>(d_x + d + half, d_second);
    }
}

// d_x holds d_out, which is rotated back and times the gain; with `rms`, minus its component along the head, as in
// rmsnorm. A warp has summed over its heads before it overwrites them. d_x may be a slice as x may.
extern "C" __global__ void rotary_backward(const REAL* x, const REAL* gain, const float* cosine, const float* sine,
                                           const float* inverse_rms, REAL* d_x, long long N, long long T,
                                           long long heads, long long D, long long x_row, long long d_x_row,
                                           long long wide, float rms) {
    if (wide)
        rotate_back<WIDE>(x, gain, cosine, sine, inverse_rms, d_x, N, T, heads, D, x_row, d_x_row, rms);
    else
        rotate_back<1>(x, gain, cosine, sine, inverse_rms, d_x, N, T, heads, D, x_row, d_x_row, rms);
}

// The sums over heads that are the gain's gradient, for the heads of one chunk each: partial (chunks, D). One pair per
// thread; add_chunks adds up the chunks.
extern "C" __global__ void rotary_backward_gain(const REAL* x, const float* cosine, const float* sine,
                                                const float* inverse_rms, const REAL* d_out, float* partial,
                                                long long N, long long T, long long heads, long long D,
                                                long long x_row, long long d_out_row, float rms) {
    const int d = blockIdx.x * blockDim.x + threadIdx.x, half = D / 2;
    if (d >= half) return;
    float d_first[1], d_second[1], first = 0, second = 0;
    for (long long n = blockIdx.y; n < N; n += gridDim.y) {
        const long long t = n / heads % T * half;
        const float scale = rms ? rms * inverse_rms[n] : 1;
        const REAL* d_head = d_out + head_at(n, heads, D, d_out_row);
        turn_back<1>(d_head, nullptr, cosine + t, sine + t, d, half, d_first, d_second);
        const REAL* head = x + head_at(n, heads, D, x_row);
        first += d_first[0] * to_float(head[d]) * scale;
        second += d_second[0] * to_float(head[d + half]) * scale;
    }
    partial[blockIdx.y * D + d] = first;
    partial[blockIdx.y * D + d + half] = second;
}
