#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace kumo::bench {

// Page-aligned memory that has been touched. A destination a few bytes past a page boundary, where
// malloc puts large blocks, makes some CPUs copy several times slower.
class Memory {
 public:
  explicit Memory(std::size_t size);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  [[nodiscard]] char* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  std::size_t size_;
  char* data_;
};

// Runs `work` once; returns CPU, wall time and growth of memory as JSON.
[[nodiscard]] std::string measured(const std::function<void()>& work);

// Runs `work` `count` times; returns requests/s and percentiles of its time as JSON.
[[nodiscard]] std::string latencies(std::uint64_t count, const std::function<void()>& work);

}  // namespace kumo::bench
