#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kumo::bench {

// A blocking connection to 127.0.0.1 that speaks just enough HTTP for the benchmarks' server.
// Throws std::runtime_error where anything is not as expected.
class Wire {
 public:
  explicit Wire(std::uint16_t port);
  ~Wire();
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

  // Begins an upload: its content has to follow, and then `expect_success`.
  void begin_put(std::string_view key, std::uint64_t size);
  // Begins a download and returns how much content arrived with the headers, at the begin of
  // `buffer`; the rest is to be received from the descriptor.
  std::size_t begin_get(std::string_view key, char* buffer, std::size_t capacity);
  void expect_success();

  void write_all(const char* data, std::size_t size) const;
  // At least one byte.
  [[nodiscard]] std::size_t receive(char* to, std::size_t capacity) const;

 private:
  int descriptor_;
};

}  // namespace kumo::bench
