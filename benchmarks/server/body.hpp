#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http.hpp"

namespace kumo::bench {

// The framing that HTTP's "chunked" and S3's "aws-chunked" share: sizes in hex, extensions such as
// signatures, trailers behind an empty chunk.
class ChunkDecoder {
 public:
  using Sink = std::function<void(std::string_view)>;

  // Takes what it can use of `data` and returns how much; hands content to the sink.
  std::size_t feed(std::string_view data, const Sink& sink);

  // Bytes of the current chunk that are still to come, and says that some were taken elsewhere.
  [[nodiscard]] std::uint64_t content_left() const noexcept { return content_left_; }
  void skip(std::uint64_t count) noexcept;

  [[nodiscard]] bool finished() const noexcept { return state_ == State::kDone; }
  [[nodiscard]] bool malformed() const noexcept { return state_ == State::kMalformed; }
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& trailers() const noexcept {
    return trailers_;
  }

 private:
  enum class State { kSize, kContent, kAfterContent, kTrailer, kDone, kMalformed };
  void take_line();

  State state_ = State::kSize;
  std::uint64_t content_left_ = 0;
  std::string line_;
  std::vector<std::pair<std::string, std::string>> trailers_;
};

enum class Verdict { kNothingToCheck, kVerified, kMismatch };

// The body of one request while it arrives.
class Body {
 public:
  enum class Use { kDiscard, kCheck, kCollect };

  // What the headers say of the body. False: such a body is not understood.
  bool begin(const Request& request, Use use);

  std::size_t feed(std::string_view data);

  // How many of the next bytes need not be looked at.
  [[nodiscard]] std::uint64_t skippable() const noexcept;
  void skip(std::uint64_t count) noexcept;

  [[nodiscard]] bool finished() const noexcept;
  [[nodiscard]] bool malformed() const noexcept;

  // Of the content, without framing.
  [[nodiscard]] std::uint64_t size() const noexcept { return announced_.value_or(seen_); }
  [[nodiscard]] const std::string& collected() const noexcept { return collected_; }
  // Compares with the checksums of headers and trailers; for bodies that are checked.
  [[nodiscard]] Verdict verdict() const;
  [[nodiscard]] std::uint32_t crc32c() const noexcept { return crc32c_; }
  // The checksum that the request claims, in S3's form; empty if none.
  [[nodiscard]] std::string claimed_crc32c() const { return claim("x-amz-checksum-crc32c"); }

 private:
  void content(std::string_view data);
  [[nodiscard]] std::string claim(std::string_view name) const;

  Use use_ = Use::kDiscard;
  std::uint64_t length_left_ = 0;           // without HTTP chunks
  std::optional<ChunkDecoder> http_;        // Transfer-Encoding: chunked
  std::optional<ChunkDecoder> aws_;         // Content-Encoding: aws-chunked, where it is decoded
  std::optional<std::uint64_t> announced_;  // size of the content
  std::uint64_t seen_ = 0;
  std::uint32_t crc32_ = 0;
  std::uint32_t crc32c_ = 0;
  std::uint64_t crc64nvme_ = 0;
  std::vector<std::pair<std::string, std::string>> claims_;
  std::string collected_;
};

// The base64 text of a checksum's big-endian bytes.
[[nodiscard]] std::string checksum_text(std::uint64_t value, unsigned bytes);

}  // namespace kumo::bench
