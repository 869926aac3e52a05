// A CUDA runtime that computes nothing, for tests on machines without a GPU: device memory is host memory, copies copy,
// kernels are counted. `build.py` adds every other function that ONNX Runtime's provider needs; those only succeed.
//
// What it keeps of CUDA are the rules of a capture in global mode. From its begin to its end, an allocation, a release
// or a blocking call of any thread fails and spoils the capture. A replay repeats the writes of the captured run.
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BLOCKS = 1 << 16, MAX_COPIES = 1 << 16, MAX_WRITES = 1 << 12, TEXT = 1 << 16 };

typedef struct { char *start; size_t bytes; int on_device; } Block;
typedef struct { void *to; const void *from; size_t bytes; } Write;  // from = NULL: what a kernel would write
typedef struct { Write writes[MAX_WRITES]; int count; } Graph;
typedef struct { void *to; size_t bytes; } HostCopy;
// `PAGEABLE` copies have a side in host memory that CUDA did not allocate; `CAPTURED_PAGEABLE` ones are in a graph.
typedef enum { KERNELS, CAPTURES, REPLAYS, ALLOCATIONS, TO_DEVICE, TO_HOST, WITHIN, PAGEABLE, CAPTURED_PAGEABLE, SYNCS, CUDNN, BLOCKING } What;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block blocks[MAX_BLOCKS];
static int block_count;
static HostCopy host_copies[MAX_COPIES];
static long host_copy_count, counts[16];
static char faults[TEXT];
static cudaStream_t capturing;
static int spoilt;
static Graph *graph;  // of the capture that is under way
static __thread cudaError_t last;
static __thread struct { dim3 grid, block; size_t shared; cudaStream_t stream; } pushed[8];
static __thread int depth;

// For the tests.
long stand_in_count(What what) { return counts[what]; }
void stand_in_add(What what) { __atomic_add_fetch(&counts[what], 1, __ATOMIC_RELAXED); }
const char *stand_in_faults(void) { return faults; }
long stand_in_host_copies(void) { return host_copy_count; }
void *stand_in_host_copy(long index, size_t *bytes) { *bytes = host_copies[index].bytes; return host_copies[index].to; }

static cudaError_t fault(const char *call) {
  pthread_mutex_lock(&lock);
  size_t used = strlen(faults);
  snprintf(faults + used, TEXT - used, "%s during a capture\n", call);
  spoilt = 1;
  pthread_mutex_unlock(&lock);
  return last = cudaErrorStreamCaptureUnsupported;
}
#define UNSAFE(call) do { if (capturing) return fault(call); } while (0)

typedef enum { UNKNOWN, PINNED, DEVICE } Place;
static Place place_of(const void *address) {
  Place found = UNKNOWN;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < block_count && !found; i++)
    if ((char *)address >= blocks[i].start && (char *)address < blocks[i].start + blocks[i].bytes)
      found = blocks[i].on_device ? DEVICE : PINNED;
  pthread_mutex_unlock(&lock);
  return found;
}

static cudaError_t allocate(void **address, size_t bytes, int device) {
  stand_in_add(ALLOCATIONS);
  if (posix_memalign(address, 512, bytes ? bytes : 1)) return last = cudaErrorMemoryAllocation;
  pthread_mutex_lock(&lock);
  if (block_count < MAX_BLOCKS) blocks[block_count++] = (Block){*address, bytes, device};
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

static cudaError_t release(void *address) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < block_count; i++)
    if (blocks[i].start == address) { blocks[i] = blocks[--block_count]; break; }
  pthread_mutex_unlock(&lock);
  free(address);
  return cudaSuccess;
}

static void record(void *to, const void *from, size_t bytes) {
  if (capturing && graph->count < MAX_WRITES) graph->writes[graph->count++] = (Write){to, from, bytes};
}

// What a kernel or a product writes: numbers that no test expects.
void stand_in_write(void *to, size_t bytes) {
  record(to, NULL, bytes);
  memset(to, 0xa5, bytes);
}

static void copy(void *to, const void *from, size_t bytes) {
  const void *again = from;
  Place source = place_of(from), target = place_of(to);
  stand_in_add(target != DEVICE ? TO_HOST : source == DEVICE ? WITHIN : TO_DEVICE);
  if (source == UNKNOWN || target == UNKNOWN) stand_in_add(capturing ? CAPTURED_PAGEABLE : PAGEABLE);
  if (source != DEVICE) {
    pthread_mutex_lock(&lock);
    if (host_copy_count < MAX_COPIES) host_copies[host_copy_count++] = (HostCopy){to, bytes};
    pthread_mutex_unlock(&lock);
    if (capturing) again = memcpy(malloc(bytes), from, bytes);  // the host's memory may be freed before a replay
  }
  record(to, again, bytes);
  memmove(to, from, bytes);
}

