// cuBLAS and cublasLt: as much of them as CuPy and kernels/cuda/ call. Products are put on the handle's stream.

#include "products.h"

#include "device.h"

namespace {

struct Handle {
    const std::thread::id thread = std::this_thread::get_id();
    void* stream = nullptr;
    bool workspace = false;
    int math_mode = 0, pointer_mode = 0;
};

constexpr int R_64F = 1;

template <typename Work> int submit(void* stream, const Work& work) {
    return device::submit(device::stream_of(stream), work) ? EXECUTION_FAILED : SUCCESS;
}

Handle& handle_of(void* handle) { return *static_cast<Handle*>(handle); }

// A factor or the result: its address, type, columns' distance, and products' distance.
struct Matrix {
    const void* data;
    int type, leading;
    long long stride;
};

void multiply_doubles(bool transa, bool transb, int m, int n, int k, double scale, const double* A, int lda,
                      const double* B, int ldb, double kept, double* C, int ldc) {
    for (int j = 0; j < n; ++j)
        for (int i = 0; i < m; ++i) {
            double sum = 0;
            for (int l = 0; l < k; ++l)
                sum += (transa ? A[i * lda + l] : A[l * lda + i]) * (transb ? B[l * ldb + j] : B[j * ldb + l]);
            double& place = C[j * ldc + i];
            place = scale * sum + (kept != 0 ? kept * place : 0);
        }
}

int product(void* handle_address, int transa, int transb, int m, int n, int k, const void* alpha, Matrix A, Matrix B,
            const void* beta, Matrix C, int count, bool tf32) {
    const Handle& handle = handle_of(handle_address);
    if (m < 0 || n < 0 || k < 0 || count < 0 || C.leading < m || A.leading < (transa ? k : m) ||
        B.leading < (transb ? n : k) || (count > 1 && C.stride == 0))
        return INVALID_VALUE;
    if (handle.pointer_mode || A.type != B.type || (A.type != R_32F && A.type != R_16BF && A.type != R_64F))
        return NOT_SUPPORTED;
    if (handle.thread != std::this_thread::get_id()) COMPLAIN("a product by another thread's handle of cuBLAS");
    if (device::stream_of(handle.stream).captured && !handle.workspace)
        COMPLAIN("a product without a workspace of its own is captured");
    if (A.type == R_64F) {
        if (C.type != R_64F) return NOT_SUPPORTED;
        const double scale = *static_cast<const double*>(alpha), kept = *static_cast<const double*>(beta);
        return submit(handle.stream, [=] {
            for (int p = 0; p < count; ++p)
                multiply_doubles(transa, transb, m, n, k, scale, static_cast<const double*>(A.data) + p * A.stride,
                                 A.leading, static_cast<const double*>(B.data) + p * B.stride, B.leading, kept,
                                 static_cast<double*>(const_cast<void*>(C.data)) + p * C.stride, C.leading);
            return SUCCESS;
        });
    }
    if (C.type != A.type && C.type != R_32F) return NOT_SUPPORTED;
    const float scale = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
    return submit(handle.stream, [=] {
        multiply(transa, transb, m, n, k, scale, A.data, A.type, A.leading, A.stride, B.data, B.type, B.leading,
                 B.stride, kept, const_cast<void*>(C.data), C.type, C.leading, C.stride, count, tf32, 1);
        return SUCCESS;
    });
}

// A batch whose matrices lie anywhere: pointers to them lie on the device, and are read when the product is computed.
template <typename Number>
int products_of_pointers(void* handle, int transa, int transb, int m, int n, int k, const Number* alpha,
                         const Number* const* A, int lda, const Number* const* B, int ldb, const Number* beta,
                         Number* const* C, int ldc, int count) {
    const Number scale = *alpha, kept = *beta;
    return submit(handle_of(handle).stream, [=] {
        for (int p = 0; p < count; ++p) {
            if constexpr (sizeof(Number) == sizeof(double))
                multiply_doubles(transa, transb, m, n, k, scale, A[p], lda, B[p], ldb, kept, C[p], ldc);
            else
                multiply(transa, transb, m, n, k, scale, A[p], R_32F, lda, 0, B[p], R_32F, ldb, 0, kept, C[p], R_32F,
                         ldc, 0, 1, false, 1);
        }
        return SUCCESS;
    });
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** made) { return *made = new Handle, SUCCESS; }
int cublasDestroy_v2(void* handle) { return delete static_cast<Handle*>(handle), SUCCESS; }
int cublasGetVersion_v2(void*, int* version) { return *version = 120900, SUCCESS; }
int cublasSetStream_v2(void* handle, void* stream) {
    handle_of(handle).stream = stream;
    handle_of(handle).workspace = false;  // as the library does
    return SUCCESS;
}
int cublasGetStream_v2(void* handle, void** stream) { return *stream = handle_of(handle).stream, SUCCESS; }
int cublasSetWorkspace_v2(void* handle, void* place, size_t size) {
    if (reinterpret_cast<uintptr_t>(place) % 16 || size < 1 << 20) return INVALID_VALUE;
    return handle_of(handle).workspace = true, SUCCESS;
}
int cublasSetMathMode(void* handle, int mode) { return handle_of(handle).math_mode = mode, SUCCESS; }
int cublasGetMathMode(void* handle, int* mode) { return *mode = handle_of(handle).math_mode, SUCCESS; }
int cublasSetPointerMode_v2(void* handle, int mode) { return handle_of(handle).pointer_mode = mode, SUCCESS; }
int cublasGetPointerMode_v2(void* handle, int* mode) { return *mode = handle_of(handle).pointer_mode, SUCCESS; }

int cublasGemmStridedBatchedEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha,
                               const void* A, int Atype, int lda, long long strideA, const void* B, int Btype, int ldb,
                               long long strideB, const void* beta, void* C, int Ctype, int ldc, long long strideC,
                               int count, int compute, int) {
    return product(handle, transa, transb, m, n, k, alpha, {A, Atype, lda, strideA}, {B, Btype, ldb, strideB}, beta,
                   {C, Ctype, ldc, strideC}, count, compute == 77);
}
int cublasGemmEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* A, int Atype,
                 int lda, const void* B, int Btype, int ldb, const void* beta, void* C, int Ctype, int ldc, int compute,
                 int) {
    return product(handle, transa, transb, m, n, k, alpha, {A, Atype, lda, 0}, {B, Btype, ldb, 0}, beta,
                   {C, Ctype, ldc, 0}, 1, compute == 77);
}
int cublasSgemmEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* A, int Atype,
                  int lda, const void* B, int Btype, int ldb, const void* beta, void* C, int Ctype, int ldc) {
    return product(handle, transa, transb, m, n, k, alpha, {A, Atype, lda, 0}, {B, Btype, ldb, 0}, beta,
                   {C, Ctype, ldc, 0}, 1, false);
}
int cublasSgemm_v2(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* A, int lda,
                   const void* B, int ldb, const void* beta, void* C, int ldc) {
    return product(handle, transa, transb, m, n, k, alpha, {A, R_32F, lda, 0}, {B, R_32F, ldb, 0}, beta,
                   {C, R_32F, ldc, 0}, 1, false);
}
int cublasDgemm_v2(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* A, int lda,
                   const void* B, int ldb, const void* beta, void* C, int ldc) {
    return product(handle, transa, transb, m, n, k, alpha, {A, R_64F, lda, 0}, {B, R_64F, ldb, 0}, beta,
                   {C, R_64F, ldc, 0}, 1, false);
}
int cublasSgemmBatched(void* handle, int transa, int transb, int m, int n, int k, const float* alpha,
                       const float* const* A, int lda, const float* const* B, int ldb, const float* beta,
                       float* const* C, int ldc, int count) {
    return products_of_pointers(handle, transa, transb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc, count);
}
int cublasDgemmBatched(void* handle, int transa, int transb, int m, int n, int k, const double* alpha,
                       const double* const* A, int lda, const double* const* B, int ldb, const double* beta,
                       double* const* C, int ldc, int count) {
    return products_of_pointers(handle, transa, transb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc, count);
}
}

#include "cublas_lt.cpp"
