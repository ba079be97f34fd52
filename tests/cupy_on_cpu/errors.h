// How calls of the runtime end.

#pragma once

#include <cuda_runtime_api.h>

namespace device {

inline thread_local int last_error = 0;

// Keep the error for cudaGetLastError, and return it.
inline cudaError_t ended(int error) {
    last_error = error;
    return static_cast<cudaError_t>(error);
}

}  // namespace device
