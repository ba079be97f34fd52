// Tensor cores and asynchronous copies: each function is one instruction, and all lanes of a warp call it together.
// Needs compute capability 8.0. The tests define the same for the host (tests/cuda_on_cpu/tensor_cores.h).

#ifdef __CUDACC__
// What a lane holds of a 16 x 16 matrix of bfloat16: four pairs of neighbours.
struct Fragment {
    unsigned int pairs[4];
};

#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

__device__ inline unsigned int shared_address(const void* place) {
    return static_cast<unsigned int>(__cvta_generic_to_shared(place));
}

// Copy 16 bytes to shared memory, or zeros unless `there`. They have arrived after `wait_for_copies` and a barrier.
__device__ inline void copy_async(void* to, const void* from, bool there = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 16 : 0) : "memory");
}

// Copy a number of 4 or 8 bytes likewise.
template <typename Number> __device__ inline void copy_number_async(Number* to, const Number* from, bool there = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from),
                 "n"(sizeof(Number)), "r"(there ? int(sizeof(Number)) : 0) : "memory");
}

// The copies that this thread has begun since the last call are a group.
__device__ inline void end_group_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until at most the N newest groups of this thread are still on their way.
template <int N> __device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Load four 8 x 8 matrices from shared memory. Lanes 8 i to 8 i + 7 pass the addresses of the rows of matrix i; lane l
// receives elements 2 (l % 4) and the next of row l / 4 of each, or of column l / 4 where they are transposed.
__device__ inline Fragment load_matrices(const void* row) {
    Fragment x;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.pairs[0]), "=r"(x.pairs[1]), "=r"(x.pairs[2]), "=r"(x.pairs[3]) : "r"(shared_address(row))
                 : "memory");
    return x;
}
__device__ inline Fragment load_transposed(const void* row) {
    Fragment x;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.pairs[0]), "=r"(x.pairs[1]), "=r"(x.pairs[2]), "=r"(x.pairs[3]) : "r"(shared_address(row))
                 : "memory");
    return x;
}

// sums (16 x 8) += left (16 x 16) @ right (16 x 8). Of the sums, lane l holds columns 2 (l % 4) and the next, first of
// row l / 4, then of row l / 4 + 8.
__device__ inline void multiply(float (&sums)[4], const Fragment& left, unsigned int right_0, unsigned int right_1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(left.pairs[0]), "r"(left.pairs[1]), "r"(left.pairs[2]), "r"(left.pairs[3]), "r"(right_0),
                   "r"(right_1));
}
#endif
