#include "s3/metrics.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace kumo::s3 {

std::size_t Histogram::bucket_of(std::uint64_t value) noexcept {
  const auto width = static_cast<unsigned>(std::bit_width(value));
  if (width <= kSubBits) return static_cast<std::size_t>(value);
  const unsigned octave = std::min(width - kSubBits, kOctaves - 1);
  const std::uint64_t below = (value >> (octave - 1)) & ((std::uint64_t{1} << kSubBits) - 1);
  return (std::size_t{octave} << kSubBits) + static_cast<std::size_t>(below);
}

std::uint64_t Histogram::middle_of(std::size_t bucket) noexcept {
  const std::size_t octave = bucket >> kSubBits;
  const std::uint64_t below = bucket & ((std::uint64_t{1} << kSubBits) - 1);
  if (octave == 0) return below;
  const std::uint64_t width = std::uint64_t{1} << (octave - 1);
  return (((std::uint64_t{1} << kSubBits) + below) << (octave - 1)) + width / 2;
}

void Histogram::add(std::uint64_t microseconds) noexcept {
  ++buckets_[bucket_of(microseconds)];
  ++count_;
  sum_ += microseconds;
  max_ = std::max(max_, microseconds);
}

std::uint64_t Histogram::quantile(double q) const noexcept {
  if (count_ == 0) return 0;
  const auto rank = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    seen += buckets_[bucket];
    if (seen >= std::max<std::uint64_t>(rank, 1)) return std::min(middle_of(bucket), max_);
  }
  return max_;
}

void Metrics::add(std::string_view operation, const Attempt& attempt) {
  std::lock_guard lock(mutex_);
  auto found = operations_.find(operation);
  if (found == operations_.end()) {
    found = operations_.emplace(std::string(operation), OperationMetrics()).first;
  }
  OperationMetrics& sums = found->second;
  ++(attempt.success ? sums.succeeded : sums.failed);
  sums.bytes_sent += attempt.bytes_sent;
  sums.bytes_received += attempt.bytes_received;
  if (attempt.latency_ns >= 0) {
    sums.latency.add(static_cast<std::uint64_t>(attempt.latency_ns) / 1000);
  }
  if (attempt.first_byte_ns >= 0) {
    sums.first_byte.add(static_cast<std::uint64_t>(attempt.first_byte_ns) / 1000);
  }
}

std::map<std::string, OperationMetrics, std::less<>> Metrics::snapshot() const {
  std::lock_guard lock(mutex_);
  return operations_;
}

}  // namespace kumo::s3
