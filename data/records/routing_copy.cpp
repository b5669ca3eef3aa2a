#include "data/records/routing_copy.h"

#include <algorithm>

#include "data/base/error.h"
#include "data/hdf5/chunks.h"

namespace routescope::data::routing_format {

using hdf5::Dataset;
using hdf5::File;
using hdf5::Shape;

namespace {

// Rows that are read at once.
constexpr std::int64_t kBlockBytes = 4 << 20;

// The copy of one table. Readers see none of the appended rows before append_steps().
class TableCopy {
 public:
  TableCopy(TableReader& from, File& file, Table& to)
      : from_(from), file_(file), to_(to), chunked_(to.fields->chunked) {
    if (chunked_ && chunk_shape(source()) != chunk_shape(*to_.columns[0]))
      throw Error("{}: found chunks [{}], expected [{}] as in {}", source().where(),
                  fmt::join(chunk_shape(source()), ", "), fmt::join(chunk_shape(*to_.columns[0]), ", "),
                  to_.columns[0]->where());
  }

  std::int64_t step(std::int64_t row) const { return from_.steps()[static_cast<std::size_t>(row)]; }
  std::int64_t rows() const { return static_cast<std::int64_t>(from_.steps().size()); }

  // From row `begin` on: as many rows as are read at once, verified.
  RowBlock read(std::int64_t begin) {
    RowBlock block = from_.read(begin, std::min(rows_at_once(), rows() - begin));
    if (!chunked_) return block;
    std::int64_t found = -1;
    try {
      found = alpha_checksum(source(), begin, step(begin));
    } catch (const Error&) {  // a chunk that cannot be read
    }
    block.checksums = {found};
    if (found < 0 || (!block.stored.empty() && found != block.stored[0])) block.intact[0] = 0;
    return block;
  }

  // Rows [first, last) of a block that begins with row `begin`.
  void append(const RowBlock& block, std::int64_t begin, std::int64_t first, std::int64_t last) {
    if (first == last) return;
    const auto offset = static_cast<std::size_t>(first - begin), count = static_cast<std::size_t>(last - first);
    for (std::size_t c = 0; c < to_.columns.size(); ++c) {
      if (chunked_) {
        append_chunks(first);
        continue;
      }
      const std::size_t bytes = block.columns[c].size() / block.intact.size();
      append_row_bytes(*to_.columns[c],
                       std::span<const std::byte>(block.columns[c]).subspan(offset * bytes, count * bytes),
                       last - first);
    }
    to_.checksum->append(std::span<const std::int64_t>(block.checksums).subspan(offset, count), last - first);
    for (std::int64_t row = first; row < last; ++row) steps_.push_back(step(row));
  }

  // Writes the steps of all that was appended.
  const std::vector<std::int64_t>& append_steps() {
    to_.append_steps(file_, steps_);
    return steps_;
  }

 private:
  const Dataset& source() const { return *from_.table().columns[0]; }

  std::int64_t rows_at_once() const {
    if (chunked_) return 1;
    std::int64_t bytes = 1;
    for (std::size_t c = 0; c < to_.columns.size(); ++c) bytes += to_.row_values[c] * element_bytes(*to_.columns[c]);
    return std::max<std::int64_t>(1, kBlockBytes / bytes);
  }

  void append_chunks(std::int64_t row) {
    Dataset& target = *to_.columns[0];
    const std::int64_t place = target.rows();
    target.resize(place + 1);
    alpha_checksum(source(), row, step(row), [&](Shape first, std::span<const std::byte> bytes, std::uint32_t mask) {
      first[0] = place;
      write_chunk(target, first, bytes, mask);
    });
  }

  TableReader& from_;
  File& file_;
  Table& to_;
  bool chunked_ = false;
  std::vector<std::int64_t> steps_;
};

}  // namespace

Copied copy_rows(const File& from, bool journaled, File& to, Tables& target, std::int64_t until, bool go_on) {
  Tables source(from);
  Copied out;
  out.intact_step = until;
  for (std::size_t t = 0; t < out.last.size(); ++t) {
    TableReader reader(std::move(*source.all()[t]), journaled);
    const Table& table = reader.table();
    if (!table.checksum && !std::is_sorted(reader.steps().begin(), reader.steps().end()))
      throw Error("{}: found steps out of order, expected rising ones", table.step.where());
    TableCopy copy(reader, to, *target.all()[t]);
    bool ended = false;
    for (std::int64_t begin = 0; begin < copy.rows() && !ended;) {
      const RowBlock block = copy.read(begin);
      const std::int64_t end = begin + static_cast<std::int64_t>(block.intact.size());
      std::int64_t first = begin;  // of the intact rows that are not appended yet
      for (std::int64_t row = begin; row < end && !ended; ++row) {
        const bool intact = block.intact[static_cast<std::size_t>(row - begin)] != 0;
        // The step of a damaged row is past `until` only if another row or the journal shows it.
        ended = intact ? copy.step(row) > until : reader.step_before(row) >= until;
        if (intact && !ended) continue;
        copy.append(block, begin, first, row);
        first = row + 1;
        if (ended) break;
        if (out.damage.empty())
          out.damage = fmt::format("{}: row {} does not fit its checksum", table.fields->checksum.path, row);
        out.intact_step = std::min(out.intact_step, reader.step_before(row));
        ++out.lost[t];
        ended = !go_on;
      }
      if (!ended) copy.append(block, begin, first, end);
      begin = end;
    }
    const std::vector<std::int64_t>& steps = copy.append_steps();
    out.rows[t] = static_cast<std::int64_t>(steps.size());
    if (!steps.empty()) out.last[t] = steps.back();
  }
  return out;
}

}  // namespace routescope::data::routing_format
