#include "train/checkpoint/checkpoint_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/comm/agree.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "model/files/safetensors.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/checkpoint/checkpoint_job.h"
#include "train/checkpoint/checkpoint_retention.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

/// Adds its lifetime in seconds to `sum`.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum) {}
  ~Stopwatch() { sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& sum_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

std::string to_text(const std::vector<data::ManifestEntry>& files) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [name, bytes, sha256] : files) list.push_back({name, bytes, sha256});
  return list.dump();
}

/// The files of all ranks, from each rank's to_text(). Throws Error if rank 0 cannot see one of them: the ranks do not
/// share a file system, and the manifest would list a file that is elsewhere.
std::vector<data::ManifestEntry> merge(const std::vector<std::string>& texts, const fs::path& dir) {
  std::vector<data::ManifestEntry> all;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    for (const auto& file : nlohmann::json::parse(texts[rank])) {
      const data::ManifestEntry entry{file.at(0), file.at(1), file.at(2)};
      std::error_code error;
      if (const auto found = fs::file_size(dir / entry.name, error); error || found != entry.bytes)
        throw data::Error(
            "{}: found {}, expected the {} bytes that rank {} wrote (run.dir must be on one file system that all "
            "ranks share)",
            (dir / entry.name).string(), error ? error.message() : fmt::format("{} bytes", found), entry.bytes, rank);
      all.push_back(entry);
    }
  }
  return all;
}

}  // namespace

struct CheckpointWriter::Impl {
  /// Numbers of a file: where training keeps them, and their copy in host memory.
  struct Source {
    kernels::Tensor live, staged;
  };

  Impl(fs::path run_dir_, const model::Model& model_, Optimizer& optimizer_, kernels::Communicator& communicator_,
       const Options& options_)
      : run_dir(std::move(run_dir_)),
        model(model_),
        optimizer(optimizer_),
        communicator(communicator_),
        options(options_),
        state_items(state_tensors(model_.layout(), optimizer_.state())) {
    for (const model::ParameterInfo& info : model.layout().all()) {
      if (!first()) break;
      parameter_items.push_back({info.name, info.shape, {}});
      if (model.has_matrices()) sources.push_back({model.flat().slice(info.offset, {info.size}), {}});
    }
    for (const StateTensor& tensor : state_items) {
      for (const kernels::Tensor& part : tensor.parts) sources.push_back({part, {}});
    }
    if (options.async) stage();
    if (first())
      retention.emplace(run_dir, Kept{options.keep, options.keep_state, options.weights_dtype}, options.intact);
  }

  /// Allocates host memory for everything that this rank writes, and touches it: if memory is short, the run ends at
  /// its start.
  void stage() {
    std::int64_t count = 0;
    for (const Source& source : sources) count += source.live.numel();
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    staging = kernels::PinnedBuffer(std::max<std::size_t>(bytes, 1));
    std::memset(staging.data(), 0, bytes);
    const kernels::Tensor all(staging.data(), kernels::DType::f32, kernels::Device::cpu, {count});
    std::int64_t next = 0;
    for (Source& source : sources) {
      source.staged = all.slice(next, {source.live.numel()});
      next += source.live.numel();
    }
  }

  /// Copies the numbers to where the writing thread reads them. Training may change them afterwards. Collective.
  void copy_numbers() {
    const kernels::Stream stream{.device = model.options().device};
    optimizer.parameters().finish(stream);
    if (!model.has_matrices()) gathered = optimizer.parameters().gather(stream);
    if (!options.async) return;
    for (const Source& source : sources) {
      if (source.live.dtype == kernels::DType::f32)
        kernels::copy(source.staged, source.live, stream);
      else
        kernels::cast(source.staged, source.live, stream);
    }
    kernels::synchronize(stream);
  }

  bool first() const { return communicator.rank() == 0; }
  fs::path final_dir() const { return data::checkpoint_dir(run_dir, state.step); }

  /// The files of this rank. `sources` are in the order in which the files need them.
  std::vector<FileToWrite> files() const {
    std::vector<FileToWrite> out;
    std::size_t next = 0;
    const auto take = [&](FileToWrite& file, std::size_t count) {
      for (const std::size_t end = next + count; next < end; ++next)
        file.data.push_back(options.async ? sources[next].staged : sources[next].live);
    };
    if (first()) {
      out.push_back({"config.json", model.config().to_json().dump(2) + "\n", {}});
      out.push_back({"model.safetensors", model::safetensors_header(parameter_items, {{"format", "pt"}}), {}});
      if (model.has_matrices()) take(out.back(), parameter_items.size());
      for (const model::ParameterInfo& info : model.layout().all())
        if (!model.has_matrices()) out.back().data.push_back(gathered.tensor.slice(info.offset, {info.size}));
    }
    std::vector<model::SafetensorsItem> items;
    std::size_t parts = 0;
    for (const StateTensor& tensor : state_items) {
      items.push_back({tensor.name, tensor.shape, {}});
      parts += tensor.parts.size();
    }
    out.push_back({state_file_name(communicator.place()), model::safetensors_header(items, state_metadata(state)), {}});
    take(out.back(), parts);
    return out;
  }

