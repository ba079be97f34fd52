// CUDA's runtime: the device, its memory, copies, and errors.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "device.h"
#include "errors.h"

using namespace device;

namespace {

constexpr size_t ALIGNMENT = 512;  // of allocations
constexpr int KIB = 1 << 10, MIB = 1 << 20;

int capability() { return setting("CUPY_ON_CPU_CAPABILITY", 90); }

// An H200's, but for the memory.
cudaDeviceProp properties() {
    cudaDeviceProp p{};
    std::strcpy(p.name, "NVIDIA H200 (emulated)");
    p.major = capability() / 10, p.minor = capability() % 10;
    p.totalGlobalMem = size_t(setting("CUPY_ON_CPU_MEMORY", 8 * KIB)) * MIB;
    p.multiProcessorCount = 132, p.warpSize = 32;
    p.l2CacheSize = 60 * MIB;
    p.maxThreadsPerBlock = 1024, p.maxThreadsPerMultiProcessor = 2048;
    p.sharedMemPerBlock = 48 * KIB, p.sharedMemPerBlockOptin = 227 * KIB, p.sharedMemPerMultiprocessor = 228 * KIB;
    p.regsPerBlock = p.regsPerMultiprocessor = 64 * KIB;
    p.clockRate = 1980000, p.memoryClockRate = 3201000, p.memoryBusWidth = 6144;
    p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024, p.maxThreadsDim[2] = 64;
    p.maxGridSize[0] = 2147483647, p.maxGridSize[1] = p.maxGridSize[2] = 65535;
    return p;
}

// One, unless CUDA_VISIBLE_DEVICES names none.
int count_devices() {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    return visible && (!*visible || *visible == '-') ? 0 : 1;
}

// Allocations by their addresses.
struct Memory {
    std::map<char*, size_t> sizes;
    size_t used = 0;

    int allocate(void** made, size_t size) {
        if (posix_memalign(made, ALIGNMENT, std::max(size, size_t(1)))) return cudaErrorMemoryAllocation;
        std::memset(*made, 0xff, size);  // NaNs
        sizes[static_cast<char*>(*made)] = size;
        used += size;
        return 0;
    }
    int release(void* address) {
        const auto found = sizes.find(static_cast<char*>(address));
        if (found == sizes.end()) return cudaErrorInvalidValue;
        used -= found->second;
        std::memset(address, 0xff, found->second);
        sizes.erase(found);
        std::free(address);
        return 0;
    }
    bool holds(const void* address) const {
        auto after = sizes.upper_bound(static_cast<char*>(const_cast<void*>(address)));
        if (after == sizes.begin()) return false;
        --after;
        return address < after->first + after->second;
    }
};
Memory &on_device = *new Memory, &page_locked = *new Memory;

cudaError_t release(Memory& memory, void* address, const char* caller) {
    LOCK;
    if (!address) return ended(0);
    if (const int error = refuse_captures(caller)) return ended(error);
    finish_all();
    return ended(memory.release(address));
}

// Memory that is not page-locked is read before the call returns, and written before it does.
int copy(void* to, const void* from, size_t size, Stream& stream, bool waits) {
    if (!size) return 0;
    if (waits)
        if (const int error = refuse_capture(stream, "a copy that waits")) return error;
    const auto pageable = [](const void* x) { return !on_device.holds(x) && !page_locked.holds(x); };
    int error;
    if (pageable(from)) {
        if (const int refused = refuse_capture(stream, "a copy of memory that is not page-locked")) return refused;
        const auto start = static_cast<const char*>(from);
        const auto kept = std::make_shared<std::vector<char>>(start, start + size);
        error = submit(stream, [=] { return std::memcpy(to, kept->data(), size), 0; });
    } else {
        error = submit(stream, [=] { return std::memmove(to, from, size), 0; });
    }
    if (error) return error;
    if (waits || (pageable(to) && !stream.captured)) finish(stream);
    return failed;
}

}  // namespace

