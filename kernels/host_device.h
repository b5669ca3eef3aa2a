// Marks functions that the host and CUDA kernels share.
#pragma once

#ifdef __CUDACC__
#define ROUTESCOPE_HOST_DEVICE __host__ __device__
#else
#define ROUTESCOPE_HOST_DEVICE
#endif
