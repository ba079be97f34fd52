// Flash attention for heads of 64 channels: tiles whose sums fit the registers. flash_attention.py reads the numbers.

constexpr int D = 64;
constexpr int FORWARD_QUERIES = 128;  // of a block
constexpr int FORWARD_KEYS = 64;     // of a tile
constexpr int KEYS_OF_BLOCK = 64;    // backward, for d_key and d_value
constexpr int QUERIES_OF_TILE = 64;
constexpr int QUERIES_OF_BLOCK = 128;  // backward, for d_query
constexpr int KEYS_OF_TILE = 32;

#include "flash_attention.cuh"
#include "flash_backward.cuh"
