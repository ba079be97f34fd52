// CUDA's driver: modules of kernels that were compiled for the host, and their launches.

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "cubin.h"
#include "device.h"
#include "headers/entry.h"

using namespace device;

namespace {

constexpr int MAX_SHARED = 227 << 10;  // bytes

struct Function {
    std::string name;
    const emulated::Entry* entry;
    int max_shared = 48 << 10;  // bytes that a launch may ask for, until the kernel is told of more
};

CUmodule loaded(const std::string& cubin) {
    const std::string library = compiled_library(cubin);
    void* module = library.empty() ? nullptr : dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!module && !library.empty()) COMPLAIN("%s", dlerror());
    return static_cast<CUmodule>(module);
}

}  // namespace

extern "C" {

CUresult cuInit(unsigned int) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult error, const char** name) {
    *name = cudaGetErrorName(static_cast<cudaError_t>(error));
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char** text) { return cuGetErrorName(error, text); }

// There is one context.
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext* context) { return *context = reinterpret_cast<CUcontext>(1), CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }
CUresult cuStreamGetCtx(CUstream, CUcontext* context) { return cuCtxGetCurrent(context); }

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    LOCK;
    *module = loaded(static_cast<const char*>(image));
    return *module ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}
CUresult cuModuleLoad(CUmodule* module, const char* path) {
    std::ifstream file(path);
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    const std::string image{std::istreambuf_iterator<char>(file), {}};
    return cuModuleLoadData(module, image.c_str());
}
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    const void* entry = dlsym(module, ("entry_" + std::string(name)).c_str());
    if (!entry) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(new Function{name, static_cast<const emulated::Entry*>(entry)});
    return CUDA_SUCCESS;
}
CUresult cuModuleGetGlobal(CUdeviceptr* address, size_t* size, CUmodule module, const char* name) {
    void* const variable = dlsym(module, name);
    *address = reinterpret_cast<CUdeviceptr>(variable);
    if (size) *size = 0;
    return variable ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                 ? reinterpret_cast<Function*>(handle)->max_shared
             : attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024
                                                                    : 0;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value > MAX_SHARED) return CUDA_ERROR_INVALID_VALUE;
    reinterpret_cast<Function*>(handle)->max_shared = value;
    return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int, size_t) {
    return *blocks = 2, CUDA_SUCCESS;
}
CUresult cuOccupancyMaxPotentialBlockSize(int* blocks, int* threads, CUfunction, CUoccupancyB2DSize, size_t, int limit) {
    *blocks = 264, *threads = limit ? std::min(limit, 256) : 256;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction handle, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                        unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared,
                        CUstream stream, void** arguments, void** extra) {
    const Function& function = *reinterpret_cast<Function*>(handle);
    const emulated::Size grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
    const bool fits = grid_x && grid_y && grid_z && grid_y <= 65535 && grid_z <= 65535 &&
                      block_x * block_y * block_z <= 1024 && int(shared) <= function.max_shared;
    if (extra || !fits) {
        COMPLAIN("%s: a launch that no GPU takes: %u x %u x %u blocks of %u x %u x %u threads with %u bytes",
                 function.name.c_str(), grid_x, grid_y, grid_z, block_x, block_y, block_z, shared);
        return CUDA_ERROR_INVALID_VALUE;
    }
    static const bool traced = setting("CUPY_ON_CPU_TRACE", 0) > 1;
    if (traced) COMPLAIN("%s: %u x %u x %u blocks", function.name.c_str(), grid_x, grid_y, grid_z);
    std::vector<std::vector<char>> values;  // of the arguments, as they are now; a vector is aligned for any type
    for (int i = 0; i < function.entry->count; ++i) {
        const char* start = static_cast<char*>(arguments[i]);
        values.emplace_back(start, start + function.entry->sizes[i]);
    }
    const int error = submit(stream_of(stream), [=, &function] {
        std::vector<std::vector<char>> copies = values;  // a graph needs them again
        std::vector<void*> addresses;
        for (auto& copy : copies) addresses.push_back(copy.data());
        const char* failure = function.entry->run(addresses.data(), grid, block, shared);
        if (failure) COMPLAIN("%s: %s", function.name.c_str(), failure);
        return failure ? int(cudaErrorLaunchFailure) : 0;
    });
    return static_cast<CUresult>(error);
}
}