extern "C" {

const char* cudaGetErrorName(cudaError_t error) {
    static const std::map<int, const char*> names{
        {cudaSuccess, "cudaSuccess"},
        {cudaErrorInvalidValue, "cudaErrorInvalidValue"},
        {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation"},
        {cudaErrorNoDevice, "cudaErrorNoDevice"},
        {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle"},
        {cudaErrorNotReady, "cudaErrorNotReady"},
        {cudaErrorLaunchFailure, "cudaErrorLaunchFailure"},
        {cudaErrorNotSupported, "cudaErrorNotSupported"},
        {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported"},
        {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated"},
        {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation"},
        {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit"},
        {cudaErrorCapturedEvent, "cudaErrorCapturedEvent"},
    };
    const auto found = names.find(error);
    return found == names.end() ? "cudaErrorUnknown" : found->second;
}
const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : cudaGetErrorName(error);
}
cudaError_t cudaGetLastError() { return static_cast<cudaError_t>(std::exchange(last_error, 0)); }

cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, ended(0); }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, ended(0); }
cudaError_t cudaGetDevice(int* device) { return *device = 0, ended(0); }
cudaError_t cudaSetDevice(int device) { return ended(device ? cudaErrorInvalidDevice : 0); }
cudaError_t cudaGetDeviceCount(int* count) {
    *count = count_devices();
    return ended(*count ? 0 : cudaErrorNoDevice);
}
cudaError_t cudaDeviceGetByPCIBusId(int* device, const char*) { return *device = 0, ended(0); }
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int) {
    return std::snprintf(id, length, "0000:00:00.0"), ended(0);
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, ended(0); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) { return *p = properties(), ended(0); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const cudaDeviceProp p = properties();
    const std::map<int, int> values{
        {cudaDevAttrComputeCapabilityMajor, p.major},
        {cudaDevAttrComputeCapabilityMinor, p.minor},
        {cudaDevAttrMultiProcessorCount, p.multiProcessorCount},
        {cudaDevAttrWarpSize, p.warpSize},
        {cudaDevAttrL2CacheSize, p.l2CacheSize},
        {cudaDevAttrMaxThreadsPerBlock, p.maxThreadsPerBlock},
        {cudaDevAttrMaxThreadsPerMultiProcessor, p.maxThreadsPerMultiProcessor},
        {cudaDevAttrMaxSharedMemoryPerBlock, p.sharedMemPerBlock},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, p.sharedMemPerBlockOptin},
        {cudaDevAttrMaxBlockDimX, p.maxThreadsDim[0]},
        {cudaDevAttrMaxBlockDimY, p.maxThreadsDim[1]},
        {cudaDevAttrMaxBlockDimZ, p.maxThreadsDim[2]},
        {cudaDevAttrMaxGridDimX, p.maxGridSize[0]},
        {cudaDevAttrMaxGridDimY, p.maxGridSize[1]},
        {cudaDevAttrMaxGridDimZ, p.maxGridSize[2]},
        {cudaDevAttrMemoryPoolsSupported, 0},
    };
    const auto found = values.find(attribute);
    if (found == values.end()) COMPLAIN("the device's attribute %d is not known", attribute);
    *value = found == values.end() ? 0 : found->second;
    return ended(0);
}

cudaError_t cudaMalloc(void** made, size_t size) {
    LOCK;
    if (const int error = refuse_strict_captures(__func__)) return ended(error);
    if (on_device.used + size > properties().totalGlobalMem) return ended(cudaErrorMemoryAllocation);
    return ended(on_device.allocate(made, size));
}
cudaError_t cudaFree(void* address) { return release(on_device, address, __func__); }
cudaError_t cudaHostAlloc(void** made, size_t size, unsigned int) {
    LOCK;
    return ended(page_locked.allocate(made, size));
}
cudaError_t cudaFreeHost(void* address) { return release(page_locked, address, __func__); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    LOCK;
    *total = properties().totalGlobalMem;
    *free = *total - on_device.used;
    return ended(0);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
    LOCK;
    *attributes = {};
    void* const place = const_cast<void*>(address);
    if (on_device.holds(address)) {
        attributes->type = cudaMemoryTypeDevice;
        attributes->devicePointer = place;
    } else {
        attributes->type = page_locked.holds(address) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
        attributes->hostPointer = place;
    }
    return ended(0);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
    LOCK;
    return ended(copy(to, from, size, legacy, true));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
    LOCK;
    return ended(copy(to, from, size, stream_of(stream), false));
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
    return ended(submit(stream_of(stream), [=] { return std::memset(to, value, size), 0; }));
}
cudaError_t cudaMemset(void* to, int value, size_t size) { return cudaMemsetAsync(to, value, size, nullptr); }

cudaError_t cudaProfilerStart() { return ended(0); }
cudaError_t cudaProfilerStop() { return ended(0); }
}
