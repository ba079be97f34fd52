// What is compiled into a library of kernels behind emulation.h: an entry for each kernel, for the driver.

#pragma once

#include <tuple>

#include "entry.h"

namespace emulated {
namespace {  // kernels of two libraries may have the same name

template <auto kernel> struct Launched;
template <typename... A, void (*kernel)(A...)> struct Launched<kernel> {
    static constexpr size_t sizes[] = {sizeof(A)..., 0};

    template <size_t... I> static void call(void** arguments, std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
    }
    static void thread(void* arguments) { call(static_cast<void**>(arguments), std::index_sequence_for<A...>()); }

    static const char* run(void** arguments, Size grid, Size block, size_t shared) {
        static bool last_first = false;  // blocks run in either order, in turn
        last_first = !last_first;
        run_grid(dim3{grid.x, grid.y, grid.z}, dim3{block.x, block.y, block.z}, shared, last_first, thread, arguments);
        return failure.empty() ? nullptr : failure.c_str();
    }
};

}  // namespace
}  // namespace emulated

#define ENTRY(kernel)                                                                                       \
    extern "C" const emulated::Entry entry_##kernel{sizeof emulated::Launched<&kernel>::sizes / sizeof(size_t) - 1, \
                                                    emulated::Launched<&kernel>::sizes, emulated::Launched<&kernel>::run};
