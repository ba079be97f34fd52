// What CuPy's own kernels need beside the emulation, and what they all include.

#pragma once

#define RETURNED_THREADS_ARRIVE true
#include "emulation.h"

// NVIDIA's headers that declare what the emulation has are not read.
#define __CUDA_RUNTIME_H__
#define __CUDA_RUNTIME_API_H__

#define __align__(n) __attribute__((aligned(n)))
#define __constant__
#define __noinline__ __attribute__((noinline))

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

template <typename To, typename From> To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return same_bits<double>(x); }

inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline double max(double a, double b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }

inline int __popc(unsigned int x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

// Threads change places only where they wait.
inline void __threadfence() {}
template <typename T> T atomicExch(T* place, T value) {
    T old = *place;
    *place = value;
    return old;
}
template <typename T> T atomicMin(T* place, T value) {
    T old = *place;
    if (value < old) *place = value;
    return old;
}
template <typename T> T atomicCAS(T* place, T expected, T value) {
    T old = *place;
    if (old == expected) *place = value;
    return old;
}

// Here, to be compiled once for all kernels.
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
#include "kernels.h"
