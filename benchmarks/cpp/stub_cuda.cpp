// A CUDA runtime that does nothing, to be preloaded in place of the real one: PyTorch sees two
// devices, its tensors, streams and allocator are real, and launches are only counted. So the host
// side of a call can be observed and timed without a GPU.
//
// Device memory can be neither read nor written: any access crashes.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>

#undef cudaGetDeviceProperties

#define STUB extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kDevices = 2, kMultiprocessors = 132, kSharedBytes = 227 << 10;
constexpr size_t kMemory = size_t{80} << 30;

// Counts since the last call of stub_take(); benchmarks/host_time.py mirrors the struct.
struct Counts {
  int64_t launches;
  int64_t memsets;
  int64_t mallocs;  // by the runtime, not by PyTorch's allocator
  int64_t copies;
  int64_t waits;    // of the host, for the device
  int64_t queries;  // for properties of a device or kernel
  int64_t events;   // recorded, or waited for by a stream
};

Counts counts;
std::string launched;  // names of the kernels, one per line
bool keep_names = false;
bool capturing = false, busy = false;
thread_local int current_device = 0;

std::map<const void*, std::string>& names() {
  static std::map<const void*, std::string> names;
  return names;
}

cudaError_t launch(const void* kernel) {
  ++counts.launches;
  if (keep_names) launched += names()[kernel] + "\n";
  return cudaSuccess;
}

void* next(const char* name) { return dlsym(RTLD_NEXT, name); }

}  // namespace

STUB void stub_take(Counts* out) {
  *out = counts;
  counts = {};
}

// The mangled names, one per line, since the last call; kept from the first call on.
STUB const char* stub_take_names() {
  static std::string taken;
  taken.swap(launched);
  launched.clear();
  keep_names = true;
  return taken.c_str();
}

STUB void stub_set_capturing(bool captures) { capturing = captures; }

STUB void stub_set_busy(bool is_busy) { busy = is_busy; }

STUB void __cudaRegisterFunction(void** binary, const char* host, char* device, const char* name,
                                 int threads, uint3* thread, uint3* block, dim3* block_dim,
                                 dim3* grid_dim, int* warp_size) {
  names()[host] = name;
  using Function = decltype(&__cudaRegisterFunction);
  static const auto real = reinterpret_cast<Function>(next("__cudaRegisterFunction"));
  real(binary, host, device, name, threads, thread, block, block_dim, grid_dim, warp_size);
}

STUB cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* kernel, void**) {
  return launch(kernel);
}

STUB cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void**, size_t, cudaStream_t) {
  return launch(kernel);
}

STUB cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t) {
  return launch(kernel);
}

STUB cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}

STUB cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  ++counts.queries;
  return cudaSuccess;
}

STUB cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) {
  ++counts.memsets;
  return cudaSuccess;
}

STUB cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) {
  ++counts.copies;
  return cudaSuccess;
}

STUB cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  ++counts.events;
  return cudaSuccess;
}

STUB cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

STUB cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  ++counts.events;
  return cudaSuccess;
}

STUB cudaError_t cudaMalloc(void** memory, size_t bytes) {
  constexpr size_t kAlignment = size_t{2} << 20;
  ++counts.mallocs;
  void* mapped = mmap(nullptr, bytes + kAlignment, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return cudaErrorMemoryAllocation;
  const auto address = reinterpret_cast<uintptr_t>(mapped) + kAlignment - 1;
  *memory = reinterpret_cast<void*>(address / kAlignment * kAlignment);
  return cudaSuccess;
}

STUB cudaError_t cudaFree(void*) { return cudaSuccess; }

STUB cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *available = *total = kMemory;
  return cudaSuccess;
}

STUB cudaError_t cudaGetDeviceCount(int* count) {
  *count = kDevices;
  return cudaSuccess;
}

STUB cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

STUB cudaError_t cudaSetDevice(int device) {
  current_device = device;
  return cudaSuccess;
}

STUB cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof *properties);
  std::strcpy(properties->name, "none");
  properties->major = 9;
  properties->multiProcessorCount = kMultiprocessors;
  properties->totalGlobalMem = kMemory;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->regsPerMultiprocessor = 1 << 16;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = kSharedBytes;
  for (int& size : properties->maxGridSize) size = (1 << 16) - 1;
  return cudaSuccess;
}

STUB cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int) {
  ++counts.queries;
  *value = name == cudaDevAttrMultiProcessorCount            ? kMultiprocessors
           : name == cudaDevAttrMaxSharedMemoryPerBlockOptin ? kSharedBytes
           : name == cudaDevAttrComputeCapabilityMajor       ? 9
                                                             : 0;
  return cudaSuccess;
}

STUB cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  static uintptr_t last = 0;
  *stream = reinterpret_cast<cudaStream_t>(last += 0x100);
  return cudaSuccess;
}

STUB cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreateWithPriority(stream, 0, 0);
}

STUB cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

STUB cudaError_t cudaStreamSynchronize(cudaStream_t) {
  ++counts.waits;
  return cudaSuccess;
}

STUB cudaError_t cudaDeviceSynchronize() {
  ++counts.waits;
  return cudaSuccess;
}

STUB cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(uintptr_t{1});
  return cudaSuccess;
}

STUB cudaError_t cudaEventQuery(cudaEvent_t) { return busy ? cudaErrorNotReady : cudaSuccess; }

STUB cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  std::memset(attributes, 0, sizeof *attributes);
  attributes->type = cudaMemoryTypeDevice;
  return cudaSuccess;
}

STUB cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

STUB cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

STUB cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}

// The only function that PyTorch takes from the driver; this library defines it too.
STUB int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return 0;
}

#define ALWAYS_WELL(name, ...) \
  STUB cudaError_t name(__VA_ARGS__) { return cudaSuccess; }
ALWAYS_WELL(cudaGetLastError)
ALWAYS_WELL(cudaPeekAtLastError)
ALWAYS_WELL(cudaThreadExchangeStreamCaptureMode, cudaStreamCaptureMode*)
ALWAYS_WELL(cudaStreamQuery, cudaStream_t)
ALWAYS_WELL(cudaEventDestroy, cudaEvent_t)
