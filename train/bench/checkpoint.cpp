#include "train/bench/checkpoint.h"

#include <fmt/format.h>

#include <chrono>
#include <vector>

#include "data/base/error.h"
#include "kernels/comm/agree.h"
#include "model/pass/pass.h"
#include "train/bench/step/subject.h"
#include "train/checkpoint/checkpoint_writer.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

constexpr int kSteps = 4;  // in a measurement: enough for a checkpoint to become complete

/// A model in training, whose steps and checkpoints are timed.
class Trained {
 public:
  Trained(const CpuBench& arguments, kernels::DType operands, const fs::path& dir, kernels::Communicator& communicator)
      : communicator_(communicator),
        stream_(random_stream(arguments.model.vocab_size,
                              8 * communicator.size() * arguments.batch * arguments.sequence_length + 1)),
        batches_(stream_, arguments.sequence_length, communicator.size() * arguments.batch, 1),
        model_(arguments.model, {.operands = operands, .shards = communicator.size()}),
        optimizer_((model_.initialize(1), model_), {}, communicator, {}),
        gradients_(kernels::DType::f32, kernels::Device::cpu, {model_.layout().total()}),
        pass_(model_, arguments.batch, arguments.sequence_length, model::Pass::Kind::train),
        at_once_(dir, model_, optimizer_, communicator, {.async = false, .keep = 1}),
        beside_(dir, model_, optimizer_, communicator, {.async = true, .keep = 1}) {
    step(beside_);  // the first step touches memory, and oneDNN generates code
  }

  /// Seconds of kSteps steps, with `writer` (or without) starting a checkpoint before them.
  double seconds(CheckpointWriter* writer) {
    communicator_.barrier("a measurement");
    const auto begin = std::chrono::steady_clock::now();
    if (writer) writer->begin({.step = step_, .train_fingerprint = "random", .valid_fingerprint = "none"});
    for (int i = 0; i < kSteps; ++i) step(writer ? *writer : beside_);
    communicator_.barrier("a measurement");
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (writer) writer->finish();  // on a slow disk this takes time, in which training would go on
    return seconds;
  }

  CheckpointWriter& at_once() { return at_once_; }
  CheckpointWriter& beside() { return beside_; }
  std::int64_t parameters() const { return model_.layout().count(); }

 private:
  void step(CheckpointWriter& writer) {
    timed_step(model_, optimizer_, gradients_.tensor, pass_, batches_, communicator_, ++step_);
    double vote = writer.vote();
    communicator_.all_reduce({&vote, 1}, kernels::Reduction::max, "vote");
    writer.settle(static_cast<int>(vote));
  }

  kernels::Communicator& communicator_;
  data::TokenStream stream_;
  data::Batches batches_;
  model::Model model_;
  Optimizer optimizer_;
  kernels::OwnedTensor gradients_;
  model::Pass pass_;
  CheckpointWriter at_once_, beside_;
  std::int64_t step_ = 0;
};

std::uintmax_t bytes_of(const fs::path& dir) {
  std::uintmax_t bytes = 0;
  for (const data::CheckpointEntry& entry : data::list_checkpoints(dir))
    for (const data::ManifestEntry& file : data::list_manifest(entry.dir)) bytes += file.bytes;
  return bytes;
}

void measure(const CpuBench& arguments, kernels::DType operands, const fs::path& dir,
             kernels::Communicator& communicator) {
  Trained trained(arguments, operands, dir, communicator);
  std::vector<double> none, at_once, beside, in_thread;
  for (std::int64_t round = 0; round < arguments.rounds; ++round) {
    none.push_back(trained.seconds(nullptr));
    at_once.push_back(trained.seconds(&trained.at_once()));
    const double before = trained.beside().seconds_lost();
    beside.push_back(trained.seconds(&trained.beside()));
    in_thread.push_back(trained.beside().seconds_lost() - before);
  }
  if (communicator.rank() != 0) return;
  const double step = median(none) / kSteps;
  const auto line = [step](const std::string& name, double seconds) {
    fmt::print("{:<52}{:>10.3f} s  {:>7.1f} % of a step\n", name, seconds, 100 * seconds / step);
  };
  fmt::print("{}, {} rank{}, {:.1f} M parameters, {:.0f} MB a checkpoint\n",
             operands == kernels::DType::bf16 ? "bf16" : "f32", communicator.size(),
             communicator.size() == 1 ? "" : "s", static_cast<double>(trained.parameters()) / 1e6,
             static_cast<double>(bytes_of(dir)) / 1e6);
  line("a step", step);
  line("lost to a checkpoint written at once", median(at_once) - median(none));
  line("lost to one written beside training", median(beside) - median(none));
  line("  of it in the training thread (copies, waiting)", median(in_thread));
  std::fflush(stdout);
}

}  // namespace

void bench_checkpoint(const CpuBench& arguments, const fs::path& dir, kernels::Communicator& communicator) {
  kernels::agree(communicator, "directory", [&] {
    if (communicator.rank() != 0) return;
    if (fs::exists(dir))
      throw data::UsageError("--checkpoint: found {}, expected a directory that does not exist", dir.string());
    fs::create_directories(dir);
  });
  if (arguments.precision != "bf16") measure(arguments, kernels::DType::f32, dir, communicator);
  if (arguments.precision != "f32") measure(arguments, kernels::DType::bf16, dir, communicator);
  communicator.barrier("all is measured");
  std::error_code ignored;
  if (communicator.rank() == 0) fs::remove_all(dir, ignored);
}

}  // namespace routescope::train
