#include "train/plan/memory.h"

#include <unistd.h>

#include <cstddef>
#include <utility>

#include "data/base/error.h"
#include "kernels/comm/launch.h"
#include "kernels/device.h"
#include "model/pass/model.h"
#include "model/pass/parameters.h"
#include "model/pass/pass.h"
#include "model/pass/reads.h"
#include "train/checkpoint/checkpoint_writer.h"
#include "train/config/run_directory.h"
#include "train/optimizer/buckets.h"
#include "train/optimizer/optimizer.h"
#include "train/plan/throughput.h"

namespace routescope::train {

namespace {

// Resident memory of Open MPI 4.1 in a rank, measured with 2 to 4 ranks on one machine against a process without MPI.
constexpr std::size_t kMpiLibraryBytes = std::size_t{8} << 20;

double gibibytes(std::size_t bytes) {
  return static_cast<double>(bytes) / (1 << 30);
}

std::size_t bytes_of(std::int64_t elements, std::size_t size) {
  return static_cast<std::size_t>(elements) * size;
}

/// Bytes of the largest bucket, in f32.
std::size_t bucket_bytes(const TrainConfig& config, std::int64_t ranks) {
  const Buckets buckets(model::ParameterLayout(config.model, ranks).matrices_end(), config.distributed.bucket_mb,
                        {.size = static_cast<int>(ranks)});
  return bytes_of(buckets[0].size(), sizeof(float));
}

/// Bytes for a step's weights of every probe token: the recorder's rows in f32, and on rank 0 all ranks' rows in f32
/// and the copy in f16 that is written.
std::size_t record_bytes(const TrainConfig& config, std::int64_t ranks, std::int64_t rank) {
  if (config.routing.per_token_every == 0 || !config.model.routed()) return 0;
  const model::ReadPlan plan(config.model);
  const std::int64_t row = plan.num_routed() * plan.num_columns() * config.data.sequence_length;
  const std::int64_t all = row * config.routing.sequences;
  const std::int64_t mine = row * ((config.routing.sequences + ranks - 1) / ranks);
  // One rank keeps its rows while it copies them. Several ranks pack their rows into messages; rank 0 holds all of
  // them.
  if (ranks == 1) return bytes_of(all, 4 + 4 + 2);
  return bytes_of(mine, 4 + 4) + (rank == 0 ? bytes_of(all, 4 + 4 + 2) : 0);
}

}  // namespace

std::size_t available_bytes(const std::string& device) {
  if (device == "cpu") {
    const auto present =
        static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return present / 10 * 9;
  }
  if (!kernels::cuda_available()) return 0;
  const std::size_t free = kernels::device_info().free_bytes;
  return free > device_reserve ? free - device_reserve : 0;
}

std::vector<kernels::Arena::Part> memory_parts(const TrainConfig& config, std::int64_t ranks) {
  const model::ModelOptions options = config.model_options();
  std::vector<kernels::Arena::Part> parts =
      training_arrays(config.model, options, config.train.optimizer, config.distributed, static_cast<int>(ranks));
  for (kernels::Arena::Part& part :
       model::Pass::plan_memory(config.model, options, config.train.micro_batch, config.data.sequence_length,
                                model::Pass::Kind::train, config.pass_options()))
    parts.push_back(std::move(part));
  // ShardedParameters::gather(): ranks have shares of the f32 masters; rank 0 collects the whole, a bucket at a time.
  if (ranks > 1 && config.distributed.zero == 1 && options.operands != options.storage)
    parts.push_back({"checkpoints: a bucket of masters", bucket_bytes(config, ranks)});
  return parts;
}

std::vector<kernels::Arena::Part> host_memory_parts(const TrainConfig& config, std::int64_t ranks, std::int64_t rank) {
  const model::ParameterLayout layout(config.model, ranks);
  const std::int64_t matrices = layout.matrices_end(), vectors = layout.total() - matrices;
  std::vector<kernels::Arena::Part> parts;
  if (ranks > 1 && config.device == "cpu") {
    const std::size_t bucket = bucket_bytes(config, ranks);
    parts.push_back({"communication staging", kernels::communicator_staging_bytes(static_cast<int>(ranks), bucket)});
    parts.push_back({"MPI library", kMpiLibraryBytes});
  }
  // Each rank writes the state of its share of the matrices, rank 0 that of the vectors as well.
  const std::int64_t written = matrices / ranks + (rank == 0 ? vectors : 0);
  const auto slots = static_cast<std::int64_t>(make_update_rule(config.train.optimizer)->slots().size());
  const model::ModelOptions options = config.model_options();
  if (config.checkpoint.async == "on")
    parts.push_back(
        {"checkpoint being written", checkpoint_host_bytes(layout.total(), slots * written, static_cast<int>(rank))});
  else if (rank == 0 && ranks > 1 && config.distributed.zero == 1 && options.operands != options.storage)
    parts.push_back({"checkpoint being written", checkpoint_host_bytes(layout.total(), 0, 0)});  // masters, gathered
  if (config.device == "cpu") parts.push_back({"matrices timed at the start", matrix_rate_bytes(options)});
  if (const std::size_t record = record_bytes(config, ranks, rank); record > 0)
    parts.push_back({"routing weights by token", record});
  return parts;
}

std::size_t total_bytes(const std::vector<kernels::Arena::Part>& parts) {
  std::size_t total = 0;
  for (const kernels::Arena::Part& part : parts) total += part.bytes;
  return total;
}

std::string memory_table(const std::vector<kernels::Arena::Part>& parts) {
  const auto line = [](const std::string& name, std::size_t bytes) {
    return fmt::format("  {:<34} {:>12.1f}\n", name, static_cast<double>(bytes) / (1 << 20));
  };
  std::string text = "memory       MiB\n";
  for (const kernels::Arena::Part& part : parts) text += line(part.name, part.bytes);
  return text + line("total", total_bytes(parts));
}

std::int64_t largest_micro_batch(const TrainConfig& config, std::size_t bytes, std::int64_t ranks,
                                 std::size_t besides) {
  TrainConfig tried = config;
  for (std::int64_t batch = config.sequences_per_step() / ranks; batch > 0; --batch) {
    if (config.sequences_per_step() % batch != 0) continue;
    tried.train.micro_batch = batch;
    std::size_t needed = total_bytes(memory_parts(tried, ranks)) + besides;
    if (config.device == "cpu") needed += total_bytes(host_memory_parts(tried, ranks));
    if (needed <= bytes) return batch;
  }
  return 0;
}

void resolve_recompute(TrainConfig& config, std::int64_t ranks) {
  const bool device = config.device == "cuda" && kernels::cuda_available();
  const bool choose = config.kernels.recompute == "auto";
  if (choose) config.kernels.recompute = "none";
  if (!device) return;
  const std::size_t available = available_bytes(config.device);
  const auto held = held_config(config.run.dir);
  if (choose && held && held->device == config.device && held->train.micro_batch == config.train.micro_batch) {
    config.kernels.recompute = held->kernels.recompute;
  } else if (choose && least_recompute(config, available, ranks)) {
    return;
  }
  if (const std::size_t needed = total_bytes(memory_parts(config, ranks)); needed > available) {
    throw data::Error(
        "train.micro_batch: found {}, which needs {:.1f} GiB with kernels.recompute={}, while {} has {:.1f} GiB free: "
        "expected at most {}",
        config.train.micro_batch, gibibytes(needed), config.kernels.recompute, kernels::device_info().name,
        gibibytes(available), largest_micro_batch(config, available, ranks));
  }
}

bool least_recompute(TrainConfig& config, std::size_t bytes, std::int64_t ranks) {
  for (const char* level : recompute_levels) {
    config.kernels.recompute = level;
    if (total_bytes(memory_parts(config, ranks)) <= bytes) return true;
  }
  return false;
}

}  // namespace routescope::train