// Memory.
cudaError_t cudaMalloc(void **p, size_t n) { UNSAFE("cudaMalloc"); return allocate(p, n, 1); }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) {
  UNSAFE("cudaHostAlloc");
  if (getenv("CUDA_STAND_IN_NO_PINNED")) return last = cudaErrorMemoryAllocation;  // as where pages may not be locked
  return allocate(p, n, 0);
}
cudaError_t cudaMallocHost(void **p, size_t n) { UNSAFE("cudaMallocHost"); return allocate(p, n, 0); }
cudaError_t cudaMallocFromPoolAsync(void **p, size_t n, cudaMemPool_t m, cudaStream_t s) { return allocate(p, n, 1); }
cudaError_t cudaFree(void *p) { if (!p) return cudaSuccess; UNSAFE("cudaFree"); return release(p); }
cudaError_t cudaFreeHost(void *p) { if (!p) return cudaSuccess; UNSAFE("cudaFreeHost"); return release(p); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t s) { return release(p); }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = 80ull << 30; return cudaSuccess; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind k) { UNSAFE("cudaMemcpy"); stand_in_add(BLOCKING); copy(to, from, n); return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind k, cudaStream_t s) { copy(to, from, n); return cudaSuccess; }
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, enum cudaMemcpyKind k, cudaStream_t s) {
  for (size_t row = 0; row < height; row++) copy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t n, size_t offset, enum cudaMemcpyKind k) { memset(to, 0, n); return cudaSuccess; }
cudaError_t cudaMemset(void *to, int value, size_t n) { memset(to, value, n); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s) { memset(to, value, n); return cudaSuccess; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *p) {
  memset(attributes, 0, sizeof *attributes);
  Place place = place_of(p);
  if (place != UNKNOWN)
    *attributes = (struct cudaPointerAttributes){.type = place == DEVICE ? cudaMemoryTypeDevice : cudaMemoryTypeHost, .devicePointer = (void *)p};
  return cudaSuccess;
}

// Kernels.
static cudaError_t launch(void) {
  // As on a GPU for which the provider has no machine code.
  if (getenv("CUDA_STAND_IN_NO_KERNELS")) return last = cudaErrorNoKernelImageForDevice;
  stand_in_add(KERNELS);
  return cudaSuccess;
}
void **__cudaRegisterFatBinary(void *binary) { static void *handle; return &handle; }
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  pushed[depth].grid = grid; pushed[depth].block = block; pushed[depth].shared = shared; pushed[depth++].stream = stream;
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = pushed[--depth].grid; *block = pushed[depth].block; *shared = pushed[depth].shared;
  *(cudaStream_t *)stream = pushed[depth].stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *f) { *kernel = (cudaKernel_t)f; return cudaSuccess; }
cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 g, dim3 b, void **a, size_t shared, cudaStream_t s) { return launch(); }
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t shared, cudaStream_t s) { return launch(); }
cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 g, dim3 b, void **a, size_t shared, cudaStream_t s) { return launch(); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *f, void **a) { return launch(); }
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *data) { if (!capturing) f(data); return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *f) {
  memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned flags) { *n = 2; return cudaSuccess; }

// The device.
cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "stand-in");
  p->major = 9; p->warpSize = 32; p->multiProcessorCount = 132; p->totalGlobalMem = 80ull << 30;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024; p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647; p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsPerMultiProcessor = 2048; p->sharedMemPerBlock = 49152; p->regsPerBlock = 65536;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 49152; break;
    case cudaDevAttrMaxGridDimX: case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
const char *cudaGetErrorName(cudaError_t e) { return e == cudaErrorNoKernelImageForDevice ? "cudaErrorNoKernelImageForDevice" : e ? "cudaError" : "cudaSuccess"; }
const char *cudaGetErrorString(cudaError_t e) { return e == cudaErrorNoKernelImageForDevice ? "no kernel image is available for execution on the device" : e ? "failed" : "no error"; }
cudaError_t cudaGetLastError(void) { cudaError_t e = last; last = cudaSuccess; return e; }
cudaError_t cudaPeekAtLastError(void) { return last; }
cudaError_t cudaDeviceSynchronize(void) { stand_in_add(SYNCS); UNSAFE("cudaDeviceSynchronize"); return cudaSuccess; }

// Streams and events.
static cudaError_t make(void **handle) { *handle = calloc(1, 64); return cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t *s) { return make((void **)s); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) { return make((void **)s); }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { stand_in_add(SYNCS); if (s == capturing) UNSAFE("cudaStreamSynchronize"); return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *e) { return make((void **)e); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { return make((void **)e); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 0; return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { stand_in_add(SYNCS); UNSAFE("cudaEventSynchronize"); return cudaSuccess; }
cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *p) { return make((void **)pool); }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr a, void *value) { *(unsigned long *)value = 0; return cudaSuccess; }
cudaError_t cudaLibraryLoadData(cudaLibrary_t *l, const void *code, enum cudaJitOption *o, void **v, unsigned n, enum cudaLibraryOption *lo, void **lv, unsigned ln) { return make((void **)l); }
cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t l, const char *name) { return make((void **)kernel); }
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **f, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *found) {
  *f = NULL;
  if (found) *found = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

// Captures.
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
  graph = calloc(1, sizeof *graph);
  spoilt = 0;
  capturing = s;
  const char *pause = getenv("CUDA_STAND_IN_CAPTURE_MS");  // time for other threads to break the rules
  if (pause) usleep(1000 * atoi(pause));
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *captured) {
  capturing = NULL;
  stand_in_add(CAPTURES);
  *captured = spoilt ? NULL : (cudaGraph_t)graph;
  return spoilt ? (last = cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status) {
  *status = capturing && s == capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t g, unsigned long long flags) { *exec = (cudaGraphExec_t)g; return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
  Graph *g = (Graph *)exec;
  for (int i = 0; i < g->count; i++) {
    Write *w = &g->writes[i];
    if (w->from) memmove(w->to, w->from, w->bytes);
    else memset(w->to, 0xa5, w->bytes);
  }
  stand_in_add(REPLAYS);
  return cudaSuccess;
}
