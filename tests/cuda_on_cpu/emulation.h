// CUDA's model of a program on the host: a grid of blocks of threads, shared memory, barriers, warp shuffles, atomics.
//
// Blocks run one after the other, in either order, as CUDA promises none. Each thread of a block is a fibre with a stack of its own; it runs until it waits, at
// a barrier or in a shuffle, and goes on when all it waits for have come. What CUDA leaves undefined is an error here:
// a barrier that some threads never reach, a shuffle with a lane that is not there, a load off its alignment.

#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
// One block runs at a time, so one copy of each variable is enough; the section is filled with NaNs before each block.
#define __shared__ static __attribute__((section("cuda_shared")))
#define CHECK(condition) \
    do { if (!(condition)) throw std::runtime_error("check failed: " #condition); } while (0)
// CUDA leaves undefined what a barrier does once threads have returned. GPUs let the others pass, as CuPy's kernels need.
#ifndef RETURNED_THREADS_ARRIVE
#define RETURNED_THREADS_ARRIVE false
#endif
#undef assert  // NVIDIA's compilers define it, and a GPU would spend time and registers on it: kernels use CHECK

extern "C" char __start_cuda_shared __attribute__((weak)), __stop_cuda_shared __attribute__((weak));

struct dim3 { unsigned int x = 1, y = 1, z = 1; };

namespace emulated {

constexpr int WARP = 32;
constexpr unsigned int WHOLE = ~0u;
constexpr size_t STACK = 64 << 10;
constexpr size_t SHARED_ALIGNMENT = 1024;  // as DYNAMIC_SHARED asks for
enum class Waits { nothing, barrier, warp, over };

struct Warp {
    uint64_t slots[2][WARP];  // two sets in turn, so that a fast lane does not overwrite what a slow one has yet to read
    unsigned int arrived[2] = {0, 0};
    unsigned int taken[2] = {0, 0};
};

struct Fibre {
    std::unique_ptr<char[]> stack{new char[STACK]};
    std::jmp_buf place;
    bool begun = false;
    Waits waits = Waits::nothing;
    int shuffles = 0;
    dim3 thread;
    int rank = 0;
};

inline dim3 grid, block, here;
inline std::vector<Fibre> fibres;  // kept from block to block: to make a context is slow
inline ucontext_t first_context;
inline std::vector<Warp> warps;
inline Fibre* current = nullptr;
inline std::jmp_buf scheduler;
inline std::string failure;
inline std::vector<char> dynamic_room;  // shared memory whose size a launch says
inline char* dynamic_memory = nullptr;
inline size_t dynamic_size = 0;
inline void (*body)(void*) = nullptr;
inline void* body_data = nullptr;

// Plain jumps between stacks: swapcontext would ask the kernel for the signal mask each time.
inline void leave() {
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

inline void begin() {
    while (true) {
        try {
            body(body_data);
        } catch (const std::exception& error) {
            if (failure.empty()) failure = error.what();
        }
        current->waits = Waits::over;
        leave();  // until the next block
    }
}

inline void resume(Fibre& fibre) {
    current = &fibre;
    fibre.waits = Waits::nothing;
    if (_setjmp(scheduler) == 0) {
        if (fibre.begun) _longjmp(fibre.place, 1);
        fibre.begun = true;
        getcontext(&first_context);
        first_context.uc_stack.ss_sp = fibre.stack.get();
        first_context.uc_stack.ss_size = STACK;
        first_context.uc_link = nullptr;
        makecontext(&first_context, begin, 0);
        setcontext(&first_context);
    }
}

inline bool ready(const Fibre& fibre) {
    if (fibre.waits == Waits::nothing) return true;
    if (fibre.waits != Waits::warp) return false;
    const Warp& warp = warps[fibre.rank / WARP];
    return warp.arrived[fibre.shuffles % 2] == WHOLE;
}

void begin_tensor_cores(int threads);
void end_tensor_cores();
void begin_wgmma(int threads);
void end_wgmma();

inline void run_block() {
    if (&__start_cuda_shared != &__stop_cuda_shared) std::memset(&__start_cuda_shared, 0xff, &__stop_cuda_shared - &__start_cuda_shared);
    std::fill(dynamic_room.begin(), dynamic_room.end(), '\xff');
    const int threads = block.x * block.y * block.z;
    begin_tensor_cores(threads);
    begin_wgmma(threads);
    if (fibres.size() != static_cast<size_t>(threads)) fibres = std::vector<Fibre>(threads);
    warps.assign((threads + WARP - 1) / WARP, Warp());
    for (int rank = 0; rank < threads; ++rank) {
        Fibre& fibre = fibres[rank];
        fibre.rank = rank;
        fibre.waits = Waits::nothing;
        fibre.shuffles = 0;
        fibre.thread = {rank % block.x, rank / block.x % block.y, rank / (block.x * block.y)};
    }
    const int count = warps.size();
    for (int round = here.x;; ++round) {
        bool moved = false;
        // A warp goes on to its next barrier before another begins, in one order and in the other: so that one runs far
        // ahead of the rest, and a barrier that is missing shows.
        for (int place = 0; place < count; ++place) {
            const int first = WARP * (round % 2 ? count - 1 - place : place);
            for (bool goes_on = true; goes_on;) {
                goes_on = false;
                for (int rank = first; rank < first + WARP && rank < threads; ++rank)
                    if (ready(fibres[rank])) {
                        resume(fibres[rank]);
                        moved = goes_on = true;
                        if (!failure.empty()) return;
                    }
            }
        }
        int over = 0, at_barrier = 0;
        for (const Fibre& fibre : fibres) {
            over += fibre.waits == Waits::over;
            at_barrier += fibre.waits == Waits::barrier;
        }
        if (over == threads) {
            end_tensor_cores();
            end_wgmma();
            return;
        }
        if (moved) continue;
        if (at_barrier && at_barrier + (RETURNED_THREADS_ARRIVE ? over : 0) == threads) {
            for (Fibre& fibre : fibres)
                if (fibre.waits == Waits::barrier) fibre.waits = Waits::nothing;
            continue;
        }
        failure = at_barrier ? "a barrier that not all threads of the block reach"
                             : "a warp's exchange that not all of its lanes reach";
        return;
    }
}

inline void run_grid(dim3 grid_size, dim3 block_size, size_t shared, bool last_first, void (*function)(void*), void* data) {
    grid = grid_size, block = block_size, body = function, body_data = data;
    dynamic_room.resize(shared + 2 * SHARED_ALIGNMENT);
    dynamic_memory = dynamic_room.data() + SHARED_ALIGNMENT - reinterpret_cast<uintptr_t>(dynamic_room.data()) % SHARED_ALIGNMENT;
    dynamic_size = shared;
    failure.clear();
    const unsigned int blocks = grid.x * grid.y * grid.z;
    for (unsigned int turn = 0; turn < blocks; ++turn) {
        const unsigned int place = last_first ? blocks - 1 - turn : turn;
        here = {place % grid.x, place / grid.x % grid.y, place / (grid.x * grid.y)};
        run_block();
        if (failure.empty()) continue;
        fibres.clear();  // some stopped half way
        return;
    }
}

// What lane `from` gives, once all lanes of the warp have given something.
template <typename T> T exchange(unsigned int mask, T value, int from) {
    static_assert(sizeof(T) <= 8);
    if (mask != WHOLE) throw std::runtime_error("an exchange of a part of a warp is not emulated");
    Warp& warp = warps[current->rank / WARP];
    const int lane = current->rank % WARP, turn = current->shuffles % 2;
    std::memcpy(&warp.slots[turn][lane], &value, sizeof value);
    warp.arrived[turn] |= 1u << lane;
    current->waits = Waits::warp;
    leave();
    T result;
    std::memcpy(&result, &warp.slots[turn][from % WARP], sizeof result);
    warp.taken[turn] |= 1u << lane;
    if (warp.taken[turn] == WHOLE) warp.arrived[turn] = warp.taken[turn] = 0;
    ++current->shuffles;
    return result;
}

}  // namespace emulated

#define threadIdx (emulated::current->thread)
#define blockIdx (emulated::here)
#define blockDim (emulated::block)
#define gridDim (emulated::grid)
#define warpSize (emulated::WARP)

inline void __syncthreads() {
    emulated::current->waits = emulated::Waits::barrier;
    emulated::leave();
}
inline void __syncwarp(unsigned int mask = emulated::WHOLE) { emulated::exchange(mask, 0, emulated::current->rank % 32); }
template <typename T> T __shfl_sync(unsigned int mask, T value, int lane) { return emulated::exchange(mask, value, lane); }
template <typename T> T __shfl_xor_sync(unsigned int mask, T value, int distance) {
    return emulated::exchange(mask, value, emulated::current->rank % 32 ^ distance);
}
template <typename T> T __shfl_down_sync(unsigned int mask, T value, int distance) {
    const int lane = emulated::current->rank % 32;
    return emulated::exchange(mask, value, lane + distance < 32 ? lane + distance : lane);
}
inline unsigned int __ballot_sync(unsigned int mask, bool said) {
    const unsigned int mine = said ? 1u << emulated::current->rank % 32 : 0u;
    unsigned int all = 0;
    for (int lane = 0; lane < 32; ++lane) all |= emulated::exchange(mask, mine, lane);
    return all;
}
inline bool __any_sync(unsigned int mask, bool said) { return __ballot_sync(mask, said) != 0; }

// Threads change places only where they wait, so these are atomic as they stand.
template <typename T> T atomicAdd(T* place, T value) { T old = *place; *place += value; return old; }
template <typename T> T atomicMax(T* place, T value) { T old = *place; if (value > old) *place = value; return old; }
inline unsigned int atomicCAS(unsigned int* place, unsigned int expected, unsigned int value) {
    unsigned int old = *place;
    if (old == expected) *place = value;
    return old;
}

inline float __uint_as_float(unsigned int bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline unsigned int __float_as_uint(float x) { unsigned int bits; std::memcpy(&bits, &x, 4); return bits; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float min(float a, float b) { return std::fmin(a, b); }  // of a number and a NaN, the number
inline float max(float a, float b) { return std::fmax(a, b); }
template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }
template <typename T> T __ldg(const T* place) { return *place; }

// A kernel's arguments as they come from Python: their addresses, and for each a letter, so that one of a wrong type is
// refused: p a pointer, f a float, q a 64-bit integer.
namespace emulated {
template <typename T> constexpr char letter() {
    return std::is_pointer_v<T> ? 'p' : std::is_same_v<T, float> ? 'f' : std::is_same_v<T, long long> ? 'q' : '?';
}
template <typename... A, size_t... I>
const char* call(void (*kernel)(A...), void** values, const char* letters, dim3 grid, dim3 block, size_t shared,
                 bool last_first, std::index_sequence<I...>) {
    if (std::string{letter<A>()...} != letters) {
        failure = "arguments " + std::string(letters) + " for a kernel that takes " + std::string{letter<A>()...};
        return failure.c_str();
    }
    auto bound = [&] { kernel(*static_cast<A*>(values[I])...); };
    run_grid(grid, block, shared, last_first, [](void* data) { (*static_cast<decltype(bound)*>(data))(); }, &bound);
    return failure.empty() ? nullptr : failure.c_str();
}
template <typename... A>
const char* call(void (*kernel)(A...), void** values, const char* letters, dim3 grid, dim3 block, size_t shared,
                 bool last_first) {
    return call(kernel, values, letters, grid, block, shared, last_first, std::index_sequence_for<A...>());
}
}  // namespace emulated

#include "tensor_cores.h"
#include "wgmma.h"
