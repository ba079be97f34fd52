// NCCL between processes of one machine, in shared memory.
//
// A call does not return before all ranks have made it: what one puts off, the others would wait for. All must ask for the
// same, in the same order, which NCCL leaves to its callers.

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>

#include "device.h"
#include "products.h"

namespace {

enum Result { OK = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum Type { FLOAT16 = 6, FLOAT32 = 7, FLOAT64 = 8, BFLOAT16 = 9 };
constexpr int SUM = 0, MAX_RANKS = 8, PATIENCE = 120;  // seconds
constexpr size_t CHUNK = 1 << 20;                      // bytes

struct Identifier {
    char name[128];  // of the shared memory
};

// What a rank asks for. Beside the addresses it is the same for all.
struct Call {
    enum Kind { ALL_REDUCE, REDUCE, BROADCAST } kind;
    int type, operation, root;
    size_t count;

    bool operator==(const Call& other) const {
        return kind == other.kind && type == other.type && operation == other.operation && root == other.root &&
               count == other.count;
    }
};

// Zeros when it is made, and so ready.
struct Shared {
    std::atomic<int> arrived, meetings;
    Call calls[MAX_RANKS];
    char chunks[MAX_RANKS][CHUNK];
};

struct Communicator {
    int size, rank;
    Shared* shared;

    // Return when all ranks have come; false if one has not, in all patience.
    bool meet() const {
        const int meeting = shared->meetings;
        if (++shared->arrived == size) {
            shared->arrived = 0;
            ++shared->meetings;
            return true;
        }
        const auto start = std::chrono::steady_clock::now();
        while (shared->meetings == meeting) {
            if (std::chrono::steady_clock::now() - start > std::chrono::seconds(PATIENCE)) return false;
            sched_yield();
        }
        return true;
    }

    Result take(const Call& call, const void* from, void* to) const {
        shared->calls[rank] = call;
        if (!meet()) return SYSTEM_ERROR;
        for (int other = 0; other < size; ++other)
            if (!(shared->calls[other] == call)) {
                COMPLAIN("NCCL: rank %d asks for something else than rank %d", other, rank);
                return INVALID_USAGE;
            }
        const size_t width = call.type == FLOAT64 ? 8 : call.type == FLOAT32 ? 4 : 2, all = call.count * width;
        const bool receives = call.kind == Call::ALL_REDUCE || call.kind == Call::BROADCAST || call.root == rank;
        for (size_t start = 0; start < all; start += CHUNK) {
            const size_t bytes = std::min(CHUNK, all - start);
            std::memcpy(shared->chunks[rank], static_cast<const char*>(from) + start, bytes);
            if (!meet()) return SYSTEM_ERROR;
            char* const place = static_cast<char*>(to) + start;
            if (receives) std::memcpy(place, shared->chunks[call.kind == Call::BROADCAST ? call.root : 0], bytes);
            if (receives && call.kind != Call::BROADCAST)
                for (int other = 1; other < size; ++other) add(call.type, place, shared->chunks[other], bytes / width);
            if (!meet()) return SYSTEM_ERROR;
        }
        return OK;
    }

    // Rounded to the type after each rank.
    static void add(int type, void* sums, const void* numbers, size_t count) {
        const int kind = type == FLOAT32 ? R_32F : R_16BF;
        for (size_t i = 0; i < count; ++i)
            if (type == FLOAT64)
                static_cast<double*>(sums)[i] += static_cast<const double*>(numbers)[i];
            else
                write(sums, kind, i, read(sums, kind, i) + read(numbers, kind, i));
    }
};

Communicator& communicator_of(void* handle) { return *static_cast<Communicator*>(handle); }

Result ask(void* handle, const Call& call, const void* from, void* to, void* stream_handle) {
    if (call.operation != SUM || (call.type != FLOAT32 && call.type != FLOAT64 && call.type != BFLOAT16))
        return INVALID_ARGUMENT;
    device::Stream& stream = device::stream_of(stream_handle);
    {
        LOCK;
        if (device::refuse_capture(stream, "a call of NCCL")) return INVALID_USAGE;
        device::finish(stream);
    }
    return communicator_of(handle).take(call, from, to);
}

}  // namespace

extern "C" {

const char* ncclGetErrorString(int) { return "an error of the stand-in for NCCL"; }
int ncclGetVersion(int* version) { return *version = 22700, OK; }

int ncclGetUniqueId(Identifier* made) {
    *made = {};
    std::snprintf(made->name, sizeof made->name, "/cupy_on_cpu_%d_%p", getpid(), static_cast<void*>(made));
    return OK;
}
int ncclCommInitRankConfig(void** made, int size, Identifier identifier, int rank, void*) {
    if (size > MAX_RANKS) return INVALID_ARGUMENT;
    const int file = shm_open(identifier.name, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, sizeof(Shared))) return SYSTEM_ERROR;
    void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return SYSTEM_ERROR;
    auto* communicator = new Communicator{size, rank, static_cast<Shared*>(memory)};
    *made = communicator;
    const bool complete = communicator->meet();
    shm_unlink(identifier.name);
    return complete ? OK : SYSTEM_ERROR;
}
int ncclCommDestroy(void* handle) {
    munmap(communicator_of(handle).shared, sizeof(Shared));
    return delete &communicator_of(handle), OK;
}
int ncclCommAbort(void* handle) { return ncclCommDestroy(handle); }
int ncclCommGetAsyncError(void*, int* error) { return *error = OK, OK; }
int ncclCommUserRank(void* handle, int* rank) { return *rank = communicator_of(handle).rank, OK; }
int ncclCommCount(void* handle, int* size) { return *size = communicator_of(handle).size, OK; }
int ncclCommCuDevice(void*, int* device) { return *device = 0, OK; }

// All ranks ask for the calls of a group in one order, so each can be done when it is asked for.
int ncclGroupStart() { return OK; }
int ncclGroupEnd() { return OK; }

int ncclAllReduce(const void* from, void* to, size_t count, int type, int operation, void* handle, void* stream) {
    return ask(handle, {Call::ALL_REDUCE, type, operation, 0, count}, from, to, stream);
}
int ncclReduce(const void* from, void* to, size_t count, int type, int operation, int root, void* handle, void* stream) {
    return ask(handle, {Call::REDUCE, type, operation, root, count}, from, to, stream);
}
int ncclBroadcast(const void* from, void* to, size_t count, int type, int root, void* handle, void* stream) {
    return ask(handle, {Call::BROADCAST, type, SUM, root, count}, from, to, stream);
}
}
