#include "tests/kernels/comm/conformance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include "kernels/bf16.h"
#include "kernels/device.h"
#include "kernels/memory.h"
#include "tests/kernels/tolerance.h"

namespace routescope::testing {

namespace {

constexpr std::uint64_t kSeed = 20260612;

/// Numbers of very different sizes, so that another order of summation gives other bits. Known to all ranks.
std::vector<double> numbers(int rank, std::int64_t count, std::uint64_t what = 0) {
  std::mt19937_64 random(kSeed + 1000 * what + static_cast<std::uint64_t>(rank));
  std::vector<double> out(static_cast<std::size_t>(count));
  for (double& x : out) {
    const std::uint64_t bits = random();
    x = std::ldexp(static_cast<double>(static_cast<std::int64_t>(bits)), static_cast<int>(bits & 15) - 71);
  }
  return out;
}

double rounded(double x, kernels::DType type) {
  switch (type) {
    case kernels::DType::f64:
      return x;
    case kernels::DType::f32:
      return static_cast<float>(x);
    case kernels::DType::bf16:
      return kernels::to_float(kernels::to_bf16(x));
    case kernels::DType::i32:
      break;
  }
  return std::nearbyint(x);
}

/// A tensor on the ranks' device, seen as numbers; `shift` elements from the start of its memory.
class Numbers {
 public:
  Numbers(const Ranks& ranks, kernels::DType type, std::int64_t count, std::int64_t shift = 0)
      : stream_{.device = ranks.device},
        owner_(type, ranks.device, {count + shift}),
        tensor_(owner_.tensor.slice(shift, {count})) {}
  const kernels::Tensor& tensor() const { return tensor_; }
  kernels::Tensor part(std::int64_t begin, std::int64_t count) const { return tensor_.slice(begin, {count}); }

  void set(const std::vector<double>& values) const {
    kernels::OwnedTensor host(tensor_.dtype, kernels::Device::cpu, {static_cast<std::int64_t>(values.size())});
    for (std::size_t i = 0; i < values.size(); ++i) {
      switch (tensor_.dtype) {
        case kernels::DType::f64:
          host.tensor.as<double>()[i] = values[i];
          break;
        case kernels::DType::f32:
          host.tensor.as<float>()[i] = static_cast<float>(values[i]);
          break;
        case kernels::DType::bf16:
          host.tensor.as<kernels::bf16>()[i] = kernels::to_bf16(values[i]);
          break;
        case kernels::DType::i32:
          host.tensor.as<std::int32_t>()[i] = static_cast<std::int32_t>(std::nearbyint(values[i]));
          break;
      }
    }
    kernels::copy(tensor_, host.tensor, stream_);
    kernels::synchronize(stream_);
  }
  std::vector<double> get() const {
    kernels::OwnedTensor host(tensor_.dtype, kernels::Device::cpu, {tensor_.numel()});
    kernels::copy(host.tensor, tensor_, stream_);
    kernels::synchronize(stream_);
    std::vector<double> out(static_cast<std::size_t>(tensor_.numel()));
    for (std::size_t i = 0; i < out.size(); ++i) {
      switch (tensor_.dtype) {
        case kernels::DType::f64:
          out[i] = host.tensor.as<double>()[i];
          break;
        case kernels::DType::f32:
          out[i] = static_cast<double>(host.tensor.as<float>()[i]);
          break;
        case kernels::DType::bf16:
          out[i] = static_cast<double>(kernels::to_float(host.tensor.as<kernels::bf16>()[i]));
          break;
        case kernels::DType::i32:
          out[i] = host.tensor.as<std::int32_t>()[i];
          break;
      }
    }
    return out;
  }

