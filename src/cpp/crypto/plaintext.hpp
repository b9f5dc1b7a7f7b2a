#pragma once

#include <cstdint>

namespace kumo::crypto {

// What is to be sealed: memory, or a file that is read where it is needed. Owns neither.
class Plaintext {
 public:
  static Plaintext memory(const void* data, std::uint64_t size) noexcept {
    return {static_cast<const std::uint8_t*>(data), -1, size};
  }
  static Plaintext file(int fd, std::uint64_t size) noexcept { return {nullptr, fd, size}; }

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  // `count` bytes from `offset` on, which must be within the size; of a file in `scratch`, which
  // has room for them. Throws std::system_error, also where the file has become shorter.
  [[nodiscard]] const std::uint8_t* at(std::uint64_t offset, std::size_t count,
                                       std::uint8_t* scratch) const;

 private:
  Plaintext(const std::uint8_t* data, int fd, std::uint64_t size) noexcept
      : data_(data), fd_(fd), size_(size) {}

  const std::uint8_t* data_;
  int fd_;
  std::uint64_t size_;
};

}  // namespace kumo::crypto
