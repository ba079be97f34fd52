// Keys and values of new tokens (B, T, C) -> the columns of a cache's rows (B, S, C) from *column on, or from the first.
// It is read from memory, so that a captured step writes to another column at each replay. Rows of all four have
// strides; C elements are contiguous.

template <int W>
__device__ void write_elements(const REAL* from, REAL* to, long long i, long long T, long long C, long long from_batch,
                               long long from_row, long long to_batch, long long to_row) {
    const long long batch = i / C / T, t = i / C % T, c = i % C;
    const Vector<W, REAL> x = load_vector<W>(from + batch * from_batch + t * from_row + c);
    *reinterpret_cast<Vector<W, REAL>*>(to + batch * to_batch + t * to_row + c) = x;
}

// Blocks of index y = 0 write keys, the others values.
extern "C" __global__ void write_columns(const REAL* key, const REAL* value, REAL* keys, REAL* values,
                                         const long long* column, long long size, long long T, long long C,
                                         long long key_batch, long long key_row, long long value_batch,
                                         long long value_row, long long keys_batch, long long keys_row,
                                         long long values_batch, long long values_row, long long wide) {
    const long long i = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * (wide ? WIDE : 1);
    if (i >= size) return;
    const bool second = blockIdx.y;
    const long long first = column ? *column : 0;
    const REAL* from = second ? value : key;
    REAL* to = second ? values + first * values_row : keys + first * keys_row;
    const long long from_batch = second ? value_batch : key_batch, from_row = second ? value_row : key_row;
    const long long to_batch = second ? values_batch : keys_batch, to_row = second ? values_row : keys_row;
    if (wide)
        write_elements<WIDE>(from, to, i, T, C, from_batch, from_row, to_batch, to_row);
    else
        write_elements<1>(from, to, i, T, C, from_batch, from_row, to_batch, to_row);
}
