// NVRTC: compiles nothing yet (see cubin.h), but refuses one architecture's instructions for another.

#include <cstring>
#include <string>

#include "cubin.h"

namespace {

enum Result { SUCCESS = 0, INVALID_INPUT = 3, COMPILATION = 6 };

struct Program {
    std::string source, cubin, log, ptx = "// none";
};

Program& program_of(void* handle) { return *static_cast<Program*>(handle); }
size_t size_of(const std::string& text) { return text.size() + 1; }

}  // namespace

extern "C" {

const char* nvrtcGetErrorString(int error) { return error == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcVersion(int* major, int* minor) { return *major = 12, *minor = 9, SUCCESS; }
int nvrtcGetNumSupportedArchs(int* count) { return *count = 3, SUCCESS; }
int nvrtcGetSupportedArchs(int* all) { return all[0] = 75, all[1] = 80, all[2] = 90, SUCCESS; }

int nvrtcCreateProgram(void** made, const char* source, const char*, int headers, const char* const*,
                       const char* const*) {
    if (headers) return INVALID_INPUT;
    *made = new Program{source, "", ""};
    return SUCCESS;
}
int nvrtcDestroyProgram(void** handle) { return delete static_cast<Program*>(*handle), SUCCESS; }
int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
    Program& program = program_of(handle);
    bool has_wgmma = false;
    program.cubin = device::MARK;
    for (int i = 0; i < count; ++i) {
        has_wgmma = has_wgmma || !std::strcmp(options[i], "-arch=sm_90a");
        program.cubin += options[i] + std::string("\n");
    }
    program.cubin += "\n" + program.source;
    if (program.source.find("#define WGMMA") == std::string::npos || has_wgmma) return SUCCESS;
    program.log = "wgmma: not for this architecture";
    return COMPILATION;
}
int nvrtcAddNameExpression(void*, const char*) { return INVALID_INPUT; }
int nvrtcGetLoweredName(void*, const char*, const char**) { return INVALID_INPUT; }

#define GETTERS(name, member)                                                                                    \
    int nvrtcGet##name##Size(void* handle, size_t* size) { return *size = size_of(program_of(handle).member), SUCCESS; } \
    int nvrtcGet##name(void* handle, char* text) {                                                               \
        const std::string& from = program_of(handle).member;                                                     \
        return std::memcpy(text, from.c_str(), size_of(from)), SUCCESS;                                          \
    }
GETTERS(PTX, ptx)
GETTERS(CUBIN, cubin)
GETTERS(ProgramLog, log)
}
