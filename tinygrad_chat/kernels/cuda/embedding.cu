// ops.embedding: rows of a table (V, C) for tokens, and back, each row of the gradient by one block, in order.

template <int W> __device__ void copy_row(const REAL* row, REAL* out, int C, bool known) {
    float values[W];
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        if (known) load<W>(row + c, values);
        for (int w = 0; w < W; ++w) values[w] = known ? values[w] : __uint_as_float(0x7fc00000);
        store<W>(out + c, values);
    }
}

// table (V, C), tokens (N) -> out (N, C), NaN for a token that is not in the table; -1 is its last. A block a token.
extern "C" __global__ void embedding(const REAL* table, const long long* tokens, REAL* out, long long V, long long C,
                                     long long wide) {
    const long long n = blockIdx.x, token = tokens[n] < 0 ? tokens[n] + V : tokens[n];
    const bool known = 0 <= token && token < V;
    table += known ? token * C : 0, out += n * C;
    if (wide)
        copy_row<WIDE>(table, out, C, known);
    else
        copy_row<1>(table, out, C, known);
}

// Add the rows of d_out (N, C) to those of d_table (V, C) that they came from. `order` (N) is that of the tokens when
// they are sorted, equal ones as they come. The block at the first of equal tokens adds them all: the others leave.
extern "C" __global__ void embedding_backward(const long long* tokens, const long long* order, const REAL* d_out,
                                              float* d_table, long long N, long long V, long long C) {
    const long long first = blockIdx.x, token = tokens[order[first]];
    if (token < 0 || token >= V || (first > 0 && tokens[order[first - 1]] == token)) return;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = 0;
        for (long long n = first; n < N && tokens[order[n]] == token; ++n) sum += to_float(d_out[order[n] * C + c]);
        d_table[token * C + c] += sum;
    }
}
