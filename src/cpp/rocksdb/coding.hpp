#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

namespace kumo::rocksdb {

// Bytes that cannot be decoded. The caller knows file and offset and turns it into FormatError.
class DecodeError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The bytes end inside a field: damage in a whole record, "more to come" in a streamed one.
class Truncated : public DecodeError {
 public:
  explicit Truncated(std::uint64_t needed)
      : DecodeError("a field runs past the end"), needed_(needed) {}

  // How many bytes, counted from the cursor's start, it takes to get further.
  [[nodiscard]] std::uint64_t needed() const noexcept { return needed_; }

 private:
  std::uint64_t needed_;
};

inline std::uint32_t load32(const char* in) noexcept {
  const auto* bytes = reinterpret_cast<const unsigned char*>(in);
  return static_cast<std::uint32_t>(bytes[0]) | static_cast<std::uint32_t>(bytes[1]) << 8 |
         static_cast<std::uint32_t>(bytes[2]) << 16 | static_cast<std::uint32_t>(bytes[3]) << 24;
}

inline std::uint64_t load64(const char* in) noexcept {
  return static_cast<std::uint64_t>(load32(in)) | static_cast<std::uint64_t>(load32(in + 4)) << 32;
}

// Takes little-endian and varint fields off the front of a byte range; never reads past its end.
class Cursor {
 public:
  explicit Cursor(std::string_view bytes) noexcept : bytes_(bytes) {}

  [[nodiscard]] bool empty() const noexcept { return position_ == bytes_.size(); }
  [[nodiscard]] std::size_t position() const noexcept { return position_; }
  [[nodiscard]] std::size_t remaining() const noexcept { return bytes_.size() - position_; }

  std::string_view take(std::uint64_t count) {
    if (count > remaining()) throw Truncated(position_ + count);
    const std::string_view taken = bytes_.substr(position_, static_cast<std::size_t>(count));
    position_ += taken.size();
    return taken;
  }
  std::uint8_t fixed8() { return static_cast<std::uint8_t>(take(1)[0]); }
  std::uint32_t fixed32() { return load32(take(4).data()); }
  std::uint64_t fixed64() { return load64(take(8).data()); }

  std::uint64_t varint64() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = fixed8();
      if (shift == 63 && byte > 1) break;
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    throw DecodeError("a variable-length number exceeds 64 bits");
  }
  std::uint32_t varint32() {
    const std::uint64_t value = varint64();
    if (value > UINT32_MAX) throw DecodeError("a variable-length number exceeds 32 bits");
    return static_cast<std::uint32_t>(value);
  }
  std::string_view length_prefixed() { return take(varint32()); }

 private:
  std::string_view bytes_;
  std::size_t position_ = 0;
};

}  // namespace kumo::rocksdb
