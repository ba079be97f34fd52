// Elementwise functions of one array: ops.gelu, ops.relu, ops.squared_relu; and of two: ops.swiglu, ops.add. Each
// thread processes W elements.

constexpr float GELU_SCALE = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float GELU_CUBIC = 0.044715f;

struct Gelu {
    static __device__ float value(float x) {
        return 0.5f * x * (1 + tanhf(GELU_SCALE * (x + GELU_CUBIC * x * x * x)));
    }
    static __device__ float slope(float x) {
        const float bounded = max(-10.0f, min(x, 10.0f));  // beyond, the slope is 0 or 1, and squares would overflow
        const float square = bounded * bounded, t = tanhf(GELU_SCALE * bounded * (1 + GELU_CUBIC * square));
        return 0.5f * (1 + t) + 0.5f * bounded * (1 - t * t) * GELU_SCALE * (1 + 3 * GELU_CUBIC * square);
    }
};

struct Relu {
    static __device__ float value(float x) { return x < 0 ? 0 : x; }
    static __device__ float slope(float x) { return x <= 0 ? 0 : 1; }
};

struct SquaredRelu {
    static __device__ float value(float x) { return x < 0 ? 0 : x * x; }
    static __device__ float slope(float x) { return x < 0 ? 0 : 2 * x; }
};

template <typename F, int W> __device__ void apply(const REAL* x, REAL* out, long long size) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (i >= size) return;
    float values[W];
    load<W>(x + i, values);
    for (int w = 0; w < W; ++w) values[w] = F::value(values[w]);
    store<W>(out + i, values);
}

template <typename F, int W>
__device__ void apply_backward(const REAL* x, const REAL* d_out, REAL* d_x, long long size) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (i >= size) return;
    float values[W], d[W];
    load<W>(x + i, values);
    load<W>(d_out + i, d);
    for (int w = 0; w < W; ++w) d[w] *= F::slope(values[w]);
    store<W>(d_x + i, d);
}

#define POINTWISE(name, F)                                                                                             \
    extern "C" __global__ void name(const REAL* x, REAL* out, long long size, long long wide) {                        \
        if (wide)                                                                                                      \
            apply<F, WIDE>(x, out, size);                                                                              \
        else                                                                                                           \
            apply<F, 1>(x, out, size);                                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void name##_backward(const REAL* x, const REAL* d_out, REAL* d_x, long long size,            \
                                               long long wide) {                                                       \
        if (wide)                                                                                                      \
            apply_backward<F, WIDE>(x, d_out, d_x, size);                                                              \
        else                                                                                                           \
            apply_backward<F, 1>(x, d_out, d_x, size);                                                                 \
    }

POINTWISE(gelu, Gelu)
POINTWISE(relu, Relu)
POINTWISE(squared_relu, SquaredRelu)

template <int W>
__device__ void open_gates(const REAL* gate, const REAL* up, REAL* out, long long N, long long C, long long gate_row,
                           long long up_row) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W, n = i / C, c = i % C;
    if (n >= N) return;
    float gates[W], values[W];
    load<W>(gate + n * gate_row + c, gates);
    load<W>(up + n * up_row + c, values);
    for (int w = 0; w < W; ++w) values[w] *= gates[w] * sigmoid(gates[w]);
    store<W>(out + i, values);
}

// out (N, C) = gate sigmoid(gate) up. Gate and up may be slices, whose rows are `gate_row` and `up_row` elements apart.
extern "C" __global__ void swiglu(const REAL* gate, const REAL* up, REAL* out, long long N, long long C,
                                  long long gate_row, long long up_row, long long wide) {
    if (wide)
        open_gates<WIDE>(gate, up, out, N, C, gate_row, up_row);
    else
        open_gates<1>(gate, up, out, N, C, gate_row, up_row);
}

template <int W>
__device__ void open_gates_backward(const REAL* gate, const REAL* up, const REAL* d_out, REAL* d_gate, REAL* d_up,
                                    long long N, long long C, long long gate_row, long long up_row,
                                    long long d_gate_row, long long d_up_row) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W, n = i / C, c = i % C;
    if (n >= N) return;
    float gates[W], values[W], d[W];
    load<W>(gate + n * gate_row + c, gates);
    load<W>(up + n * up_row + c, values);
    load<W>(d_out + i, d);
    for (int w = 0; w < W; ++w) {
        const float s = sigmoid(gates[w]);
        values[w] *= d[w] * s * (1 + gates[w] * (1 - s));
        d[w] *= gates[w] * s;
    }
    store<W>(d_gate + n * d_gate_row + c, values);
    store<W>(d_up + n * d_up_row + c, d);
}

// d_out (N, C) -> d_gate and d_up, which may be slices as gate and up may.
extern "C" __global__ void swiglu_backward(const REAL* gate, const REAL* up, const REAL* d_out, REAL* d_gate,
                                           REAL* d_up, long long N, long long C, long long gate_row, long long up_row,
                                           long long d_gate_row, long long d_up_row, long long wide) {
    if (wide)
        open_gates_backward<WIDE>(gate, up, d_out, d_gate, d_up, N, C, gate_row, up_row, d_gate_row, d_up_row);
    else
        open_gates_backward<1>(gate, up, d_out, d_gate, d_up, N, C, gate_row, up_row, d_gate_row, d_up_row);
}

template <int W> __device__ void add_elements(const REAL* x, const REAL* y, REAL* out, long long size, long long period) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * W;
    if (i >= size) return;
    float values[W], others[W];
    load<W>(x + i, values);
    load<W>(y + i % period, others);
    for (int w = 0; w < W; ++w) values[w] += others[w];
    store<W>(out + i, values);
}

// out = x + y, where y (period) is added to each consecutive piece of x (size) of that length.
extern "C" __global__ void add(const REAL* x, const REAL* y, REAL* out, long long size, long long period,
                               long long wide) {
    if (wide)
        add_elements<WIDE>(x, y, out, size, period);
    else
        add_elements<1>(x, y, out, size, period);
}
