// CUDA's runtime: streams, events, capture and graphs.

#include "device.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "errors.h"

namespace device {

Stream& stream_of(const void* handle) {
    return reinterpret_cast<uintptr_t>(handle) <= 2 ? legacy : *static_cast<Stream*>(const_cast<void*>(handle));
}

void finish(Place place) {
    Stream& stream = *place.stream;
    while (stream.done < place.count && !stream.tasks.empty()) {
        const Task task = std::move(stream.tasks.front());
        stream.tasks.pop_front();
        if (!task.work) {
            finish(task.wait);
        } else if (const int error = task.work()) {
            failed = error;
            COMPLAIN("an operation failed: %s", cudaGetErrorName(static_cast<cudaError_t>(error)));
        }
        ++stream.done;
    }
}

void finish(Stream& stream) {
    if (&stream == &legacy) {
        for (Stream* other : streams)
            if (other != &legacy && other->blocking) finish({other, other->submitted});
    } else if (stream.blocking) {
        finish({&legacy, legacy.submitted});
    }
    finish({&stream, stream.submitted});
}

void finish_all() {
    for (Stream* stream : streams) finish({stream, stream->submitted});
}

static void put(Stream& stream, Task task) {
    static const bool eager = setting("CUPY_ON_CPU_EAGER", 0);
    stream.tasks.push_back(std::move(task));
    ++stream.submitted;
    if (eager) finish({&stream, stream.submitted});
}

int submit(Stream& stream, Work work) {
    LOCK;
    if (failed) return failed;
    if (stream.captured) {
        stream.captured->nodes.push_back(std::move(work));
        return 0;
    }
    if (&stream == &legacy) {
        for (Stream* other : streams)
            if (other->captured && other->blocking) return cudaErrorStreamCaptureImplicit;
    }
    put(stream, {std::move(work), {}});
    return 0;
}

int refuse_capture(Stream& stream, const char* what) {
    if (!stream.captured) return 0;
    stream.invalid = true;
    COMPLAIN("%s while work is captured", what);
    return cudaErrorStreamCaptureUnsupported;
}

static int refuse_captures(const char* what, bool if_relaxed) {
    int error = 0;
    for (Stream* stream : streams)
        if (if_relaxed || !stream->relaxed) error = std::max(error, refuse_capture(*stream, what));
    return error;
}
int refuse_strict_captures(const char* what) { return refuse_captures(what, false); }
int refuse_captures(const char* what) { return refuse_captures(what, true); }

}  // namespace device

using namespace device;