  void make_directory() const {
    const fs::path dir = writing_dir(final_dir());
    std::error_code error;
    // The run directory is not made again: if it is gone, the record that belongs to the checkpoint is gone as well.
    fs::create_directory(dir.parent_path(), error);
    if (!error) fs::remove_all(dir, error);
    if (!error) fs::create_directory(dir, error);
    if (error) throw data::Error("{}: cannot be made: {}", dir.string(), error.message());
  }

  /// Runs `body` on every rank. If it fails on any rank, gives up the checkpoint on all ranks and throws.
  void attempt(const std::string& what, const std::function<void()>& body) {
    try {
      kernels::agree(communicator, what, [&] {
        try {
          body();
        } catch (const std::exception& error) {
          throw data::Error("{}; {}", error.what(), last_complete());
        }
      });
    } catch (...) {
      job.reset();
      std::error_code ignored;
      if (first()) fs::remove_all(writing_dir(final_dir()), ignored);
      throw;
    }
  }

  /// For error messages: which earlier checkpoint a run can resume from.
  std::string last_complete() const {
    std::int64_t newest = -1;
    std::error_code error;
    if (fs::is_directory(run_dir, error)) {
      try {
        for (const data::CheckpointEntry& entry : data::list_checkpoints(run_dir))
          if (entry.step < state.step) newest = std::max(newest, entry.step);
      } catch (const std::exception&) {
        return "the checkpoints that are there cannot be listed";
      }
    }
    return newest < 0 ? "no earlier checkpoint is there"
                      : fmt::format("the checkpoint of step {} is the last complete one", newest);
  }

  /// On rank 0, once every rank's files are written.
  void publish(const std::vector<data::ManifestEntry>& written) const {
    const fs::path dir = final_dir(), writing = writing_dir(dir);
    data::write_manifest(writing, written);
    if (fs::exists(dir)) remove_checkpoint(dir);
    rename_directory(writing, dir);
    data::sync_path(dir.parent_path());
  }

  fs::path run_dir;
  const model::Model& model;
  Optimizer& optimizer;
  kernels::Communicator& communicator;
  Options options;
  std::vector<model::SafetensorsItem> parameter_items;  // on rank 0: names and shapes
  std::vector<StateTensor> state_items;                 // this rank's part of the optimizer's state
  std::vector<Source> sources;
  kernels::PinnedBuffer staging;
  // On rank 0, where no rank's model has all matrices: the parameters of the checkpoint that is being written.
  kernels::OwnedTensor gathered;

  TrainState state;  // of the checkpoint that is being written, or of the last one
  std::int64_t completed = -1;
  double seconds_lost = 0;
  std::optional<CheckpointRetention> retention;  // on rank 0
  std::unique_ptr<CheckpointJob> job;            // the last member: its thread reads the members above
};

std::size_t checkpoint_host_bytes(std::int64_t parameters, std::int64_t state, int rank) {
  return static_cast<std::size_t>((rank == 0 ? parameters : 0) + state) * sizeof(float);
}

CheckpointWriter::CheckpointWriter(const fs::path& run_dir, const model::Model& model, Optimizer& optimizer,
                                   kernels::Communicator& communicator, const Options& options)
    : impl_(new Impl(run_dir, model, optimizer, communicator, options)) {}
CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::begin(const TrainState& state) {
  Impl& impl = *impl_;
  if (impl.job) {
    if (impl.first())
      spdlog::info("the checkpoint of step {} waits until that of step {} is written", state.step, impl.state.step);
    finish();
  }
  const Stopwatch stopwatch(impl.seconds_lost);
  impl.state = state;
  impl.attempt(fmt::format("directory of the checkpoint of step {}", state.step), [&] {
    if (impl.first()) impl.make_directory();
  });
  impl.copy_numbers();
  // From here on an error of this rank becomes its vote: the other ranks are writing already.
  impl.job = std::make_unique<CheckpointJob>(writing_dir(impl.final_dir()), impl.files());
  if (impl.options.async) return impl.job->start();
  impl.job->run();
  complete();
}

CheckpointWriter::Vote CheckpointWriter::vote() const {
  if (!impl_->job) return nothing_to_do;
  if (!impl_->job->done()) return still_writing;
  return impl_->job->failed() ? failed : part_written;
}

void CheckpointWriter::settle(int largest_vote) {
  if (impl_->retention) impl_->retention->update();
  if (!impl_->job) return;
  if (largest_vote == failed) impl_->job->give_up();
  if (largest_vote == failed || largest_vote == part_written) finish();
}

void CheckpointWriter::finish() {
  if (!impl_->job) return;
  const Stopwatch stopwatch(impl_->seconds_lost);
  complete();
}

void CheckpointWriter::complete() {
  Impl& impl = *impl_;
  const std::string what = fmt::format("checkpoint of step {}", impl.state.step);
  std::vector<data::ManifestEntry> mine;
  impl.attempt(what, [&] { mine = impl.job->result(); });
  const std::vector<std::string> texts = impl.communicator.gather(to_text(mine), what);
  impl.attempt(what, [&] {
    if (impl.first()) impl.publish(merge(texts, writing_dir(impl.final_dir())));
  });
  impl.job.reset();
  impl.gathered = {};
  impl.completed = impl.state.step;
  if (impl.retention) impl.retention->written(impl.state);
}

std::int64_t CheckpointWriter::completed() const {
  return impl_->completed;
}
double CheckpointWriter::seconds_lost() const {
  return impl_->seconds_lost;
}

}  // namespace routescope::train
