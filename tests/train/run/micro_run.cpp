#include "tests/train/run/micro_run.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/hdf5/file.h"
#include "data/records/routing_view.h"
#include "data/tokens/shard_writer.h"
#include "tests/places.h"

#ifndef ROUTESCOPE_MPIEXEC
#define ROUTESCOPE_MPIEXEC "mpirun"  // tests that start ranks are only built with MPI
#endif

namespace routescope::testing {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kVocabulary = 257;

constexpr const char* kConfig = R"(run: {{dir: unset, seed: 7}}
device: cpu
precision: f32
model:
  residual: block_attn_res
  attn_res: {{source: block_sum, num_blocks: 2}}
  vocab_size: 257
  hidden_size: 32
  intermediate_size: 64
  num_hidden_layers: 4
  num_attention_heads: 4
  num_key_value_heads: 2
  head_dim: 8
data: {{train: ['{0}/train.bin'], valid: ['{0}/valid.bin'], sequence_length: 16}}
train:
  steps: 12
  tokens_per_step: 64
  micro_batch: 2
  optimizer: {{learning_rate: 1e-2}}
  schedule: {{kind: cosine, warmup_steps: 3}}
valid: {{every: 4, tokens: 80}}
checkpoint: {{every: 3, log_spaced_until: 4}}
routing: {{every: 2, log_spaced_until: 4, sequences: 3, per_token_every: 5}}
)";

std::vector<std::string> file_names(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

/// Bytes that depend on the previous byte, so that a model can learn something.
void write_stream(const fs::path& file, std::int64_t tokens, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  std::int32_t id = 0;
  for (std::int32_t& out : ids) {
    id = random() % 4 == 0 ? static_cast<std::int32_t>(random() % kVocabulary) : (id * 5 + 3) % kVocabulary;
    out = id;
  }
  data::ShardWriter writer(file, kVocabulary);
  writer.append(ids);
  writer.finish();
}

template <class T>
void expect_same_bits(const std::vector<T>& found, const std::vector<T>& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  if (found.empty()) return;
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)), 0) << what << " differs";
}

/// Name and state of a process, and where in the kernel each of its threads waits.
std::string description_of(pid_t process) {
  const fs::path dir = fs::path("/proc") / std::to_string(process);
  std::string text = "process " + std::to_string(process);
  std::ifstream status(dir / "status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Name:") || line.starts_with("State:") || line.starts_with("Sig")) text += "; " + line;
  }
  std::error_code ended;
  for (const auto& task : fs::directory_iterator(dir / "task", ended)) {
    std::string where;
    std::getline(std::ifstream(task.path() / "wchan"), where);
    text += "; thread " + task.path().filename().string() + " waits in " + where;
  }
  return text;
}

