// What kernels/cuda/wgmma.cuh does on a GPU, on the host: products of four warps, whose factors are described to them.
// emulation.h includes it.
//
// A factor is read through the 64 bits of its descriptor, from a copy of shared memory that holds only what threads
// have shown to products. Sums are NaN until the product has been waited for, and only then are the factors read; or,
// with `products_run_at_once`, both happen as soon as it has begun. The first shows who reads sums too early or leaves
// out a wait, the second who shows a factor too late.

#pragma once

extern "C" {
[[gnu::used]] inline bool products_run_at_once = false;
}

namespace emulated {

constexpr int GROUP = 4 * WARP;

// A matrix of bfloat16 in shared memory, as the bits of a descriptor say: pieces of eight numbers, 16 bytes.
struct Described {
    size_t begin, leading, stride;

    explicit Described(uint64_t bits)
        : begin((bits & 0x3fff) * 16), leading((bits >> 16 & 0x3fff) * 16), stride((bits >> 32 & 0x3fff) * 16) {
        if (bits >> 62 != 1) throw std::runtime_error("a layout other than that swizzled by 128 bytes");
        if (bits & 0x3fffc000c000c000) throw std::runtime_error("a descriptor with other bits set");
        if (begin / 128 % 8) throw std::runtime_error("a factor that does not begin where swizzling does");
    }

    // Eight numbers. Eight pieces of a line lie together, in 128 bytes, and the next eight `leading` bytes further.
    const uint16_t* piece(int line, int piece) const;
};

// A product that somebody has begun; `rows` are those of the left factor that this lane has sums of, if in registers.
struct Product {
    float* sums;
    int columns;
    bool right_by_rows;
    uint64_t left, right;
    std::vector<float> rows;
};

struct Products {
    bool fenced = false;
    std::vector<Product> begun;
    std::vector<std::vector<Product>> groups;
    std::vector<std::pair<float*, std::vector<float>>> hidden;  // sums behind NaNs
    std::vector<std::pair<char*, size_t>> arrived;              // copies that have not been shown yet
};
inline std::vector<Products> products_of;
inline std::vector<char> shown;  // shared memory as products see it

inline void begin_wgmma(int threads) {
    products_of.assign(threads, Products());
    shown.assign(dynamic_size, '\xff');
}

inline void end_wgmma() {
    for (const Products& mine : products_of)
        if (!mine.begun.empty() || !mine.groups.empty()) failure = "products for which nobody has waited";
}

// From when a copy begins until it has been shown, nobody can tell what a product finds in its place.
inline void hide_from_products(void* to, size_t size) {
    std::memset(&shown[static_cast<char*>(to) - dynamic_memory], 0xff, size);
}

inline void note_arrival(void* to, size_t size) {
    products_of[current->rank].arrived.emplace_back(static_cast<char*>(to), size);
}

inline const uint16_t* Described::piece(int line, int piece) const {
    size_t place = begin + line / 8 * stride + line % 8 * 128 + piece / 8 * leading + piece % 8 * 16;
    place ^= place / 128 % 8 * 16;  // swizzled
    if (place + 16 > shown.size()) throw std::runtime_error("a factor outside of the block's shared memory");
    return reinterpret_cast<const uint16_t*>(&shown[place]);
}

inline float number(const uint16_t* piece, int i) { return half_of(piece[i], 0); }

// Add the product to this lane's sums: row r of the group's 64, and eight further down, of each eight columns two.
inline void run(const Product& product) {
    const int lane = current->rank % WARP, r = current->rank / WARP * 16 + lane / 4;
    std::vector<float> rows = product.rows;
    if (rows.empty()) {
        const Described left(product.left);
        for (int row : {r, r + 8})
            for (int k = 0; k < 16; ++k) rows.push_back(number(left.piece(row, k / 8), k % 8));
    }
    const Described right(product.right);
    for (int column = 0; column < product.columns; ++column) {
        if (column % 8 / 2 != lane % 4) continue;
        for (int k = 0; k < 16; ++k) {
            const float factor = product.right_by_rows ? number(right.piece(k, column / 8), column % 8)
                                                       : number(right.piece(column, k / 8), k % 8);
            for (int half = 0; half < 2; ++half)
                product.sums[column / 8 * 4 + 2 * half + column % 2] += rows[16 * half + k] * factor;
        }
    }
}

inline void begin_product(Product product) {
    if (block.x != GROUP) throw std::runtime_error("a product of a block that is not one group of four warps");
    Products& mine = products_of[current->rank];
    if (!mine.fenced) throw std::runtime_error("a product that was begun without a fence");
    products += current->rank % WARP ? 0 : product.columns / 8;
    if (products_run_at_once) {
        run(product);
    } else {
        const auto is_same = [&](const auto& sums) { return sums.first == product.sums; };
        const size_t count = product.columns / 2;
        if (std::none_of(mine.hidden.begin(), mine.hidden.end(), is_same)) {
            mine.hidden.emplace_back(product.sums, std::vector<float>(product.sums, product.sums + count));
            std::fill_n(product.sums, count, NAN);
        }
    }
    mine.begun.push_back(std::move(product));
}

}  // namespace emulated

inline void show_copies() {
    auto& arrived = emulated::products_of[emulated::current->rank].arrived;
    for (const auto& [place, size] : arrived) std::memcpy(&emulated::shown[shared_address(place)], place, size);
    arrived.clear();
}

inline void fence_products() { emulated::products_of[emulated::current->rank].fenced = true; }

inline void end_group_of_products() {
    emulated::Products& mine = emulated::products_of[emulated::current->rank];
    mine.groups.push_back(std::move(mine.begun));
    mine.begun.clear();
}

// Sums appear when nothing adds to them any more.
template <int N> void wait_for_products() {
    emulated::Products& mine = emulated::products_of[emulated::current->rank];
    static_assert(N == 0, "all products at once");
    if (!products_run_at_once && mine.begun.empty()) {
        for (const auto& [place, sums] : mine.hidden) std::copy(sums.begin(), sums.end(), place);
        mine.hidden.clear();
        for (const auto& group : mine.groups)
            for (const emulated::Product& product : group) emulated::run(product);
    }
    mine.groups.clear();
    mine.fenced = false;  // registers may be written now
}

inline void stay(float&) {}

template <bool RIGHT_BY_ROWS, int N> void begin_product(float (&sums)[N][4], uint64_t left, uint64_t right) {
    emulated::begin_product({&sums[0][0], 8 * N, RIGHT_BY_ROWS, left, right, {}});
}

template <bool RIGHT_BY_ROWS, int N> void begin_product(float (&sums)[N][4], const Fragment& left, uint64_t right) {
    const auto& [a, b, c, d] = left.pairs;
    const emulated::Given* given = emulated::give({{a, b, c, d, 0, 0}, nullptr});
    const int lane = emulated::current->rank % emulated::WARP;
    std::vector<float> rows;
    for (int half = 0; half < 2; ++half)
        for (int k = 0; k < 16; ++k)
            rows.push_back(emulated::half_of(given[lane / 4 * 4 + k % 8 / 2].words[half + k / 8 * 2], k % 2));
    emulated::begin_product({&sums[0][0], 8 * N, RIGHT_BY_ROWS, 0, right, std::move(rows)});
}
