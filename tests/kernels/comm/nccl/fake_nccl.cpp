#include "tests/kernels/comm/nccl/fake_nccl.h"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "kernels/bf16.h"
#include "tests/kernels/comm/nccl/fake_cuda.h"

namespace routescope::testing {

namespace {

constexpr std::size_t bytes_of_connection = std::size_t{24} << 20;

/// What one rank brings to a collective.
struct Part {
  const void* send = nullptr;
  void* receive = nullptr;
};

/// A collective of a communicator, as its first rank called it.
struct Round {
  std::string kind;
  std::size_t count = 0;
  ncclDataType_t type = ncclFloat32;
  std::vector<Part> parts;
  int here = 0;
  bool done = false;
};

/// All ranks of one communicator.
struct Group {
  int size = 0;
  std::mutex mutex;
  std::condition_variable changed;
  int started = 0;
  std::map<std::uint64_t, Round> rounds;
  std::map<std::string, int> connecting;  // ranks that have come, by kind of connection
};

struct Fake {
  FakeNccl settings;
  std::mutex mutex;
  std::vector<std::string> broken;
  std::map<std::string, std::shared_ptr<Group>> groups;
  std::vector<ncclComm_t> communicators;  // also after they were freed, so that a later use is noticed
  std::atomic<int> threads = 0, aborts = 0, ids = 0;
  std::atomic<bool> network_broken = false;
};
Fake& fake() {
  static auto* const one = new Fake;
  return *one;
}

void broke(const std::string& rule) {
  const std::lock_guard lock(fake().mutex);
  fake().broken.push_back(rule);
}

}  // namespace
}  // namespace routescope::testing

using namespace routescope::testing;  // NOLINT(google-build-using-namespace)

struct ncclComm {
  std::shared_ptr<Group> group;
  int rank = 0;
  bool blocking = true;
  std::atomic<bool> freed = false, stopped = false;
  std::uint64_t rounds = 0;
  std::set<std::string> connected;
  std::atomic<const char*> in_use = nullptr;
  // The job of the last call of a communicator that does not block, until somebody asks for its outcome.
  std::atomic<bool> job_done = true;
  std::unique_ptr<std::thread> job;
};

namespace {

/// A call of a communicator, while it lasts.
class Use {
 public:
  Use(ncclComm_t comm, const char* name) : comm_(comm) {
    if (comm->freed) broke(std::string(name) + " after the communicator was freed");
    if (const char* other = comm->in_use.exchange(name))
      broke(std::string(name) + " while another thread is in " + other);
    std::this_thread::sleep_for(fake().settings.call_time);
  }
  ~Use() { comm_->in_use = nullptr; }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  ncclComm_t comm_;
};

std::size_t size_of(ncclDataType_t type) {
  return type == ncclFloat64 ? 8 : type == ncclBfloat16 ? 2 : 4;
}

/// Element `at` of the sum, in the order of ranks from the second on: another order than a serial program's.
void sum_into(const Round& round, int rank) {
  const auto ranks = round.parts.size();
  const std::size_t size = size_of(round.type), offset = static_cast<std::size_t>(rank) * round.count;
  std::vector<std::byte> out(round.count * size);
  const auto add = [&]<class T, class Load, class Store>(T, const Load& load, const Store& store) {
    for (std::size_t i = 0; i < round.count; ++i) {
      T sum = 0;
      for (std::size_t r = 0; r < ranks; ++r) sum += load(round.parts[(r + 1) % ranks].send, offset + i);
      store(i, sum);
    }
  };
  if (round.type == ncclFloat64)
    add(
        double{}, [](const void* data, std::size_t i) { return static_cast<const double*>(data)[i]; },
        [&](std::size_t i, double sum) { reinterpret_cast<double*>(out.data())[i] = sum; });
  else if (round.type == ncclBfloat16)
    add(
        float{},
        [](const void* data, std::size_t i) {
          return routescope::kernels::to_float(static_cast<const routescope::kernels::bf16*>(data)[i]);
        },
        [&](std::size_t i, float sum) {
          reinterpret_cast<routescope::kernels::bf16*>(out.data())[i] = routescope::kernels::to_bf16(sum);
        });
  else
    add(
        float{}, [](const void* data, std::size_t i) { return static_cast<const float*>(data)[i]; },
        [&](std::size_t i, float sum) { reinterpret_cast<float*>(out.data())[i] = sum; });
  std::memcpy(round.parts[static_cast<std::size_t>(rank)].receive, out.data(), out.size());
}

/// By the last rank that comes, for all.
void exchange(const Round& round) {
  const int ranks = static_cast<int>(round.parts.size());
  if (round.kind == "ncclReduceScatter") {
    for (int r = 0; r < ranks; ++r) sum_into(round, r);
    return;
  }
  const std::size_t bytes = round.count * size_of(round.type);
  for (int from = 0; from < ranks; ++from)
    for (const Part& to : round.parts) {
      auto* place = static_cast<std::byte*>(to.receive) + static_cast<std::size_t>(from) * bytes;
      const void* source = round.parts[static_cast<std::size_t>(from)].send;
      if (place != source) std::memmove(place, source, bytes);
    }
}

/// On the stream: waits for the other ranks.
void meet(ncclComm_t comm, std::uint64_t number, const Round& mine, const Part& part) {
  Group& group = *comm->group;
  std::unique_lock lock(group.mutex);
  Round& round = group.rounds[number];
  if (round.here == 0) {
    round = mine;
    round.parts.resize(static_cast<std::size_t>(group.size));
  } else if (round.kind != mine.kind || round.count != mine.count || round.type != mine.type) {
    broke(mine.kind + " of " + std::to_string(mine.count) + " elements while another rank is in " + round.kind +
          " of " + std::to_string(round.count));
    group.changed.wait(lock, [&] { return comm->stopped.load(); });  // as NCCL does: for ever
    return;
  }
  round.parts[static_cast<std::size_t>(comm->rank)] = part;
  if (++round.here == group.size) {
    exchange(round);
    round.done = true;
    group.changed.notify_all();
  }
  group.changed.wait(lock, [&] { return round.done || comm->stopped; });
}

/// Ranks wait for each other until all have come, and each takes memory.
void connect(ncclComm_t comm, const std::string& kind) {
  if (!comm->connected.insert(kind).second) return;
  Group& group = *comm->group;
  std::unique_lock lock(group.mutex);
  ++group.connecting[kind];
  group.changed.notify_all();
  group.changed.wait(lock, [&] { return group.connecting[kind] >= group.size || comm->stopped; });
  take_fake_memory(bytes_of_connection);
}

ncclResult_t in_turn(ncclComm_t comm, std::function<void()> act) {
  if (comm->blocking) {
    act();
    return ncclSuccess;
  }
  if (comm->job) broke("a collective before the outcome of the last one was asked for");
  comm->job_done = false;
  ++fake().threads;
  int device = 0;
  cudaGetDevice(&device);
  comm->job = std::make_unique<std::thread>([comm, device, act = std::move(act)] {
    cudaSetDevice(device);
    act();
    comm->job_done = true;
  });
  return ncclInProgress;
}

ncclResult_t start(const char* kind, const void* send, void* receive, std::size_t count, ncclDataType_t type,
                   ncclComm_t comm, cudaStream_t stream) {
  const Use use(comm, kind);
  const std::uint64_t number = ++comm->rounds;
  return in_turn(comm, [=] {
    connect(comm, std::string(kind) + (count * size_of(type) > 65536 ? ", large" : ", small"));
    enqueue_fake(stream, [=] { meet(comm, number, Round{kind, count, type, {}, 0, false}, {send, receive}); });
  });
}

}  // namespace

