#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>

namespace kumo::bench {

// What every object contains: one block of pseudo-random bytes, over and over. The block is small
// enough to stay in the CPU's cache, and no divisor of a part size, so that parts differ.
class Content {
 public:
  static constexpr std::size_t kPeriod = 257 * 4096;

  Content();
  ~Content();
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  // A file that holds the block, for sendfile.
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

  // The bytes from an offset of an object up to where the block ends.
  [[nodiscard]] std::string_view at(std::uint64_t offset) const noexcept {
    const auto start = static_cast<std::size_t>(offset % kPeriod);
    return {block_ + start, kPeriod - start};
  }

  struct Checksums {
    std::uint32_t crc32;
    std::uint32_t crc32c;
  };
  // Of a whole object of this size.
  [[nodiscard]] Checksums checksums(std::uint64_t size);

 private:
  int descriptor_;
  char* block_;
  std::unordered_map<std::uint64_t, Checksums> known_;
};

}  // namespace kumo::bench
