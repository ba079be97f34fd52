// A CUDA device in host memory: streams, events and graphs.
//
// What is submitted to a stream is put off until something waits for it, which is as late as a GPU may be: what does not
// wait where it must reads what is not there yet. With CUPY_ON_CPU_EAGER it is done at once.

#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <vector>

namespace device {

using Work = std::function<int()>;  // returns 0 or the number of an error, which all later calls then return
struct Stream;

// A place among the work of a stream: all that had been submitted to it.
struct Place {
    Stream* stream = nullptr;
    long long count = 0;
};

struct Task {
    Work work;
    Place wait;  // for this, if there is no work
};

struct Graph {
    std::vector<Work> nodes;
};

struct Stream {
    bool blocking = true;  // waits for the legacy stream, which waits for it
    std::deque<Task> tasks;
    long long submitted = 0, done = 0;
    Graph* captured = nullptr;  // while it captures
    bool relaxed = false;       // its capture lets the host allocate memory and wait for other work
    bool invalid = false;       // its capture did what none may do
};

struct Event {
    Place place;
    bool captured = false;
    std::chrono::steady_clock::time_point time;
};

// Never destroyed: Python frees memory and streams while the process ends.
inline std::recursive_mutex& mutex = *new std::recursive_mutex;
inline Stream& legacy = *new Stream;
inline std::set<Stream*>& streams = *new std::set<Stream*>{&legacy};
inline int failed = 0;  // the error of some work

// A stream by its handle; 0, 1 and 2 are the default ones.
Stream& stream_of(const void* handle);

// Do all that was submitted up to a place, on all that it waits for; or all of a stream; or all.
void finish(Place place);
void finish(Stream& stream);
void finish_all();

// Put work on a stream, or into the graph that it captures. Returns 0 or the number of an error.
int submit(Stream& stream, Work work);

// What may not be done while this stream captures, or while any does that is not relaxed, or any at all, makes captures
// invalid. Returns 0 or an error.
int refuse_capture(Stream& stream, const char* what);
int refuse_strict_captures(const char* what);
int refuse_captures(const char* what);

inline int setting(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

}  // namespace device

#define LOCK std::lock_guard<std::recursive_mutex> lock(device::mutex)
#define COMPLAIN(...) (std::fprintf(stderr, "cupy_on_cpu: " __VA_ARGS__), std::fputc('\n', stderr))