bool is_launcher(pid_t process) {
  std::string name;
  std::getline(std::ifstream("/proc/" + std::to_string(process) + "/comm"), name);
  return name.starts_with("mpi") || name == "orterun" || name == "prterun";
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (fs::temp_directory_path() / "routescope-train-XXXXXX").string();
  if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp failed");
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

MicroRun::MicroRun() {
  // A second thread does not help a micro model, and on a busy machine waiting for it takes most of the time.
  omp_set_num_threads(1);
  spdlog::set_level(spdlog::level::off);
  write_stream(directory_ / "train.bin", 2000, 11);
  write_stream(directory_ / "valid.bin", 200, 12);
  data::write_text_atomically(config_file(), fmt::format(kConfig, directory_.path().string()));
}

train::TrainConfig MicroRun::config(const std::string& run, std::vector<std::string> overrides) const {
  overrides.insert(overrides.begin(), "run.dir=" + dir(run).string());
  train::TrainConfig config = train::load_config(config_file(), overrides);
  train::resolve_backend(config);
  return config;
}

train::LoopResult MicroRun::train(const std::string& run, std::vector<std::string> overrides,
                                  std::function<int(std::int64_t)> stop) const {
  train::LoopOptions options;
  if (stop) options.stop = std::move(stop);
  options.matrix_rate_seconds = 0;
  return train::run_training(config(run, std::move(overrides)), options);
}

pid_t MicroRun::start(const std::string& run, const std::vector<std::string>& overrides,
                      const std::function<void()>& prepare, int ranks) const {
  const std::string binary = testing::bin_dir() + "/routescope-train";
  std::vector<std::string> arguments;
  if (ranks > 0) {
    // More ranks than cores: no rank is bound to a core.
    arguments = {ROUTESCOPE_MPIEXEC, "--oversubscribe", "--bind-to", "none", "-n", std::to_string(ranks)};
  }
  arguments.insert(arguments.end(), {binary, config_file().string(), "run.dir=" + dir(run).string()});
  arguments.insert(arguments.end(), overrides.begin(), overrides.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const std::string out = dir(run).string() + ".out", err = dir(run).string() + ".err";
  const pid_t child = ::fork();
  if (child != 0) return child;
  for (const auto& [name, descriptor] : {std::pair{out, STDOUT_FILENO}, std::pair{err, STDERR_FILENO}}) {
    const int file = ::open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(file, descriptor);
  }
  ::setenv("OMP_NUM_THREADS", "1", 1);
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
  // Open MPI runs as root only with both variables.
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  if (prepare) prepare();
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

MicroRun::Finished MicroRun::wait(pid_t child, const std::string& run) const {
  // Far more than a micro run takes anywhere: what hangs is described here, before the limit of the whole test.
  constexpr auto kLimit = std::chrono::minutes(10);
  // Open MPI's launcher locks itself out at its end (in PMIx_server_finalize) if a rank died while it connected.
  constexpr auto kLaunchersLimit = std::chrono::minutes(1);
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  int status = 0;
  auto last_look = begin;
  for (auto last_with_ranks = begin; ::waitpid(child, &status, WNOHANG) != child;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (Clock::now() - last_look < std::chrono::seconds(1)) continue;
    last_look = Clock::now();
    std::vector<pid_t> processes = children_of(child);
    if (!is_launcher(child) || !processes.empty()) last_with_ranks = Clock::now();
    const bool hangs = Clock::now() - begin > kLimit;
    if (!hangs && Clock::now() - last_with_ranks < kLaunchersLimit) continue;
    processes.push_back(child);
    for (const pid_t process : processes) {
      if (hangs) ADD_FAILURE() << run << " hangs: " << description_of(process);
      ::kill(process, SIGKILL);
    }
    ::waitpid(child, &status, 0);
    break;
  }
  Finished finished;
  finished.status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  finished.out = data::read_text(dir(run).string() + ".out");
  finished.err = data::read_text(dir(run).string() + ".err");
  return finished;
}

MicroRun::Finished MicroRun::execute(const std::string& run, const std::vector<std::string>& overrides,
                                     const std::function<void()>& prepare, int ranks) const {
  return wait(start(run, overrides, prepare, ranks), run);
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (!std::ranges::all_of(name, [](unsigned char c) { return std::isdigit(c) != 0; })) continue;
    std::ifstream file(entry.path() / "stat");
    std::string stat;
    std::getline(file, stat);
    // PID (COMMAND) STATE PPID ...; a command may hold spaces and parentheses.
    const std::size_t end = stat.rfind(')');
    if (end == std::string::npos || end + 4 >= stat.size() || stat[end + 2] == 'Z') continue;
    if (std::stol(stat.substr(end + 4)) == parent) children.push_back(static_cast<pid_t>(std::stol(name)));
  }
  std::ranges::sort(children);
  return children;
}

std::vector<std::string> checkpoint_names(const fs::path& run_dir) {
  return file_names(run_dir / "checkpoints");
}

void expect_same_record(const fs::path& found_file, const fs::path& expected_file) {
  const data::RoutingRecordView found = data::RoutingRecordView::load(found_file),
                                expected = data::RoutingRecordView::load(expected_file);
  EXPECT_EQ(found.info.reads, expected.info.reads);
  EXPECT_EQ(found.info.sources, expected.info.sources);
  EXPECT_EQ(found.info.probe_tokens, expected.info.probe_tokens);
  EXPECT_EQ(found.info.probe_documents, expected.info.probe_documents);
  ASSERT_EQ(found.train.size(), expected.train.size());
  for (std::size_t i = 0; i < found.train.size(); ++i) {
    const data::TrainRow &a = found.train[i], &b = expected.train[i];
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.tokens_seen, b.tokens_seen);
    EXPECT_EQ(a.loss, b.loss) << "training loss at step " << a.step;
    EXPECT_EQ(a.learning_rate, b.learning_rate);
    EXPECT_EQ(a.grad_norm, b.grad_norm) << "gradient norm at step " << a.step;
  }
  ASSERT_EQ(found.valid.size(), expected.valid.size());
  for (std::size_t i = 0; i < found.valid.size(); ++i) {
    EXPECT_EQ(found.valid[i].step, expected.valid[i].step);
    EXPECT_EQ(found.valid[i].loss, expected.valid[i].loss) << "validation loss at step " << found.valid[i].step;
  }
  ASSERT_EQ(found.snapshots.size(), expected.snapshots.size());
  for (std::size_t i = 0; i < found.snapshots.size(); ++i) {
    const data::RoutingSnapshot &a = found.snapshots[i], &b = expected.snapshots[i];
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.tokens_seen, b.tokens_seen);
    const std::string at = " of the snapshot at step " + std::to_string(a.step);
    expect_same_bits(a.alpha_mean, b.alpha_mean, "alpha_mean" + at);
    expect_same_bits(a.alpha_std, b.alpha_std, "alpha_std" + at);
    expect_same_bits(a.alpha_entropy, b.alpha_entropy, "alpha_entropy" + at);
    expect_same_bits(a.source_rms, b.source_rms, "source_rms" + at);
    expect_same_bits(a.contribution_mean, b.contribution_mean, "contribution_mean" + at);
    expect_same_bits(a.norm_mass_mean, b.norm_mass_mean, "norm_mass_mean" + at);
    expect_same_bits(a.query, b.query, "query" + at);
    expect_same_bits(a.gain, b.gain, "gain" + at);
    expect_same_bits(a.bias, b.bias, "bias" + at);
  }
  EXPECT_EQ(found.alpha_steps, expected.alpha_steps);
  data::hdf5::Shape found_shape, expected_shape;
  const auto found_alpha = data::hdf5::File::open(found_file).read<float>("alpha", &found_shape);
  const auto expected_alpha = data::hdf5::File::open(expected_file).read<float>("alpha", &expected_shape);
  EXPECT_EQ(found_shape, expected_shape);
  expect_same_bits(found_alpha, expected_alpha, "alpha");
}

void expect_same_run(const fs::path& found, const fs::path& expected) {
  const std::vector<std::string> found_names = checkpoint_names(found), expected_names = checkpoint_names(expected);
  ASSERT_FALSE(expected_names.empty());
  ASSERT_FALSE(found_names.empty());
  EXPECT_EQ(found_names.back(), expected_names.back());
  for (const std::string& name : expected_names) {
    if (std::ranges::find(found_names, name) == found_names.end()) continue;
    const std::vector<std::string> files = file_names(expected / "checkpoints" / name);
    EXPECT_EQ(file_names(found / "checkpoints" / name), files) << name;
    for (const std::string& file : files) {
      const fs::path other = found / "checkpoints" / name / file;
      EXPECT_TRUE(fs::exists(other) &&
                  data::read_text(other) == data::read_text(expected / "checkpoints" / name / file))
          << name << "/" << file << " differs";
    }
  }
  expect_same_record(found / "routing.h5", expected / "routing.h5");
}

}  // namespace routescope::testing
