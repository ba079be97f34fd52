// ops.embedding: rows of a table (V, C) for tokens, and the table's gradient, summed in a fixed order.

template <int W> __device__ void copy_row(const REAL* row, REAL* out, int C, bool known) {
    float values[W];
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        if (known) load<W>(row + c, values);
        for (int w = 0; w < W; ++w) values[w] = known ? values[w] : __uint_as_float(0x7fc00000);
        store<W>(out + c, values);
    }
}

// table (V, C), tokens (N) -> out (N, C), NaN for a token that is not in the table; -1 is its last. A block per token.
extern "C" __global__ void embedding(const REAL* table, const int* tokens, REAL* out, long long V, long long C,
                                     long long wide) {
    const long long n = blockIdx.x, token = tokens[n] < 0 ? tokens[n] + V : tokens[n];
    const bool known = 0 <= token && token < V;
    table += known ? token * C : 0, out += n * C;
    if (wide)
        copy_row<WIDE>(table, out, C, known);
    else
        copy_row<1>(table, out, C, known);
}

// Add the rows of d_out (N, C) to those of d_table (V, C) that they came from. `order` (N) sorts the tokens, stably; it
// is cut into chunks, one block for each. A run of equal tokens within a chunk is summed and written. If a run crosses a
// border, its part in a chunk goes to `heads` (chunks, C) if it began earlier, or to `tails` (chunks, C) if it begins
// here; the next kernel joins them. So a frequent token is spread over many blocks, and the order of additions is always
// the same.
constexpr int CHUNK = 32;

extern "C" __global__ void embedding_backward(const int* tokens, const long long* order, const REAL* d_out,
                                              float* d_table, float* heads, float* tails, long long N, long long C) {
    const long long begin = blockIdx.x * static_cast<long long>(CHUNK), end = min(begin + CHUNK, N);
    const long long before = begin > 0 ? tokens[order[begin - 1]] : -1, behind = end < N ? tokens[order[end]] : -1;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = 0;
        for (long long n = begin; n < end; ++n) {
            const long long token = tokens[order[n]];
            sum += to_float(d_out[order[n] * C + c]);
            if (n + 1 < end && tokens[order[n + 1]] == token) continue;
            const bool last = n + 1 == end;
            if (token == before)
                heads[blockIdx.x * C + c] = sum;  // the whole chunk, if the run continues after it too
            else if (last && token == behind)
                tails[blockIdx.x * C + c] = sum;
            else
                d_table[token * C + c] += sum;
            sum = 0;
        }
    }
}

extern "C" __global__ void embedding_backward_join(const int* tokens, const long long* order, const float* heads,
                                                   const float* tails, float* d_table, long long N, long long C) {
    const long long begin = blockIdx.x * static_cast<long long>(CHUNK), end = min(begin + CHUNK, N);
    const long long token = tokens[order[end - 1]];
    const bool came_before = begin > 0 && tokens[order[begin - 1]] == token, goes_on = end < N && tokens[order[end]] == token;
    if (came_before || !goes_on) return;  // no run that begins here crosses into the next chunk
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = tails[blockIdx.x * C + c];
        for (long long next = end, chunk = blockIdx.x + 1; next < N && tokens[order[next]] == token; next += CHUNK, ++chunk)
            sum += heads[chunk * C + c];
        d_table[token * C + c] += sum;
    }
}
