// In place of the header of this name of NVIDIA's compiler package, which the headers of the runtime include: plain C.
#pragma once
#define __host__
#define __cudart_builtin__
#define __device_builtin__
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __align__(n) __attribute__((aligned(n)))
#define CUDARTAPI
