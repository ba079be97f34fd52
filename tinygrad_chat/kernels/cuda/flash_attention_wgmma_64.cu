// Flash attention for heads of 64 channels by wgmma, for compute capability 9.0 alone: the same tiles and kernels.

#define WGMMA
#include "flash_attention_64.cu"
