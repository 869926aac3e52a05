// The functions of cuBLAS that do more than succeed: products write numbers that no test expects, and the math mode is
// counted. `build.py` adds the others.
#include <stddef.h>
#include <stdlib.h>

extern void stand_in_write(void *to, size_t bytes);
static long tf32, products;
static _Thread_local int mode;

long stand_in_tf32_modes(void) { return tf32; }
long stand_in_products(void) { return products; }

int cublasGetMathMode(void *handle, int *found) { *found = mode; return 0; }
int cublasSetMathMode(void *handle, int given) { tf32 += given == 3; mode = given; return 0; }  // 3 = TensorFloat-32
const char *cublasGetStatusName(int status) { return "status"; }
const char *cublasGetStatusString(int status) { return "status"; }
int cublasSgemm_v2(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta, float *c, int ldc) {
  products++;
  stand_in_write(c, sizeof(float) * ldc * n);
  return 0;
}
int cublasSgemmStridedBatched(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, long long a_stride, const float *b, int ldb, long long b_stride, const float *beta, float *c, int ldc, long long c_stride, int count) {
  products++;
  for (int i = 0; i < count; i++) stand_in_write(c + i * c_stride, sizeof(float) * ldc * n);
  return 0;
}
int cublasSgemmBatched(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *const *a, int lda, const float *const *b, int ldb, const float *beta, float *const *c, int ldc, int count) {
  products++;  // of addresses that are in the device's memory
  return 0;
}
