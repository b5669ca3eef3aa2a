#include "model/pass/model.h"

#include <algorithm>
#include <set>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/json.h"
#include "kernels/backends.h"
#include "kernels/ops.h"
#include "model/files/safetensors.h"
#include "model/files/weights.h"

namespace routescope::model {

namespace {

ModelOptions checked(const ModelOptions& options) {
  if (options.device == kernels::Device::cuda && options.storage == kernels::DType::f64)
    throw data::Error("device: found cuda for a model of f64, expected cpu (f64 is the reference's)");
  if (options.storage != kernels::DType::f32 && options.storage != kernels::DType::f64)
    throw std::invalid_argument("a model stores its parameters in f32 or f64");
  if (options.operands != options.storage &&
      !(options.storage == kernels::DType::f32 && options.operands == kernels::DType::bf16))
    throw std::invalid_argument("operands are of the storage type, or bf16 over f32");
  return options;
}

std::uint64_t fnv1a(const std::string& text) {
  std::uint64_t hash = 14695981039346656037ull;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211ull;
  return hash;
}

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

/// Throws Error unless the files hold the tensors of a model of this configuration and no other. Reads headers only:
/// nothing of a model's size is allocated before it is known that the files hold as much.
void check_tensors(const WeightFiles& files, const ModelConfig& config, const ParameterLayout& layout) {
  std::set<std::string> known;
  for (const ParameterInfo& info : layout.all()) known.insert(info.name);
  for (const auto& [name, file] : files.tensors()) {
    // Some writers store the tied head a second time.
    if (known.contains(name) || (name == kHead && config.tie_word_embeddings)) continue;
    throw data::Error("{}: {}: a tensor that a model of this config.json does not have", file->file().string(),
                      data::shortened(name));
  }
  for (const ParameterInfo& info : layout.all()) files.file_of(info.name).expect_shape(info.name, info.shape);
}

/// A head that is stored beside the embedding which config.json ties it to must be equal to it.
void check_tied_head(const WeightFiles& files, const ModelConfig& config) {
  if (!config.tie_word_embeddings || !files.tensors().contains(kHead)) return;
  const SafetensorsReader &head = files.file_of(kHead), &embedding = files.file_of(kEmbedding);
  head.expect_shape(kHead, {config.vocab_size, config.hidden_size});
  const std::int64_t count = config.vocab_size * config.hidden_size, most = std::min<std::int64_t>(count, 1 << 20);
  kernels::OwnedTensor a(kernels::DType::f64, kernels::Device::cpu, {most});
  kernels::OwnedTensor b(kernels::DType::f64, kernels::Device::cpu, {most});
  for (std::int64_t begin = 0; begin < count; begin += most) {
    const std::int64_t n = std::min(most, count - begin);
    const auto x = a.tensor.slice(0, {n}).span<double>(), y = b.tensor.slice(0, {n}).span<double>();
    head.read_elements(kHead, begin, a.tensor.slice(0, {n}));
    embedding.read_elements(kEmbedding, begin, b.tensor.slice(0, {n}));
    const auto [found, expected] = std::ranges::mismatch(x, y);
    if (found != x.end())
      throw data::Error("{}: {}: element {}: found {}, expected {} as in {}: config.json ties them",
                        head.file().string(), kHead, begin + (found - x.begin()), *found, *expected, kEmbedding);
  }
}

}  // namespace

kernels::Device device_from_string(const std::string& text, const std::string& where) {
  if (text == "cpu" || (text == "auto" && !kernels::cuda_available())) {
    if (!kernels::cpu::has_products())
      throw data::Error("{}: found {}, expected a CUDA device: this build has no CPU backend (ROUTESCOPE_CPU is OFF)",
                        where, text);
    return kernels::Device::cpu;
  }
  if (text != "cuda" && text != "auto") throw data::Error("{}: found '{}', expected auto, cpu or cuda", where, text);
  if (!kernels::cuda_built()) throw data::Error("{}: found cuda, expected cpu: this build has no CUDA backend", where);
  if (!kernels::cuda_available()) throw data::Error("{}: found cuda, expected cpu: no CUDA device answers", where);
  return kernels::Device::cuda;
}

Model::Model(const ModelConfig& config, const ModelOptions& options)
    : config_(config),
      options_(checked(options)),
      plan_((config.validate("model"), config)),
      layout_(config, options.shards),
      flat_(options.storage, options.device, {layout_.total()}),
      weights_(config, layout_, flat_.tensor) {
  if (options_.operands == kernels::DType::bf16) {
    operand_flat_ = kernels::OwnedTensor(kernels::DType::bf16, options_.device, {layout_.matrices_end()});
    operand_weights_ = Weights(config_, layout_, operand_flat_.tensor, vectors());
  }
}

void Model::initialize(std::uint64_t seed) {
  const kernels::Stream stream{.device = options_.device};
  kernels::fill(flat(), 0.0, stream);
  for (const ParameterInfo& info : layout_.all()) {
    const kernels::Tensor tensor = flat_.tensor.slice(info.offset, {info.size});
    switch (info.initial) {
      case Initial::normal:
        kernels::random_normal(tensor, config_.initializer_range, seed, fnv1a(info.name), stream);
        break;
      case Initial::ones:
        kernels::fill(tensor, 1.0, stream);
        break;
      case Initial::recency_bias:
        kernels::fill(tensor, config_.recency_bias, stream);
        break;
      case Initial::zeros:
        break;
    }
  }
  refresh_operands();
}

Model Model::load(const std::filesystem::path& dir, const ModelOptions& options) {
  const ModelConfig config = ModelConfig::load(dir / "config.json");
  const WeightFiles files(dir);
  check_tensors(files, config, ParameterLayout(config));
  check_tied_head(files, config);
  Model model(config, options);
  for (const ParameterInfo& info : model.layout_.all())
    files.file_of(info.name).read(info.name, info.shape, model.flat_.tensor.slice(info.offset, {info.size}));
  model.refresh_operands();
  return model;
}

void Model::save(const std::filesystem::path& dir) const {
  save(dir, config_, layout_, flat());
}

void Model::save(const std::filesystem::path& dir, const ModelConfig& config, const ParameterLayout& layout,
                 kernels::Tensor parameters) {
  std::vector<SafetensorsItem> items;
  for (const ParameterInfo& info : layout.all())
    items.push_back({info.name, info.shape, parameters.slice(info.offset, {info.size}), kernels::DType::f32});
  write_safetensors(dir / "model.safetensors", items, {{"format", "pt"}});
  data::write_text_atomically(dir / "config.json", config.to_json().dump(2) + "\n");
}

kernels::Tensor Model::flat() const {
  if (released_)
    throw std::logic_error("the model released its f32 matrices: there is no flat array of all parameters");
  return flat_.tensor;
}

kernels::Tensor Model::vectors() const {
  return released_ ? flat_.tensor : flat_.tensor.rows(layout_.matrices_end(), layout_.total());
}

kernels::Tensor Model::parameter(const std::string& name) const {
  const ParameterInfo& info = layout_.at(name);
  if (released_ && info.decay) throw std::logic_error("the model released its f32 matrices: there is no " + name);
  return info.decay ? flat_.tensor.slice(info.offset, {info.size})
                    : vectors().slice(info.offset - layout_.matrices_end(), {info.size});
}

kernels::Tensor Model::operand_matrices() const {
  return options_.operands == kernels::DType::bf16 ? operand_flat_.tensor : flat().rows(0, layout_.matrices_end());
}

void Model::refresh_operands() {
  if (options_.operands != kernels::DType::bf16) return;
  kernels::cast(operand_flat_.tensor, flat().rows(0, layout_.matrices_end()),
                kernels::Stream{.device = options_.device});
}

void Model::release_matrices() {
  if (options_.operands != kernels::DType::bf16)
    throw std::logic_error("a model without bf16 operands cannot release its matrices");
  if (released_) return;
  const kernels::Stream stream{.device = options_.device};
  kernels::OwnedTensor kept(options_.storage, options_.device, {layout_.total() - layout_.matrices_end()});
  kernels::copy(kept.tensor, vectors(), stream);
  kernels::synchronize(stream);
  flat_ = std::move(kept);
  released_ = true;
  weights_ = Weights(config_, layout_, kernels::Tensor{}, flat_.tensor);
  operand_weights_ = Weights(config_, layout_, operand_flat_.tensor, flat_.tensor);
}

}  // namespace routescope::model
