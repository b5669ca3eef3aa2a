#include "analysis/report/routed_text.h"

#include "analysis/report/token_text.h"
#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "data/records/record_field.h"

namespace routescope::analysis {
namespace {

std::vector<std::string> words(const std::vector<std::int32_t>& ids, const TokenText& text) {
  std::vector<std::string> out;
  out.reserve(ids.size());
  for (std::int32_t id : ids) out.push_back(text(id));
  return out;
}

std::optional<RoutedText> probe_text(const data::RoutingRecordView& routing, const std::filesystem::path& file,
                                     const TokenText& text) {
  if (routing.alpha_steps.empty() || routing.info.reads.empty() || routing.info.sequences == 0) return std::nullopt;
  RoutedText out;
  out.step = routing.alpha_steps.back();
  out.origin = "the run's probe tokens";
  out.sequences = routing.info.sequences;
  out.positions = routing.info.positions;
  out.tokens = words(routing.info.probe_tokens, text);
  out.alpha = data::RoutingRecordView::load_alpha(file, std::ssize(routing.alpha_steps) - 1);
  return out;
}

RoutedText dumped_text(const data::RoutingRecordView& routing, const std::filesystem::path& file,
                       const TokenText& text) {
  const data::hdf5::File dump = data::hdf5::File::open(file);
  if (!dump.exists("alpha") || !dump.exists("tokens"))
    throw data::Error("{}: found no tokens with alpha, expected a dump of a routed model (routescope-model dump)",
                      file.string());
  if (dump.read_text("read") != routing.info.reads || dump.read_text("source") != routing.info.sources)
    throw data::Error("{}: found reads or sources of another model, expected those of the run", file.string());
  RoutedText out;
  const data::hdf5::Shape shape = dump.dataset("tokens").shape();
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1)
    throw data::Error("{}: /tokens: found shape {}, expected at least one sequence of at least one token",
                      file.string(), data::hdf5::to_text(shape));
  const std::vector<std::int32_t> ids = dump.read<std::int32_t>("tokens");
  data::expect_field(dump.dataset("alpha"), {.path = "alpha", .type = data::hdf5::Type::f32},
                     {std::ssize(routing.info.reads), shape[0], shape[1], std::ssize(routing.info.sources)});
  out.step = -1;
  out.origin = file.filename().string();
  out.sequences = shape.at(0);
  out.positions = shape.at(1);
  out.tokens = words(ids, text);
  out.alpha = dump.read<float>("alpha");
  return out;
}

}  // namespace

std::optional<RoutedText> load_routed_text(const data::RoutingRecordView& routing,
                                           const std::filesystem::path& routing_file, const std::filesystem::path& dump,
                                           const std::filesystem::path& tokenizer, std::int64_t vocab_size) {
  const TokenText text = tokenizer.empty() ? TokenText::builtin(vocab_size) : TokenText::load(tokenizer);
  return dump.empty() ? probe_text(routing, routing_file, text) : std::optional(dumped_text(routing, dump, text));
}

}  // namespace routescope::analysis
