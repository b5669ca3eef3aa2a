// routescope-data: makes token shards from text and prompts with answers, and shows what is in routescope's files.
#include <functional>
#include <limits>
#include <map>
#include <memory>

#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/paths.h"
#include "data/base/text.h"
#include "data/journal/journal.h"
#include "data/records/inspect.h"
#include "data/records/routing_record.h"
#include "data/records/token_counts.h"
#include "data/tokens/prompts.h"
#include "data/tokens/tokenize.h"

namespace routescope::data {
namespace {

std::string shown(const std::filesystem::path& file) {
  return printable(file.string());
}

/// What `task` draws tokens from.
struct DrawFrom {
  std::int32_t vocab_size = 0;
  std::filesystem::path file;
  std::string ids;

  std::map<std::int32_t, std::int64_t> vocabulary() const {
    if ((vocab_size > 0) + !file.empty() + !ids.empty() != 1)
      throw UsageError("task: expected one of --vocab-size, --from and --ids");
    if (!file.empty()) return token_counts(file);
    return parse_ids(ids.empty() ? fmt::format("0-{}", vocab_size - 1) : ids, ids.empty() ? "--vocab-size" : "--ids");
  }
};

/// The subcommand `task`; returns what it does.
std::function<void()> add_task_command(CLI::App& app, CLI::App*& command) {
  command = app.add_subcommand(
      "task", "Write prompts with answers (data/formats/tasks.md), for routescope-analyze probe --task");
  struct Task {
    PromptOptions prompts;
    DrawFrom from;
    std::filesystem::path output;
    std::string kind;
  };
  const auto task = std::make_shared<Task>();
  command
      ->add_option("kind", task->kind,
                   "induction (A B ... A: B), copying (what follows in a repeated segment), greater-than (the greater "
                   "of two ids, after solved examples)")
      ->required()
      ->check(CLI::IsMember({"induction", "copying", "greater-than"}));
  command->add_option("--output", task->output, "The file to write, .jsonl")->required();
  constexpr std::int64_t most_prompts = 1 << 20, most_length = 1 << 16;
  add_number(*command, "--count", task->prompts.count, "Prompts", 1, most_prompts);
  add_number(*command, "--length", task->prompts.length, "Tokens of a prompt; of greater-than at most so many", 2,
             most_length);
  add_number(*command, "--seed", task->prompts.seed, "Another seed gives other prompts", 0,
             std::numeric_limits<std::int64_t>::max());
  add_number(*command, "--vocab-size", task->from.vocab_size, "Draw from ids 0 to N-1, all alike", 1, 1 << 22)
      ->default_str("");
  command->add_option("--from", task->from.file,
                      "Draw as often as ids are in this token shard or HDF5 file (of a run: DIR/routing.h5)");
  command->add_option("--ids", task->from.ids, "Draw from these ids, all alike: 48-57,65 (48-57 are digits as bytes)");
  return [task] {
    require_apart({{"--output", task->output}}, {{"--from", task->from.file}});
    task->prompts.kind = task->kind == "induction" ? PromptKind::induction
                         : task->kind == "copying" ? PromptKind::copying
                                                   : PromptKind::greater;
    task->prompts.vocabulary = task->from.vocabulary();
    const std::vector<GeneratedPrompt> prompts = generate_prompts(task->prompts);
    write_text_atomically(task->output, to_jsonl(prompts));
    fmt::print("{}: {} prompts of {} tokens\n", shown(task->output), prompts.size(), prompts.front().clean.size());
  };
}

void check_usage(const TokenizeOptions& options, bool has_fraction) {
  if (options.valid_output.has_value() != has_fraction)
    throw UsageError("--valid-output and --valid-fraction go together");
  if (has_fraction && !(options.valid_fraction < 1))
    throw UsageError("--valid-fraction: found {}, expected a number between 0 and 1", options.valid_fraction);
  if (const auto twice = named_twice(options.inputs))
    throw UsageError("--input {}: found the same file as {}, expected each document once", twice->again.string(),
                     twice->before.string());
  std::vector<NamedPath> inputs;
  for (const auto& input : options.inputs) inputs.push_back({"--input", input});
  require_apart({{"--output", options.output}, {"--valid-output", options.valid_output.value_or("")}}, inputs);
}

int run(int argc, char** argv) {
  CLI::App app("Turns text into token shards, makes prompts, and shows what is in routescope's files.",
               "routescope-data");
  app.set_version_flag("--version", std::string("routescope ") + routescope_version());
  app.require_subcommand(1);

  CLI::App* tokenize_command = app.add_subcommand("tokenize", "Write a token shard (data/formats/shard.md) from text");
  TokenizeOptions options;
  std::string tokenizer = "bytes";
  tokenize_command
      ->add_option("--input", options.inputs,
                   "Text files, plain or compressed (gzip, bzip2, xz, zstd); each is one document")
      ->required();
  tokenize_command->add_option("--output", options.output, "The shard to write")->required();
  tokenize_command->add_option("--tokenizer", tokenizer, "bytes: ids 0..255, 256 ends a document")
      ->check(CLI::IsMember({"bytes"}))
      ->capture_default_str();
  tokenize_command->add_flag("--any-bytes", options.any_bytes,
                             "Take files that are not text in UTF-8 too: NUL bytes, other encodings, archives");
  tokenize_command->add_option("--valid-output", options.valid_output, "A second shard, for validation");
  const CLI::Option* fraction =
      add_number(*tokenize_command, "--valid-fraction", options.valid_fraction,
                 "Share of every document, from its end, that goes to --valid-output", above_zero, 1)
          ->default_str("");

  CLI::App* inspect_command =
      app.add_subcommand("inspect", "Summarise a shard, an HDF5 record or a checkpoint directory");
  std::vector<std::filesystem::path> files;
  inspect_command->add_option("file", files, "Shards, routing.h5, analysis.h5, dumps, checkpoint directories")
      ->required();

  CLI::App* salvage_command = app.add_subcommand(
      "salvage", "Write the rows of a damaged routing.h5 (with its .journal beside it) that are intact to a new one");
  std::filesystem::path damaged, salvaged;
  salvage_command->add_option("file", damaged, "The record; it stays as it is")->required();
  salvage_command->add_option("--output", salvaged, "The record to write")->required();

  CLI::App* task_command = nullptr;
  const std::function<void()> write_task = add_task_command(app, task_command);

  if (const auto done = parse_command_line(app, argc, argv)) return *done;

  if (*tokenize_command) {
    check_usage(options, fraction->count() > 0);
    const TokenizeResult result = tokenize(options);
    fmt::print("{}: {} tokens of {} documents\n", shown(options.output), result.tokens, result.documents);
    if (options.valid_output) fmt::print("{}: {} tokens\n", shown(*options.valid_output), result.valid_tokens);
  }
  if (*task_command) write_task();
  if (*inspect_command)
    for (const auto& file : files) fmt::print("{}: {}", shown(file), printable_lines(inspect(file)));
  if (*salvage_command) {
    require_apart({{"--output", salvaged}, {"the journal of --output", journal_name(salvaged)}},
                  {{"file", damaged}, {"the journal of", journal_name(damaged)}});
    fmt::print("{}: {}\n", shown(salvaged), printable_lines(salvage(damaged, salvaged)));
  }
  return 0;
}

}  // namespace
}  // namespace routescope::data

int main(int argc, char** argv) {
  return routescope::data::run_tool("routescope-data", [&] { return routescope::data::run(argc, argv); });
}
