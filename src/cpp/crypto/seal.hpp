#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "crypto/hmac.hpp"
#include "crypto/plaintext.hpp"
#include "crypto/secret.hpp"

// The sealed form of files, see docs/format.md ("Sealed files"): a header, then chunks, each
// encrypted and authenticated by itself with AES-256-GCM.
namespace kumo::crypto {

inline constexpr std::size_t kChunk = 65'536;
inline constexpr std::size_t kTag = 16;
inline constexpr std::size_t kHeader = 32;
inline constexpr std::size_t kSalt = 16;
// Nothing larger is an object of S3: keeps all sums of sizes far from overflow.
inline constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 46;

using Salt = std::array<std::uint8_t, kSalt>;
using Header = std::array<std::uint8_t, kHeader>;

// Sealed bytes are not what their key and salt have sealed, or a content has changed.
class SealError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Bytes of the sealed form. Throws std::length_error beyond kMaxSize.
std::uint64_t sealed_size(std::uint64_t size);

// A content's salt and CRC32Cs. Equal contents have equal salts, others have not.
class Examination {
 public:
  explicit Examination(const Secret& salts) : hmac_(salts) {}

  // Goes on with the content up to `stop`. Throws std::length_error beyond its end.
  void read(const Plaintext& content, std::uint64_t stop);
  void finish();

  [[nodiscard]] bool finished() const noexcept { return finished_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return position_; }
  [[nodiscard]] const Salt& salt() const noexcept { return salt_; }
  [[nodiscard]] std::uint32_t crc32c() const noexcept;
  // Of a chunk of the content.
  [[nodiscard]] std::uint32_t crc32c(std::uint64_t chunk) const { return chunks_.at(chunk); }

 private:
  Hmac hmac_;
  std::uint64_t position_ = 0;
  std::vector<std::uint32_t> chunks_;
  Salt salt_{};
  bool finished_ = false;
};

// A repository's key, and what is derived from it. May be used by several threads at once.
class SealingKey {
 public:
  explicit SealingKey(const std::uint8_t* material);

  // For tokens, names and masks: a purpose has a key of its own.
  [[nodiscard]] Mac mac(std::string_view purpose, std::string_view data) const;
  [[nodiscard]] Header header(const Salt& salt) const;
  [[nodiscard]] Examination examine() const { return Examination(salts_); }

  // Writes the bytes from `start` to `stop` of a content's sealed form. Throws SealError where it
  // is not what was examined any more: its salt would be used for something else.
  void seal(const Plaintext& content, const Examination& examined, std::uint64_t start,
            std::uint64_t stop, std::uint8_t* into) const;

  // Opens whole chunks where they are, from the `first` on; `final`: with the last one of the
  // content. The plaintext begins where the chunks did; returns its size. Throws SealError, and
  // then nothing of the chunk that is damaged has become plaintext.
  std::size_t open(std::uint8_t* data, std::size_t size, const Salt& salt, std::uint64_t first,
                   bool final) const;

  [[nodiscard]] const Secret& material() const noexcept { return material_; }

 private:
  Secret material_;
  Secret salts_;
  std::array<std::uint8_t, 8> id_{};
};

}  // namespace kumo::crypto
