// A "cubin" of the stand-in: a program's options and source as text, which is compiled for the host when it is loaded,
// so that what CuPy keeps on disk stays right whatever changes in the emulation.

#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

#include "device.h"

namespace device {

constexpr const char* MARK = "cupy_on_cpu\n";

// The library of a cubin's kernels, built by kernels.py unless it is there. Empty if it cannot be, which is said.
inline std::string compiled_library(const std::string& cubin) {
    if (cubin.rfind(MARK, 0) != 0) {
        COMPLAIN("a cubin that is not of this stand-in");
        return "";
    }
    char name[20];
    std::snprintf(name, sizeof name, "%016zx.so", std::hash<std::string>()(cubin));
    const std::string library = std::getenv("CUPY_ON_CPU_KERNELS") + std::string("/") + name;
    if (std::ifstream(library)) return library;
    const std::string command = std::getenv("CUPY_ON_CPU_COMPILER") + (" '" + library + "'");
    FILE* compiler = popen(command.c_str(), "w");
    std::fwrite(cubin.data(), 1, cubin.size(), compiler);
    return pclose(compiler) == 0 ? library : "";
}

}  // namespace device
