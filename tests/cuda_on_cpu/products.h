// Matrix products as cuBLAS computes them, on the host: matrices by columns, sums in float.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15;
constexpr int R_32F = 0, R_16BF = 14;

std::atomic<long long> ticks{0};  // of the device's clock, which counts products and not seconds

float read(const void* x, int type, long long i) {
    if (type == R_32F) return static_cast<const float*>(x)[i];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(x)[i]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// To ten bits behind the point, as a tensor core reads a float32.
float to_tf32(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value == value) bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

void write(void* x, int type, long long i, float value) {
    if (type == R_32F) {
        static_cast<float*>(x)[i] = value;
        return;
    }
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    static_cast<uint16_t*>(x)[i] = value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The sum over k is added in so many parts, each in order. The left factor is kept as floats, a row for each k, so that a
// column of the result is added up in vectors.
void multiply(bool transa, bool transb, long long m, long long n, long long k, float scale, const void* A, int Atype,
              long long lda, long long strideA, const void* B, int Btype, long long ldb, long long strideB, float kept,
              void* C, int Ctype, long long ldc, long long strideC, long long batch, bool tf32, int parts) {
    const auto factor = [tf32](float x) { return tf32 ? to_tf32(x) : x; };
    const long long length = (k + parts - 1) / parts;
    std::vector<float> left(k * m), part(m), sums(m);
    for (long long p = 0; p < batch; ++p) {
        for (long long l = 0; l < k; ++l)
            for (long long i = 0; i < m; ++i)
                left[l * m + i] = factor(read(A, Atype, p * strideA + (transa ? i * lda + l : l * lda + i)));
        for (long long j = 0; j < n; ++j) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (long long start = 0; start < k; start += length) {
                std::fill(part.begin(), part.end(), 0.0f);
                for (long long l = start; l < std::min(k, start + length); ++l) {
                    const float right = factor(read(B, Btype, p * strideB + (transb ? l * ldb + j : j * ldb + l)));
                    for (long long i = 0; i < m; ++i) part[i] += left[l * m + i] * right;
                }
                for (long long i = 0; i < m; ++i) sums[i] += part[i];
            }
            for (long long i = 0; i < m; ++i) {
                const long long place = p * strideC + j * ldc + i;
                write(C, Ctype, place, scale * sums[i] + (kept != 0 ? kept * read(C, Ctype, place) : 0));
            }
        }
    }
}

}  // namespace
