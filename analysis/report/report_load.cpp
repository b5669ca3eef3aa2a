// What a report is made of, from the files of runs.
#include <fmt/format.h>

#include "analysis/commands/tables.h"
#include "analysis/report/report.h"
#include "analysis/report/token_text.h"
#include "analysis/routes/slices.h"
#include "data/base/error.h"
#include "data/hdf5/file.h"

namespace routescope::analysis {
namespace {

std::string name_of(const std::filesystem::path& dir) {
  const std::filesystem::path absolute = std::filesystem::absolute(dir).lexically_normal();
  return (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
}

ReportSubject subject(const std::string& name, bool baseline, const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) throw data::Error("{}: no such file, expected probe results", file.string());
  ReportSubject out{name, baseline, AnalysisRecord::load(file), {}};
  if (out.analysis.rows.empty()) throw data::Error("{}: found no row, expected a probed step", file.string());
  if (out.analysis.identity.sets.empty()) {
    for (std::size_t slice = 0; slice < num_slices; ++slice) out.analysis.identity.sets.push_back(slice_name(slice));
  }
  out.findings = find(out.analysis);
  return out;
}

std::vector<std::string> words(const std::vector<std::int32_t>& ids, const TokenText& text) {
  std::vector<std::string> out;
  out.reserve(ids.size());
  for (std::int32_t id : ids) out.push_back(text(id));
  return out;
}

/// The run's probe sequences at the latest step that has weights of every token.
std::optional<RoutedText> probe_text(const data::RoutingRecordView& record, const std::filesystem::path& file,
                                     const TokenText& text) {
  if (record.alpha_steps.empty() || record.info.reads.empty()) return std::nullopt;
  RoutedText out;
  out.step = record.alpha_steps.back();
  out.origin = "the run's probe tokens";
  out.sequences = record.info.sequences;
  out.positions = record.info.positions;
  out.tokens = words(record.info.probe_tokens, text);
  out.alpha = data::RoutingRecordView::load_alpha(file, std::ssize(record.alpha_steps) - 1);
  return out;
}

/// Chosen tokens from a dump of a model of the run.
RoutedText dumped_text(const data::RoutingRecordView& record, const std::filesystem::path& file,
                       const TokenText& text) {
  const data::hdf5::File dump = data::hdf5::File::open(file);
  if (!dump.exists("alpha") || !dump.exists("tokens"))
    throw data::Error("{}: found no tokens with alpha, expected a dump of a routed model (routescope-model dump)",
                      file.string());
  if (dump.read_text("read") != record.info.reads || dump.read_text("source") != record.info.sources)
    throw data::Error("{}: found reads or sources of another model, expected those of the run", file.string());
  RoutedText out;
  data::hdf5::Shape shape;
  const std::vector<std::int32_t> ids = dump.read<std::int32_t>("tokens", &shape);
  out.step = -1;
  out.origin = file.filename().string();
  out.sequences = shape.at(0);
  out.positions = shape.at(1);
  out.tokens = words(ids, text);
  out.alpha = dump.read<float>("alpha");
  return out;
}

}  // namespace

ReportInput load_report(const ReportRequest& request) {
  const std::filesystem::path& run = request.runs.at(0);
  const auto record_file = run / "routing.h5";
  if (!std::filesystem::exists(record_file))
    throw data::Error("{}: no such file, expected a run directory", record_file.string());
  ReportInput out;
  out.name = name_of(run);
  out.record = data::RoutingRecordView::load(record_file);
  const std::vector<data::CheckpointEntry> checkpoints = data::list_checkpoints(run);
  out.checkpoints = checkpoints.size();
  if (!checkpoints.empty()) out.config = model::ModelConfig::load(checkpoints.back().dir / "config.json");

  const bool beside = request.runs.size() + request.baselines.size() > 1;
  for (const std::filesystem::path& dir : request.runs) {
    if (!beside && !std::filesystem::exists(dir / "analysis.h5")) continue;
    out.subjects.push_back(subject(name_of(dir), false, dir / "analysis.h5"));
  }
  if (request.runs.size() > 1) {
    std::vector<AnalysisRecord> records;
    for (const ReportSubject& one : out.subjects) records.push_back(one.analysis);
    try {
      out.pooled = pool(records);
    } catch (const data::Error& error) {
      out.not_pooled = error.what();
    }
  }
  for (const std::filesystem::path& file : request.baselines)
    out.subjects.push_back(
        subject(file.stem() == "analysis" ? name_of(file.parent_path()) : file.stem().string(), true, file));

  const TokenText text = request.tokenizer.empty() ? TokenText::builtin(out.config ? out.config->vocab_size : 0)
                                                   : TokenText::load(request.tokenizer);
  out.text = request.text.empty() ? probe_text(out.record, record_file, text)
                                  : std::optional(dumped_text(out.record, request.text, text));
  return out;
}

}  // namespace routescope::analysis
