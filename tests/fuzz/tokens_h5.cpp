// HDF5 files of tokens and logit biases, and any other HDF5 file in `inspect`.
#include <string>

#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "data/records/inspect.h"
#include "model/commands/dump.h"
#include "model/files/tokens.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/hdf5_edits.h"

namespace {

using namespace routescope;

const model::ReadPlan& plan() {
  static const model::ReadPlan out(
      testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  return out;
}

std::string make_whole() {
  const std::filesystem::path file = fuzz::scratch_directory() / "whole.h5";
  const std::int64_t reads = plan().num_routed(), columns = plan().num_columns();
  data::hdf5::File out = data::hdf5::File::create(file);
  out.write("tokens", std::vector<std::int32_t>(12, 3), {3, 4}, {"1", "tokens", {}, 4});
  out.write("logit_bias", std::vector<double>(static_cast<std::size_t>(reads * columns)), {reads, columns});
  out.write("grad/a.weight", std::vector<float>(6), {2, 3}, {"nats", "gradient"});
  out.set("filetype", "routescope dump");
  out.set("version", std::vector<std::int64_t>{1, 0});
  out.close();
  return data::read_text(file);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string whole = make_whole();
  fuzz::Script script(data, size);
  const std::filesystem::path file = fuzz::scratch_file("tokens.h5", whole);
  if (!fuzz::edit_hdf5(file, script)) return 0;
  fuzz::parse([&] { data::inspect(file); });
  fuzz::parse([&] { model::read_logit_bias(file, plan()); });
  return fuzz::parse([&] {
    const model::TokenBatch tokens = model::read_tokens(file.string(), 8, 16, 61);
    if (static_cast<std::int64_t>(tokens.ids.size()) != tokens.sequences * tokens.seq_len)
      fuzz::found("tokens of another shape than they say");
  });
}
