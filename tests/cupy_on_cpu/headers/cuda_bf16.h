// bfloat16 on the host, in place of NVIDIA's header of the same name: as much of it as CuPy's kernels use.

#pragma once

#include <cmath>
#include <cstring>

struct __nv_bfloat16 {
    unsigned short bits = 0;

    __nv_bfloat16() = default;
    __nv_bfloat16(float value) {  // rounded to the nearest, ties to even
        unsigned int whole;
        std::memcpy(&whole, &value, sizeof whole);
        bits = value != value ? 0x7fff : (whole + 0x7fff + (whole >> 16 & 1)) >> 16;
    }
    operator float() const {
        const unsigned int whole = static_cast<unsigned int>(bits) << 16;
        float value;
        std::memcpy(&value, &whole, sizeof value);
        return value;
    }
};

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
    __nv_bfloat16 x;
    x.bits = bits;
    return x;
}
inline bool __hisnan(__nv_bfloat16 x) { return std::isnan(float(x)); }
inline int __hisinf(__nv_bfloat16 x) { return std::isinf(float(x)); }
