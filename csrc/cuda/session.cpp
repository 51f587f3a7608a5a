// What a call takes from PyTorch (device, stream and memory), and what it asks the device.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "arena.h"
#include "backend.h"

namespace usucl::cuda {
namespace {

// Facts that do not change while a process runs and that take longer to query than a launch.
struct DeviceFacts {
  int64_t multiprocessors;
  int64_t shared_bytes;
  int64_t major, minor;  // compute capability

  explicit DeviceFacts(int32_t device)
      : multiprocessors(attribute(cudaDevAttrMultiProcessorCount, device)),
        shared_bytes(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)),
        major(attribute(cudaDevAttrComputeCapabilityMajor, device)),
        minor(attribute(cudaDevAttrComputeCapabilityMinor, device)) {}

 private:
  static int64_t attribute(cudaDeviceAttr name, int32_t device) {
    int value = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, device));
    return value;
  }
};

const DeviceFacts& facts_of(int32_t device) {
  static std::mutex mutex;
  static std::map<int32_t, DeviceFacts> known;  // its elements never move
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device);
  return found != known.end() ? found->second : known.emplace(device, device).first->second;
}

// Products by Hopper's warpgroups have been faster in every measurement (docs/cuda.md). To measure
// the alternative on Hopper, USUCL_CUDA_WARPGROUPS=0 turns them off.
bool takes_warpgroups(const DeviceFacts& facts) {
#if defined(USUCL_BUILT_FOR_HOPPER)
  const char* wish = std::getenv("USUCL_CUDA_WARPGROUPS");
  return !(wish != nullptr && wish[0] == '0') && facts.major == 9 && facts.minor == 0;
#else
  static_cast<void>(facts);
  return false;
#endif
}

// For tests: forces the launches of large problems, or sets how many pairs make tensor cores
// worthwhile.
int64_t wished(const char* name, int64_t usual) {
  const char* wish = std::getenv(name);
  return wish == nullptr ? usual : std::atoll(wish);
}

// A second stream of a device, with events for where it forks and joins.
struct SideStream {
  cudaStream_t stream;
  cudaEvent_t begun, ended;
};

// The streams that no call is using. They are created when calls overlap and kept until the process
// ends: an event may be recorded again once all streams that should wait for it have been told to.
class SideStreams {
 public:
  static SideStream take(int32_t device) {
    {
      const std::lock_guard<std::mutex> lock(mutex());
      auto& idle = of_device(device);
      if (!idle.empty()) {
        const SideStream taken = idle.back();
        idle.pop_back();
        return taken;
      }
    }
    SideStream made{};
    STD_CUDA_CHECK(cudaStreamCreateWithFlags(&made.stream, cudaStreamNonBlocking));
    STD_CUDA_CHECK(cudaEventCreateWithFlags(&made.begun, cudaEventDisableTiming));
    STD_CUDA_CHECK(cudaEventCreateWithFlags(&made.ended, cudaEventDisableTiming));
    return made;
  }

  static void give_back(int32_t device, const SideStream& side) {
    const std::lock_guard<std::mutex> lock(mutex());
    of_device(device).push_back(side);
  }

 private:
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }

  static std::vector<SideStream>& of_device(int32_t device) {
    static std::map<int32_t, std::vector<SideStream>> idle;
    return idle[device];
  }
};

class BesideStream : public Beside {
 public:
  BesideStream(int32_t device, cudaStream_t stream) : device_(device), stream_(stream) {}
  BesideStream(const BesideStream&) = delete;
  BesideStream& operator=(const BesideStream&) = delete;

  // The call's memory returns to the call's stream only after the join.
  ~BesideStream() override { join(); }

  cudaStream_t fork() override {
    side_ = SideStreams::take(device_);
    forked_ = true;
    cudaEventRecord(side_.begun, stream_);
    cudaStreamWaitEvent(side_.stream, side_.begun, 0);
    return side_.stream;
  }

  void join() override {
    if (!forked_) return;
    forked_ = false;
    cudaEventRecord(side_.ended, side_.stream);
    cudaStreamWaitEvent(stream_, side_.ended, 0);
    SideStreams::give_back(device_, side_);
  }

 private:
  int32_t device_;
  cudaStream_t stream_;
  SideStream side_{};
  bool forked_ = false;
};

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// Memory of the current stream, not reused by another stream before this one's kernels are done.
void* allocate(int64_t bytes) {
  void* piece = nullptr;
  const auto failed =
      aoti_torch_cuda_caching_allocator_raw_alloc(static_cast<uint64_t>(bytes), &piece);
  STD_TORCH_CHECK(failed == AOTI_TORCH_SUCCESS && piece != nullptr,
                  "CUDA out of memory: usucl could not allocate ", bytes, " bytes");
  return piece;
}

void release(void* piece) {
  // A failure cannot be handled here, and must not leave a destructor.
  static_cast<void>(aoti_torch_cuda_caching_allocator_raw_delete(piece));
}

}  // namespace

struct Session::State {
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
  Arena arena;
  BesideStream beside;  // joins before the arena's memory goes back
  Call call;

  State(int32_t device, const DeviceFacts& facts)
      : guard(device),
        stream(current_stream(device)),
        arena({&allocate, &release}, stream),
        beside(device, stream),
        call{arena,
             stream,
             facts.multiprocessors,
             facts.shared_bytes,
             facts.major >= 8,
             takes_warpgroups(facts),
             wished("USUCL_CUDA_ONE_LAUNCH", 1) != 0,
             wished("USUCL_CUDA_SMALLEST_DENSE", int64_t{1} << 20),
             nullptr,
             &beside} {}
};

Session::Session(int32_t device) : state_(std::make_unique<State>(device, facts_of(device))) {}
Session::~Session() = default;

const Call& Session::call() const { return state_->call; }

void Session::check() const { STD_CUDA_KERNEL_LAUNCH_CHECK(); }

}  // namespace usucl::cuda