static Event& event_of(cudaEvent_t handle) { return *reinterpret_cast<Event*>(handle); }

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* made, unsigned int flags) {
    LOCK;
    Stream* stream = new Stream;
    stream->blocking = !(flags & cudaStreamNonBlocking);
    streams.insert(stream);
    *made = reinterpret_cast<cudaStream_t>(stream);
    return ended(0);
}
cudaError_t cudaStreamCreate(cudaStream_t* made) { return cudaStreamCreateWithFlags(made, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* made, unsigned int flags, int) {
    return cudaStreamCreateWithFlags(made, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    LOCK;
    Stream& stream = stream_of(handle);
    finish(stream);
    streams.erase(&stream);  // but it stays in memory: events and other streams' waits may name it
    return ended(0);
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
    *priority = 0;
    return ended(0);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = *greatest = 0;
    return ended(0);
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    LOCK;
    if (const int error = refuse_capture(stream_of(handle), __func__)) return ended(error);
    finish(stream_of(handle));
    return ended(failed);
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
    LOCK;
    if (const int error = refuse_capture(stream_of(handle), __func__)) return ended(error);
    return ended(stream_of(handle).tasks.empty() ? 0 : cudaErrorNotReady);
}
cudaError_t cudaDeviceSynchronize() {
    LOCK;
    if (const int error = refuse_captures(__func__)) return ended(error);
    finish_all();
    return ended(failed);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* made, unsigned int) {
    *made = reinterpret_cast<cudaEvent_t>(new Event);
    return ended(0);
}
cudaError_t cudaEventCreate(cudaEvent_t* made) { return cudaEventCreateWithFlags(made, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t) { return ended(0); }  // it stays in memory: work that is put off names it
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
    LOCK;
    Event& event = event_of(handle);
    Stream& stream = stream_of(stream_handle);
    event.captured = stream.captured != nullptr;
    if (event.captured) return ended(0);
    const int error = submit(stream, [&event] {
        event.time = std::chrono::steady_clock::now();
        return 0;
    });
    event.place = {&stream, stream.submitted};
    return ended(error);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned int) {
    LOCK;
    const Event& event = event_of(event_handle);
    Stream& stream = stream_of(handle);
    if (event.captured != (stream.captured != nullptr)) return ended(cudaErrorStreamCaptureIsolation);
    if (!event.captured && event.place.stream) put(stream, {{}, event.place});
    return ended(0);
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    LOCK;
    const Event& event = event_of(handle);
    if (event.captured) return ended(cudaErrorCapturedEvent);
    if (const int error = refuse_strict_captures(__func__)) return ended(error);
    if (!event.place.stream) return ended(0);
    if (event.place.stream == &legacy) {
        for (Stream* other : streams)
            if (other != &legacy && other->blocking) finish({other, other->submitted});
    }
    finish(event.place);
    return ended(failed);
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
    LOCK;
    const Event& event = event_of(handle);
    if (event.captured) return ended(cudaErrorCapturedEvent);
    const bool ready = !event.place.stream || event.place.stream->done >= event.place.count;
    return ended(ready ? 0 : cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
    LOCK;
    for (const cudaEvent_t handle : {from, to}) {
        const Place& place = event_of(handle).place;
        if (!place.stream) return ended(cudaErrorInvalidResourceHandle);
        if (place.stream->done < place.count) return ended(cudaErrorNotReady);
    }
    *milliseconds = std::chrono::duration<float, std::milli>(event_of(to).time - event_of(from).time).count();
    return ended(0);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    LOCK;
    Stream& stream = stream_of(handle);
    if (&stream == &legacy || stream.captured) return ended(cudaErrorStreamCaptureUnsupported);
    stream.captured = new Graph;
    stream.relaxed = mode == cudaStreamCaptureModeRelaxed;
    stream.invalid = false;
    return ended(0);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    LOCK;
    const Stream& stream = stream_of(handle);
    *status = !stream.captured ? cudaStreamCaptureStatusNone
              : stream.invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
    return ended(0);
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    LOCK;
    Stream& stream = stream_of(handle);
    if (!stream.captured) return ended(cudaErrorStreamCaptureUnsupported);
    *graph = stream.invalid ? nullptr : reinterpret_cast<cudaGraph_t>(stream.captured);
    stream.captured = nullptr;
    return ended(stream.invalid ? cudaErrorStreamCaptureInvalidated : 0);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t handle, unsigned long long) {
    const Graph* graph = reinterpret_cast<Graph*>(handle);
    if (setting("CUPY_ON_CPU_TRACE", 0)) COMPLAIN("a graph of %zu nodes", graph->nodes.size());
    *made = reinterpret_cast<cudaGraphExec_t>(new Graph(*graph));
    return ended(0);
}
cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
    delete reinterpret_cast<Graph*>(handle);
    return ended(0);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return ended(0); }  // it stays: launches that are put off name it
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return ended(0); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream) {
    LOCK;
    const Graph* graph = reinterpret_cast<Graph*>(handle);
    return ended(submit(stream_of(stream), [graph] {
        for (const Work& work : graph->nodes)
            if (const int error = work()) return error;
        return 0;
    }));
}
}

// Work of Python's, for thrust.py.
extern "C" int cupy_on_cpu_submit(void* stream, int (*work)()) { return submit(stream_of(stream), work); }
