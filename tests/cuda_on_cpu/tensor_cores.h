// What kernels/cuda/tensor_cores.cuh does on a GPU, on the host: products of a warp's fragments, matrices loaded from
// shared memory, asynchronous copies. emulation.h includes it.
//
// A copy arrives as late as it may, and its place is NaN until then; or, with `copies_arrive_at_once`, as soon as it
// has begun. The first shows who reads too early, the second who copies too early. What a warp loads at once from one bank
// is counted.

#pragma once

extern "C" {
[[gnu::used]] inline bool copies_arrive_at_once = false;  // in every library, for the tests
[[gnu::used]] inline long long bank_conflicts = 0, products = 0;
}

namespace emulated {

// What each lane gives of an instruction of the whole warp; two boards in turn, as for shuffles.
struct Given {
    unsigned int words[6];
    const void* place;
};
struct Board {
    Given of[2][WARP];
};
inline std::vector<Board> boards;
inline std::vector<int> turns;

struct Copy {
    void* to;
    size_t size;
    char bytes[16];
};
struct Copies {
    std::vector<Copy> begun;
    std::vector<std::vector<Copy>> groups;
};
inline std::vector<Copies> copies;

void hide_from_products(void* to, size_t size);  // wgmma.h
void note_arrival(void* to, size_t size);

inline void begin_tensor_cores(int threads) {
    boards.resize((threads + WARP - 1) / WARP);
    turns.assign(threads, 0);
    copies.assign(threads, Copies());
}

inline void end_tensor_cores() {
    for (const Copies& mine : copies)
        for (const auto& group : mine.groups)
            if (!mine.begun.empty() || !group.empty()) failure = "copies for which nobody has waited";
    for (size_t i = 0; i < 64; ++i)
        if (dynamic_memory[dynamic_size + i] != '\xff') failure = "a write behind the block's shared memory";
}

inline const Given* give(const Given& mine) {
    const int rank = current->rank, turn = turns[rank] ^= 1;
    Board& board = boards[rank / WARP];
    board.of[turn][rank % WARP] = mine;
    exchange(WHOLE, 0, 0);  // when all lanes have come
    return board.of[turn];
}

inline void expect_in_shared_memory(const void* place, size_t size = 16) {
    const char* byte = static_cast<const char*>(place);
    if (byte < dynamic_memory || byte + size > dynamic_memory + dynamic_size)
        throw std::runtime_error("a place outside of the block's shared memory");
    if (reinterpret_cast<uintptr_t>(place) % size)
        throw std::runtime_error("a place that is not at " + std::to_string(size) + " bytes");
}

inline float half_of(unsigned int pair, int second) {
    return __uint_as_float(second ? pair & 0xffff0000u : pair << 16);
}

inline void arrive(const Copy& copy) {
    std::memcpy(copy.to, copy.bytes, copy.size);
    note_arrival(copy.to, copy.size);
}

inline void begin_copy(void* to, const void* from, size_t size, bool there) {
    expect_in_shared_memory(to, size);
    if (reinterpret_cast<uintptr_t>(from) % size)
        throw std::runtime_error("a copy from a place that is not at " + std::to_string(size) + " bytes");
    hide_from_products(to, size);
    Copy copy{to, size, {}};
    if (there) std::memcpy(copy.bytes, from, size);
    if (copies_arrive_at_once) return arrive(copy);
    std::memset(to, 0xff, size);
    copies[current->rank].begun.push_back(copy);
}

}  // namespace emulated

#define DYNAMIC_SHARED(name) unsigned char* name = reinterpret_cast<unsigned char*>(emulated::dynamic_memory)

// As an address within the block's shared memory.
inline unsigned int shared_address(const void* place) {
    return static_cast<unsigned int>(static_cast<const char*>(place) - emulated::dynamic_memory);
}

inline void copy_async(void* to, const void* from, bool there = true) { emulated::begin_copy(to, from, 16, there); }

template <typename Number> void copy_number_async(Number* to, const Number* from, bool there = true) {
    static_assert(sizeof(Number) == 4 || sizeof(Number) == 8);
    emulated::begin_copy(to, from, sizeof(Number), there);
}

inline void end_group_of_copies() {
    emulated::Copies& mine = emulated::copies[emulated::current->rank];
    mine.groups.push_back(std::move(mine.begun));
    mine.begun.clear();
}

template <int N> void wait_for_copies() {
    auto& groups = emulated::copies[emulated::current->rank].groups;
    for (; groups.size() > N; groups.erase(groups.begin()))
        for (const emulated::Copy& copy : groups.front()) emulated::arrive(copy);
}

struct Fragment {
    unsigned int pairs[4];
};

inline Fragment load_matrices(const void* row, bool transposed = false) {
    emulated::expect_in_shared_memory(row);
    const emulated::Given* given = emulated::give({{}, row});
    const int lane = emulated::current->rank % emulated::WARP, r = lane / 4, c = 2 * (lane % 4);
    Fragment x;
    for (int i = 0; i < 4; ++i) {
        const auto element = [&](int r, int c) -> unsigned int {
            return static_cast<const uint16_t*>(given[8 * i + r].place)[c];
        };
        x.pairs[i] = transposed ? element(c, r) | element(c + 1, r) << 16 : element(r, c) | element(r, c + 1) << 16;
        if (lane) continue;
        unsigned int banks = 0;  // a row takes four of 32: eight rows at once must take all
        for (int r = 0; r < 8; ++r) banks |= 1u << reinterpret_cast<uintptr_t>(given[8 * i + r].place) / 16 % 8;
        bank_conflicts += 8 - __builtin_popcount(banks);
    }
    return x;
}
inline Fragment load_transposed(const void* row) { return load_matrices(row, true); }

// Sums in float, in order: the hardware's order is not told, and within the rounding of bfloat16.
inline void multiply(float (&sums)[4], const Fragment& left, unsigned int right_0, unsigned int right_1) {
    const auto& [a, b, c, d] = left.pairs;
    const emulated::Given* given = emulated::give({{a, b, c, d, right_0, right_1}, nullptr});
    const int lane = emulated::current->rank % emulated::WARP;
    for (int k = 0; k < 16; k += 2) {
        const int of_four = k % 8 / 2, half = k / 8;
        const emulated::Given& row = given[4 * (lane / 4) + of_four];  // and of the row eight further down
        const emulated::Given *column = &given[8 * (lane % 4) + of_four], *next = column + 4;
        const unsigned int lefts[2] = {row.words[2 * half], row.words[2 * half + 1]};
        const unsigned int rights[2] = {column->words[4 + half], next->words[4 + half]};
        for (int i = 0; i < 4; ++i) {
            sums[i] += emulated::half_of(lefts[i / 2], 0) * emulated::half_of(rights[i % 2], 0);
            sums[i] += emulated::half_of(lefts[i / 2], 1) * emulated::half_of(rights[i % 2], 1);
        }
    }
    products += lane == 0;
}
