// The five functions of cuBLAS that kernels/cuda/cublas.py calls, on the host: the same arguments, read as strictly as
// the library reads them. More strictly, a handle serves the thread that made it.

#include "products.h"

namespace {

struct Handle {
    bool workspace = false;
    const std::thread::id thread = std::this_thread::get_id();
};

std::atomic<int> handles{0};

// At once: it is device.py that captures products.
template <typename Work> int submit(void*, const Work& work) {
    work();
    return SUCCESS;
}

}  // namespace

extern "C" int cublasCreate_v2(void** handle) {
    *handle = new Handle();
    ++handles;
    return SUCCESS;
}

extern "C" int cublasDestroy_v2(void* handle) {
    delete static_cast<Handle*>(handle);
    --handles;
    return SUCCESS;
}

extern "C" int count_handles() { return handles; }

extern "C" int cublasSetStream_v2(void* handle, void*) {
    static_cast<Handle*>(handle)->workspace = false;  // as the library does
    return SUCCESS;
}

extern "C" int cublasSetWorkspace_v2(void* handle, void* place, size_t size) {
    if (reinterpret_cast<uintptr_t>(place) % 16 || size < 1 << 20) return INVALID_VALUE;
    static_cast<Handle*>(handle)->workspace = true;
    return SUCCESS;
}

extern "C" int cublasGemmStridedBatchedEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha,
                                          const void* A, int Atype, int lda, long long strideA, const void* B,
                                          int Btype, int ldb, long long strideB, const void* beta, void* C, int Ctype,
                                          int ldc, long long strideC, int batch, int compute, int) {
    if (!static_cast<Handle*>(handle)->workspace) return NOT_INITIALIZED;
    if (static_cast<Handle*>(handle)->thread != std::this_thread::get_id()) return EXECUTION_FAILED;
    if (compute != 68 && !(compute == 77 && Atype == R_32F)) return NOT_SUPPORTED;
    if (Atype != Btype || (Atype != R_32F && Atype != R_16BF) || (Ctype != Atype && Ctype != R_32F)) return NOT_SUPPORTED;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || ldc < m || lda < (transa ? k : m) || ldb < (transb ? n : k))
        return INVALID_VALUE;
    if (batch > 1 && strideC == 0) return INVALID_VALUE;
    multiply(transa, transb, m, n, k, *static_cast<const float*>(alpha), A, Atype, lda, strideA, B, Btype, ldb, strideB,
             *static_cast<const float*>(beta), C, Ctype, ldc, strideC, batch, compute == 77, 1);
    ticks += 4;
    return SUCCESS;
}
