// routescope-analyze: probe models, follow a run's emergence, draw its report.
#include <fmt/format.h>

#include "analysis/commands/checkpoints.h"
#include "analysis/commands/circuit_command.h"
#include "analysis/commands/coalition_command.h"
#include "analysis/commands/inspect.h"
#include "analysis/commands/probe_commands.h"
#include "analysis/record/study_file.h"
#include "analysis/report/claim_text.h"
#include "analysis/report/page/html.h"
#include "analysis/report/page/page_data.h"
#include "analysis/report/routed_text.h"
#include "analysis/report/study.h"
#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/files.h"
#include "data/base/paths.h"
#include "data/base/text.h"
#include "kernels/comm/launch.h"
#include "kernels/cpu/threads.h"

namespace {

using namespace routescope;
using namespace routescope::analysis;
namespace fs = std::filesystem;

void say_written(const fs::path& file) {
  fmt::print("{}: {:.1f} kB\n", data::printable(file.string()), static_cast<double>(fs::file_size(file)) / 1000);
}

struct ReportArguments {
  StudyRequest study;
  fs::path tokenizer, text, out;
};

/// Throws UsageError if an output would replace what the page is made of, or a run counts twice.
void check_paths(const ReportArguments& a, const std::vector<data::NamedPath>& outputs) {
  for (const std::vector<fs::path>& paths : {a.study.runs, a.study.baselines})
    if (const auto twice = data::named_twice(paths))
      throw data::UsageError("{}: found the same as {}, expected each once", twice->again.string(),
                             twice->before.string());
  std::vector<data::NamedPath> inputs{{"--tokenizer", a.tokenizer}, {"--text", a.text}};
  for (const fs::path& run : a.study.runs)
    for (const char* file :
         {"analysis.h5", "routing.h5", "routing.h5.journal", "config.yaml", "circuit.h5", "coalitions.h5"})
      inputs.push_back({"--run", run / file});
  for (const fs::path& baseline : a.study.baselines) inputs.push_back({"--baseline", baseline});
  data::require_apart(outputs, inputs);
}

/// The page of a study, with a text of its first run.
void write_page(const ReportArguments& a, const Study& study, const fs::path& file) {
  const std::optional<RoutedText> text =
      load_routed_text(study.runs.front().routing, a.study.runs.front() / "routing.h5", a.text, a.tokenizer,
                       study.config ? study.config->vocab_size : 0);
  data::write_text_atomically(
      file, study_page(page_data(study, text, load_study_circuits(a.study.runs), load_study_coalitions(a.study.runs))));
  say_written(file);
}

int run_report(const ReportArguments& a) {
  const fs::path out = a.out.empty() ? a.study.runs.front() / "report.html" : a.out;
  check_paths(a, {{"--out", out}});
  write_page(a, load_study(a.study), out);
  return 0;
}

int run_compare(ReportArguments a, const fs::path& baseline) {
  if (!baseline.empty()) a.study.baselines = {baseline};
  check_paths(a, {{"--out", a.out / "study.h5"}, {"--out", a.out / "index.html"}});
  const Study study = load_study(a.study);
  std::error_code error;
  fs::create_directories(a.out, error);
  if (error) throw data::Error("{}: cannot create: {}", a.out.string(), error.message());
  write_study(study, a.out / "study.h5");
  for (const Claim& claim : claims_of(study))
    fmt::print("{}", data::printable_lines(fmt::format("{}\n  {}\n", claim.claim, claim.verdict)));
  say_written(a.out / "study.h5");
  write_page(a, study, a.out / "index.html");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  kernels::settle_threads(argv);
  CLI::App app("Probe what the routing of a model does, follow it over a run, and draw the report.",
               "routescope-analyze");
  app.set_version_flag("--version", data::routescope_version());
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  const Subcommand probe = add_probe_command(app), track = add_track_command(app), circuit = add_circuit_command(app),
                   coalitions = add_coalition_command(app);

  CLI::App* report = app.add_subcommand("report", "Draw a run as one self-contained HTML page");
  ReportArguments r;
  report->add_option("--run", r.study.runs, "Run directory; further ones are held beside the first")
      ->required()
      ->allow_extra_args(false);
  report->add_option("--baseline", r.study.baselines, "analysis.h5 of a wrapped model, held beside the run")
      ->allow_extra_args(false);
  report->add_option("--tokenizer", r.tokenizer, "tokenizer.json that names the tokens (bytes, or their ids)");
  report->add_option("--text", r.text, "Dump of the run's model on chosen tokens (its probe tokens)");
  report->add_option("--out", r.out, "Page to write (DIR/report.html)");

  fs::path baseline;
  CLI::App* compare = app.add_subcommand("compare", "Several runs as one study: pooled findings, a file and a page");
  compare->add_option("--run", r.study.runs, "Run directory with an analysis.h5; once for each run")->required();
  compare->add_option("--baseline", baseline, "analysis.h5 of a wrapped standard model, on the same tokens");
  compare->add_option("--about", r.study.about, "What the models were trained on, for the page");
  compare->add_option("--out", r.out, "Directory for study.h5 and index.html")->required();

  CLI::App* inspect = app.add_subcommand("inspect", "What there is of a run and where it stands");
  std::string inspected;
  inspect->add_option("--run", inspected, "Run directory")->required();

  const auto tool = [&]() -> int {
    if (const auto done = data::parse_command_line(app, argc, argv)) return *done;
    for (const Subcommand& command : {probe, track, circuit, coalitions}) {
      if (*command.options) return command.run();
    }
    if (kernels::launched_place().rank != 0) return 0;  // the rest is work for one
    if (*report) return run_report(r);
    if (*compare) return run_compare(r, baseline);
    check_run(inspected);
    fmt::print("{}", data::printable_lines(inspect_run(inspected)));
    return 0;
  };
  return data::run_tool("routescope-analyze", [&]() -> int {
    // One line for the job, whichever rank it is that fails.
    try {
      return tool();
    } catch (const data::UsageError& error) {
      if (kernels::launched_place().size > 1)
        kernels::abandon(2, fmt::format("routescope-analyze: error: {}", data::printable(error.what())));
      throw;
    } catch (const std::exception& error) {
      if (kernels::launched_place().size > 1)
        kernels::abandon(1, fmt::format("routescope-analyze: error: {}", data::printable(error.what())));
      throw;
    }
  });
}
