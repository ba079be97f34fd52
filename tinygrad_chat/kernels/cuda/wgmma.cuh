// Products of a warpgroup, four warps, by wgmma: each function is one instruction, and all threads of a block of 128
// call it together. Only compute capability 9.0 has it: sm_90a. The facts are from the PTX ISA, "Asynchronous Warpgroup
// Level Matrix Instructions" (its matrix descriptors, and its memory consistency model for the fences), and from the
// comments in CUTLASS on descriptors (cute/arch/mma_sm90_desc.hpp) and canonical layouts
// (cute/atom/mma_traits_sm90_gmma.hpp). Never run on a GPU yet. The tests define the same for the host
// (tests/cuda_on_cpu/wgmma.h).

#ifdef __CUDACC__
// What this thread's copies have brought to shared memory, and it has waited for, is seen by products behind the next
// barrier: they read through a proxy of their own.
__device__ inline void show_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Registers written before are seen by the products that follow.
__device__ inline void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// The products that were begun since the last call are a group.
__device__ inline void end_group_of_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Wait until at most the N newest groups are not complete.
template <int N> __device__ inline void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Keeps the compiler from moving what it does to x to the other side.
__device__ inline void stay(float& x) { asm volatile("" : "+f"(x)::"memory"); }

#define FOUR(n) "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3])
#define SUMS_4 FOUR(0), FOUR(1), FOUR(2), FOUR(3)
#define SUMS_8 SUMS_4, FOUR(4), FOUR(5), FOUR(6), FOUR(7)
#define SUMS_16 SUMS_8, FOUR(8), FOUR(9), FOUR(10), FOUR(11), FOUR(12), FOUR(13), FOUR(14), FOUR(15)
#define REGISTERS_4 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define REGISTERS_8 REGISTERS_4 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_16 \
    REGISTERS_8 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
                ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// Begin sums (64 x 8 N) += left (64 x 16) @ right (16 x 8 N). Each warp has 16 rows of the sums, as `multiply` leaves
// them. Factors are in shared memory, given by descriptors; or left is in registers, a fragment of 16 rows in each
// warp. Left is stored row by row, right column by column or, if RIGHT_BY_ROWS, row by row. Only after
// `wait_for_products` may the sums be read and the registers of left be written.
template <bool RIGHT_BY_ROWS>
__device__ inline void begin_product(float (&sums)[4][4], unsigned long long left, unsigned long long right) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" REGISTERS_4 "}, %16, %17, 1, 1, 1, 0, %18;"
                 : SUMS_4 : "l"(left), "l"(right), "n"(int(RIGHT_BY_ROWS)) : "memory");
}
template <bool RIGHT_BY_ROWS>
__device__ inline void begin_product(float (&sums)[8][4], unsigned long long left, unsigned long long right) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_8 "}, %32, %33, 1, 1, 1, 0, %34;"
                 : SUMS_8 : "l"(left), "l"(right), "n"(int(RIGHT_BY_ROWS)) : "memory");
}
template <bool RIGHT_BY_ROWS>
__device__ inline void begin_product(float (&sums)[8][4], const Fragment& left, unsigned long long right) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_8
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, %37;"
                 : SUMS_8 : "r"(left.pairs[0]), "r"(left.pairs[1]), "r"(left.pairs[2]), "r"(left.pairs[3]), "l"(right),
                   "n"(int(RIGHT_BY_ROWS)) : "memory");
}
template <bool RIGHT_BY_ROWS>
__device__ inline void begin_product(float (&sums)[16][4], const Fragment& left, unsigned long long right) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGISTERS_16
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, %69;"
                 : SUMS_16 : "r"(left.pairs[0]), "r"(left.pairs[1]), "r"(left.pairs[2]), "r"(left.pairs[3]), "l"(right),
                   "n"(int(RIGHT_BY_ROWS)) : "memory");
}
#endif
