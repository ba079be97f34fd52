"""CuPy itself, on a machine without a GPU.

CuPy's wheel is installed as it is, and CUDA's libraries are replaced by stand-ins that keep the device's memory on the
host and run its kernels, CuPy's own as well as ours, by the emulation of tests/cuda_on_cpu/. So every call that we make
of CuPy is made of CuPy. `python -m tests.cupy_on_cpu COMMAND` runs a command so.

__main__.py         that command
build.py            the environment: CuPy, and the stand-ins beside it
kernels.py          kernels, compiled for the host
device.h            streams, events and graphs, in which work is put off until something waits for it
streams.cpp         their functions of CUDA's runtime
runtime.cpp         its other functions: the device, memory, copies; errors.h
driver.cpp          CUDA's driver: modules and launches; cubin.h
nvrtc.cpp           its compiler
cublas.cpp          cuBLAS and cublasLt
nccl.cpp            NCCL
thrust.py           CuPy's sorting
headers/            what kernels are compiled with: kernels.h their entries, cupy_kernels.h what CuPy's need
"""
