// What the driver knows of a kernel: how many bytes its parameters take, and how to run it.

#pragma once

#include <cstddef>

namespace emulated {

struct Size {
    unsigned int x, y, z;
};

struct Entry {
    int count;            // of parameters
    const size_t* sizes;  // of each, in bytes
    // Returns what the kernel did wrong, or null.
    const char* (*run)(void** arguments, Size grid, Size block, size_t shared);
};

}  // namespace emulated
