#include "analysis/statistics/documents.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {
namespace {

void check(std::span<const double> values, std::span<const std::int64_t> documents) {
  if (!documents.empty() && documents.size() < values.size())
    throw std::invalid_argument("fewer labels of documents than values");
}

std::vector<double> all_nan_if_any(std::vector<double> values) {
  if (std::any_of(values.begin(), values.end(), [](double v) { return std::isnan(v); }))
    std::fill(values.begin(), values.end(), nan);
  return values;
}

}  // namespace

std::vector<double> document_values(std::span<const double> values, std::span<const std::int64_t> documents) {
  check(values, documents);
  std::map<std::int64_t, std::size_t> places;
  std::vector<std::size_t> place;  // [sequence] of its document
  for (std::size_t i = 0; i < values.size() && !documents.empty(); ++i)
    place.push_back(places.emplace(documents[i], places.size()).first->second);
  if (documents.empty() || places.size() == values.size()) return all_nan_if_any({values.begin(), values.end()});

  const double centre = mean(values);
  const double scale = static_cast<double>(places.size()) / static_cast<double>(values.size());
  std::vector<double> deviations(places.size(), 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) deviations[place[i]] += values[i] - centre;
  for (double& value : deviations) value = centre + scale * value;
  return all_nan_if_any(std::move(deviations));
}

std::vector<double> document_sums(std::span<const double> values, std::span<const std::int64_t> documents,
                                  std::int64_t total_sequences, std::int64_t total_documents) {
  check(values, documents);
  const double scale = static_cast<double>(total_documents) / static_cast<double>(total_sequences);
  std::vector<double> sums;
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += values[i];
    if (!documents.empty() && i + 1 < documents.size() && documents[i + 1] == documents[i]) continue;
    sums.push_back(scale * sum);
    sum = 0;
  }
  return all_nan_if_any(std::move(sums));
}

std::vector<std::size_t> document_numbers(std::span<const std::int64_t> documents, std::size_t sequences) {
  std::vector<std::size_t> numbers(sequences);
  std::map<std::int64_t, std::size_t> seen;
  for (std::size_t i = 0; i < sequences; ++i)
    numbers[i] = documents.empty() ? i : seen.emplace(documents[i], seen.size()).first->second;
  return numbers;
}

std::int64_t count_documents(std::span<const std::int64_t> documents) {
  return std::ssize(std::set<std::int64_t>(documents.begin(), documents.end()));
}

}  // namespace routescope::analysis