namespace routescope::testing {

void start_fake_nccl(const FakeNccl& settings) {
  fake().settings = settings;
  fake().broken.clear();
  fake().threads = fake().aborts = 0;
}
std::vector<std::string> broken_rules() {
  const std::lock_guard lock(fake().mutex);
  return fake().broken;
}
int nccl_threads() {
  return fake().threads;
}
int nccl_aborts() {
  return fake().aborts;
}
void break_fake_network() {
  fake().network_broken = true;
}

}  // namespace routescope::testing

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id->internal, 0, sizeof id->internal);
  const std::string name = "communicator " + std::to_string(++fake().ids);
  std::memcpy(id->internal, name.data(), name.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* out, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  auto* const comm = new ncclComm;
  {
    const std::lock_guard lock(fake().mutex);
    std::shared_ptr<Group>& group = fake().groups[id.internal];
    if (!group) group = std::make_shared<Group>();
    fake().communicators.push_back(comm);
    group->size = size;
    comm->group = group;
  }
  comm->rank = rank;
  comm->blocking = config->blocking != 0;
  *out = comm;
  const Use use(comm, "ncclCommInitRankConfig");
  return in_turn(comm, [comm] { connect(comm, "start"); });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* status) {
  const Use use(comm, "ncclCommGetAsyncError");
  *status = fake().network_broken ? ncclSystemError : comm->job_done ? ncclSuccess : ncclInProgress;
  if (*status == ncclSuccess && comm->job) {
    comm->job->join();
    comm->job.reset();
  }
  return ncclSuccess;
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                               ncclComm_t comm, cudaStream_t stream) {
  return start("ncclReduceScatter", send, receive, count, type, comm, stream);
}
ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return start("ncclAllGather", send, receive, count, type, comm, stream);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const Use use(comm, "ncclCommFinalize");
  return in_turn(comm, [comm] { connect(comm, "end"); });
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const Use use(comm, "ncclCommDestroy");
  comm->freed = true;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const Use use(comm, "ncclCommAbort");
  ++fake().aborts;
  comm->freed = true;
  comm->stopped = true;
  comm->group->changed.notify_all();
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t status) {
  return status == ncclSystemError ? "unhandled system error" : "another error";
}
const char* ncclGetLastError(ncclComm_t) {
  return "nothing";
}

}  // extern "C"