 private:
  kernels::Stream stream_;
  kernels::OwnedTensor owner_;
  kernels::Tensor tensor_;
};

/// Element `at` of the ranks' sum, as a serial program adds it up in `type`, and how far another order may lie off.
struct Sum {
  double value = 0, slack = 0;
};
Sum serial_sum(const std::vector<std::vector<double>>& all, std::size_t at, kernels::DType type) {
  const kernels::DType arithmetic = type == kernels::DType::bf16 ? kernels::DType::f32 : type;
  double sum = rounded(all[0][at], type), size = std::abs(sum);
  for (std::size_t r = 1; r < all.size(); ++r) {
    const double term = rounded(all[r][at], type);
    sum = rounded(sum + term, arithmetic);
    size += std::abs(term);
  }
  return {rounded(sum, type), kSafety * static_cast<double>(all.size()) * unit_roundoff(type) * size};
}

void expect_sums(const Ranks& ranks, const std::vector<double>& found, const std::vector<std::vector<double>>& all,
                 std::size_t begin, kernels::DType type) {
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Sum expected = serial_sum(all, begin + i, type);
    if (ranks.sums_in_rank_order) {
      ASSERT_EQ(found[i], expected.value) << "element " << i;
    } else {
      ASSERT_NEAR(found[i], expected.value, expected.slack) << "element " << i;
    }
  }
}

std::vector<std::vector<double>> numbers_of_all(int ranks, std::int64_t count, std::uint64_t what) {
  std::vector<std::vector<double>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(numbers(r, count, what));
  return all;
}

void one_reduce_scatter(const Ranks& ranks, kernels::DType type, std::int64_t count, bool in_place,
                        std::int64_t shift) {
  SCOPED_TRACE(::testing::Message() << "type " << static_cast<int>(type) << ", " << count << " elements, in place "
                                    << in_place << ", shift " << shift);
  kernels::Communicator& comm = ranks.communicator;
  const kernels::Stream stream{.device = ranks.device};
  const auto all = numbers_of_all(comm.size(), count * comm.size(), static_cast<std::uint64_t>(count));
  const std::vector<double>& mine = all[static_cast<std::size_t>(comm.rank())];
  const Numbers whole(ranks, type, count * comm.size(), shift), apart(ranks, type, count, shift);
  whole.set(mine);
  const std::int64_t begin = comm.rank() * count;
  const kernels::Tensor piece = in_place ? whole.part(begin, count) : apart.tensor();
  comm.wait(comm.reduce_scatter(piece, whole.tensor(), stream, "sums"), stream);
  const std::vector<double> after = whole.get();
  const auto first = static_cast<std::size_t>(begin), length = static_cast<std::size_t>(count);
  const std::vector<double> sums =
      in_place ? std::vector<double>(after.begin() + begin, after.begin() + begin + count) : apart.get();
  expect_sums(ranks, sums, all, first, type);
  for (std::size_t i = 0; i < after.size(); ++i) {
    if (in_place && first <= i && i < first + length) continue;
    ASSERT_EQ(after[i], rounded(mine[i], type)) << "element " << i << " of whole was changed";
  }
}

void one_all_gather(const Ranks& ranks, kernels::DType type, std::int64_t count, bool in_place, std::int64_t shift) {
  SCOPED_TRACE(::testing::Message() << "type " << static_cast<int>(type) << ", " << count << " elements, in place "
                                    << in_place << ", shift " << shift);
  kernels::Communicator& comm = ranks.communicator;
  const kernels::Stream stream{.device = ranks.device};
  const auto all = numbers_of_all(comm.size(), count, static_cast<std::uint64_t>(count) + 7);
  const Numbers whole(ranks, type, count * comm.size(), shift), apart(ranks, type, count, shift);
  const kernels::Tensor piece = in_place ? whole.part(comm.rank() * count, count) : apart.tensor();
  std::vector<double> before(static_cast<std::size_t>(whole.tensor().numel()), -1);
  const std::vector<double>& mine = all[static_cast<std::size_t>(comm.rank())];
  if (in_place) std::ranges::copy(mine, before.begin() + comm.rank() * count);
  whole.set(before);
  apart.set(mine);
  comm.wait(comm.all_gather(whole.tensor(), piece, stream, "pieces"), stream);
  const std::vector<double> after = whole.get();
  for (std::size_t i = 0; i < after.size(); ++i) {
    const auto n = static_cast<std::size_t>(count);
    ASSERT_EQ(after[i], rounded(all[i / n][i % n], type)) << "element " << i;
  }
}

constexpr std::int64_t kCounts[] = {0, 1, 3, 257, 20'011};

void reduce_scatter_sums(const Ranks& ranks) {
  for (kernels::DType type : {kernels::DType::f32, kernels::DType::f64, kernels::DType::bf16}) {
    for (std::int64_t count : kCounts) {
      for (bool in_place : {false, true}) {
        for (std::int64_t shift : {0, 1}) one_reduce_scatter(ranks, type, count, in_place, shift);
      }
    }
  }
}

void all_gather_keeps_the_order_of_ranks(const Ranks& ranks) {
  for (kernels::DType type : {kernels::DType::f32, kernels::DType::f64, kernels::DType::bf16}) {
    for (std::int64_t count : kCounts) {
      for (bool in_place : {false, true}) {
        for (std::int64_t shift : {0, 3}) one_all_gather(ranks, type, count, in_place, shift);
      }
    }
  }
}

/// Each rank waits in a different order.
void many_under_way(const Ranks& ranks) {
  kernels::Communicator& comm = ranks.communicator;
  const kernels::Stream stream{.device = ranks.device};
  constexpr std::size_t kMany = 40;
  std::mt19937_64 same(kSeed), own(kSeed + 1 + static_cast<std::uint64_t>(comm.rank()));
  std::vector<std::int64_t> counts(kMany);
  for (std::int64_t& count : counts) count = std::uniform_int_distribution<std::int64_t>(0, 5000)(same);
  std::vector<Numbers> wholes, pieces;
  std::vector<kernels::Communicator::Ticket> tickets;
  for (std::size_t i = 0; i < kMany; ++i) {
    const Numbers& whole = wholes.emplace_back(ranks, kernels::DType::f32, counts[i] * comm.size());
    const Numbers& piece = pieces.emplace_back(ranks, kernels::DType::f32, counts[i]);
    if (i % 2 == 0) {
      whole.set(numbers(comm.rank(), counts[i] * comm.size(), i));
      tickets.push_back(comm.reduce_scatter(piece.tensor(), whole.tensor(), stream, "sums " + std::to_string(i)));
    } else {
      piece.set(numbers(comm.rank(), counts[i], i));
      tickets.push_back(comm.all_gather(whole.tensor(), piece.tensor(), stream, "pieces " + std::to_string(i)));
    }
  }
  // Host values may pass tensors that are on their way, but are never mixed with them.
  double ranks_sum = comm.rank();
  comm.all_reduce({&ranks_sum, 1}, kernels::Reduction::sum, "ranks");
  EXPECT_EQ(ranks_sum, comm.size() * (comm.size() - 1) / 2);
  std::vector<std::size_t> order(kMany);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::shuffle(order, own);
  for (std::size_t i : order) {
    comm.wait(tickets[i], stream);
    if (i % 2 == 0) {
      const auto all = numbers_of_all(comm.size(), counts[i] * comm.size(), i);
      expect_sums(ranks, pieces[i].get(), all, static_cast<std::size_t>(comm.rank() * counts[i]), kernels::DType::f32);
      continue;
    }
    const std::vector<double> found = wholes[i].get();
    for (int r = 0; r < comm.size(); ++r) {
      const std::vector<double> expected = numbers(r, counts[i], i);
      for (std::size_t j = 0; j < expected.size(); ++j) {
        ASSERT_EQ(found[static_cast<std::size_t>(r * counts[i]) + j], rounded(expected[j], kernels::DType::f32)) << i;
      }
    }
  }
}

void host_values_reduce(const Ranks& ranks) {
  kernels::Communicator& comm = ranks.communicator;
  for (std::int64_t count : {0, 1, 7, 5000}) {
    SCOPED_TRACE(count);
    const auto all = numbers_of_all(comm.size(), count, 3);
    const auto& mine = all[static_cast<std::size_t>(comm.rank())];
    std::vector<double> sum = mine, least = mine, largest = mine;
    comm.all_reduce(sum, kernels::Reduction::sum, "sum");
    comm.all_reduce(least, kernels::Reduction::min, "least");
    comm.all_reduce(largest, kernels::Reduction::max, "largest");
    for (std::size_t i = 0; i < mine.size(); ++i) {
      std::vector<double> column;
      for (const auto& values : all) column.push_back(values[i]);
      ASSERT_EQ(sum[i], serial_sum(all, i, kernels::DType::f64).value);
      ASSERT_EQ(least[i], *std::ranges::min_element(column));
      ASSERT_EQ(largest[i], *std::ranges::max_element(column));
    }
  }
  comm.barrier("nothing");
}

/// A NaN on one rank is a NaN on all.
void what_is_no_number_wins(const Ranks& ranks) {
  kernels::Communicator& comm = ranks.communicator;
  for (int owner = 0; owner < comm.size(); ++owner) {
    for (kernels::Reduction reduction : {kernels::Reduction::sum, kernels::Reduction::min, kernels::Reduction::max}) {
      double value = comm.rank() == owner ? std::numeric_limits<double>::quiet_NaN() : comm.rank();
      comm.all_reduce({&value, 1}, reduction, "loss");
      EXPECT_TRUE(std::isnan(value)) << "of rank " << owner << ", reduction " << static_cast<int>(reduction);
    }
  }
}

std::string text_of(int rank, std::size_t length) {
  std::string text(length, '\0');
  std::mt19937_64 random(kSeed + static_cast<std::uint64_t>(rank));
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

void texts_of_any_length(const Ranks& ranks) {
  kernels::Communicator& comm = ranks.communicator;
  // 896 bytes travel in the first message.
  for (std::size_t length :
       {std::size_t{0}, std::size_t{1}, std::size_t{896}, std::size_t{897}, std::size_t{300'000}}) {
    const auto length_of = [&](int rank) { return length + 13 * static_cast<std::size_t>(rank); };
    const std::vector<std::string> all = comm.gather(text_of(comm.rank(), length_of(comm.rank())), "texts");
    if (comm.rank() == 0) {
      ASSERT_EQ(all.size(), static_cast<std::size_t>(comm.size()));
      for (int r = 0; r < comm.size(); ++r) {
        EXPECT_TRUE(all[static_cast<std::size_t>(r)] == text_of(r, length_of(r))) << "rank " << r;
      }
    } else {
      EXPECT_TRUE(all.empty());
    }
    const std::string got = comm.broadcast(text_of(comm.rank(), length_of(comm.rank())), "text");
    EXPECT_TRUE(got == text_of(0, length_of(0))) << length;
  }
}

/// Collectives run while the rank that started them does other things: one rank waits, and the others do not call
/// wait() before they know that this rank has its result.
void tensors_travel_while_ranks_compute(const Ranks& ranks) {
  kernels::Communicator& comm = ranks.communicator;
  if (ranks.device != kernels::Device::cpu || comm.size() == 1) return;  // a device always computes beside its host
  const kernels::Stream stream;
  constexpr std::int64_t kCount = 100'003;
  const Numbers whole(ranks, kernels::DType::f32, kCount * comm.size()), piece(ranks, kernels::DType::f32, kCount);
  whole.set(numbers(comm.rank(), kCount * comm.size()));
  const auto begin = std::chrono::steady_clock::now();
  const kernels::Communicator::Ticket ticket = comm.reduce_scatter(piece.tensor(), whole.tensor(), stream, "sums");
  // The first number of the piece changes from zero to a sum while this thread only polls it.
  const volatile float* last = piece.tensor().as<float>() + kCount - 1;
  while (*last == 0 && std::chrono::steady_clock::now() - begin < std::chrono::seconds(20)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_NE(*last, 0) << "nothing arrives before wait()";
  comm.wait(ticket, stream);
}

void wrong_arguments(const Ranks& ranks) {
  kernels::Communicator& comm = ranks.communicator;
  if (comm.size() == 1 && ranks.device == kernels::Device::cpu) return;  // alone, a collective is a copy
  const kernels::Stream stream{.device = ranks.device};
  const Numbers whole(ranks, kernels::DType::f32, 4 * comm.size() + 1), piece(ranks, kernels::DType::f32, 4),
      other(ranks, kernels::DType::f64, 4);
  const kernels::Tensor exact = whole.part(0, 4 * comm.size());
  EXPECT_THROW(comm.reduce_scatter(piece.tensor(), whole.tensor(), stream, "a"), std::invalid_argument);
  EXPECT_THROW(comm.all_gather(whole.tensor(), piece.tensor(), stream, "b"), std::invalid_argument);
  EXPECT_THROW(comm.all_gather(exact, other.tensor(), stream, "c"), std::invalid_argument);
  one_all_gather(ranks, kernels::DType::f32, 5, false, 0);  // nothing of it stays
}

void traffic_is_counted(const Ranks& ranks) {
  kernels::Communicator& comm = ranks.communicator;
  const kernels::Stream stream{.device = ranks.device};
  const kernels::Communicator::Traffic before = comm.traffic();
  const Numbers whole(ranks, kernels::DType::f32, 1000 * comm.size()), piece(ranks, kernels::DType::f32, 1000);
  comm.wait(comm.reduce_scatter(piece.tensor(), whole.tensor(), stream, "sums"), stream);
  comm.wait(comm.all_gather(whole.tensor(), piece.tensor(), stream, "pieces"), stream);
  kernels::synchronize(stream);
  const kernels::Communicator::Traffic after = comm.traffic();
  EXPECT_EQ(after.bytes - before.bytes, static_cast<std::uint64_t>(comm.size() - 1) * 8000);
  EXPECT_GE(after.seconds_waited, before.seconds_waited);
}

}  // namespace

const std::vector<ConformanceCase>& conformance_cases() {
  static const std::vector<ConformanceCase> cases{
      {"ReduceScatterSums", reduce_scatter_sums},
      {"AllGatherKeepsTheOrderOfRanks", all_gather_keeps_the_order_of_ranks},
      {"ManyUnderWay", many_under_way},
      {"HostValuesReduce", host_values_reduce},
      {"WhatIsNoNumberWins", what_is_no_number_wins},
      {"TextsOfAnyLength", texts_of_any_length},
      {"TensorsTravelWhileRanksCompute", tensors_travel_while_ranks_compute},
      {"WrongArguments", wrong_arguments},
      {"TrafficIsCounted", traffic_is_counted},
  };
  return cases;
}

}  // namespace routescope::testing
